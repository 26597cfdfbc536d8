"""Make a trained network smaller by a compression method, train what is left, keep its weights and changes."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Generator, Iterator, Mapping, MutableMapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import compressors
from compressors.compressor import Change, Compressor, HasPlan, HasRegime, Plan, Round, Subject
from compressors.target import parse_targets
from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.cache import Prefixed
from nas_core.config import validate
from nas_core.errors import UsageError, VerificationError, unknown
from nas_core.evaluation import Budget, Context, Report
from nas_core.job import Result
from nas_core.model import Changes
from nas_core.proposal import Proposal
from nas_core.records import COMPRESS, RETRAIN, Run
from studies.address import address_of
from studies.analysis.trained import addressed_training, trained_weights
from studies.jobs import train
from studies.jobs.proof import Claim, prove
from studies.jobs.stored import REPORT, WEIGHTS, seed_of
from studies.jobs.teacher import teacher_of
from studies.records import Study, StudySpec
from studies.store.file_cache import cached_in
from studies.store.store import Store
from training.tasks import kind_of

if TYPE_CHECKING:
    from torch import nn

    from training.evaluators.train import Train
    from training.regimes.regime import Regime

METHOD = "compression method"
UNCHANGED = "unchanged"
"""The method where none is asked for, but a quantised program."""
KEPT, COMPRESSED, DONE = "weights.safetensors", "compressed.safetensors", "compression.json"
QUANTIZED = "quantized.json"  # what the quantised program came to
SEEN = 4  # samples that the network that is kept must answer as the trained one does
RECALIBRATION = 32  # training batches whose statistics batch normalisations get after a removal


RECOVERIES: Mapping[str, str] = {
    "weights": "all weights are trained on",
    "spa": "structured pruning adapters: low-rank corrections are trained, and biases and normalisations",
}
"""What may be trained after a round."""
ONCE = ("distillation", "adapters")
"""Changes of a recipe that are meant for one training, not for those of what it has left."""


@dataclass(frozen=True)
class Asked:
    """What a compression is asked for, beside its training. `targets` are texts like `macs<=0.5x`; `distill`: whether
    the network before teaches the smaller one; `recover`: what is trained of that (`RECOVERIES`); `quantize`: how the
    program is quantised in the end (`int8`, `fp16`)."""

    method: str | None
    config: Mapping[str, Any]
    targets: Sequence[str] = ()
    ignore: Sequence[str] = ()
    round_to: int = 1
    distill: bool = False
    recover: str = "weights"
    quantize: str | None = None


@dataclass(frozen=True)
class Base:
    """The network that is made smaller: how it is built, what is kept of it, and what it came to, which is reported as
    `base_*`. `initial` makes it as it was before its training, where that can be told."""

    network: nn.Module
    weights: Path
    changes: Changes
    metrics: Mapping[str, float]
    costs: Mapping[str, float]
    initial: Any


@dataclass(frozen=True)
class Compression:
    """What is made smaller, by what, and how it is trained after each round (`nas_core.job.Job`). `cache` is where what
    was scored of the network is kept."""

    evaluator: Train
    space: str
    method: type[Compressor]
    arch: Architecture
    base: Base
    settings: Mapping[str, Any]
    about: Mapping[str, Any]
    cache: MutableMapping[str, Mapping[str, Any]]
    first_seed: int

    kind: ClassVar[str] = COMPRESS

    @property
    def steps(self) -> float:
        return float(sum(self.settings["rounds"]))

    def plan(self) -> Plan | None:
        """What would be done with the first seed, without any training; None where the method does not say.

        Raises UsageError.
        """
        with self.evaluator.computing():
            made = self.made(self.first_seed)
            return made.plan(self.base.network) if isinstance(made, HasPlan) else None

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        """The network after the first round, before any training, at step 0; then a report per epoch of all rounds. The
        last has the test metrics. A round that is written is not done again; its last report comes again.

        Raises TrialError; VerificationError where changes and weights do not make the network that was trained, where
        the proof of what has gone fails, or where a target is not reached.
        """
        from training.checkpoint import write_atomically

        rounds, seconds, begun = self.settings["rounds"], 0.0, 0
        network, before = self.base.network, (self.base.weights, self.base.changes)
        done: list[Mapping[str, Any]] = []
        with self.evaluator.computing():
            if (context.workdir / KEPT).is_file():  # only what it went through may be left, and the quantised program
                network, report = self._read(context.workdir / KEPT)
                yield report
                rounds = []
            compressor = self.made(context.seed)
            for number, epochs in enumerate(rounds):
                last = number == len(rounds) - 1
                folder = context.workdir / f"round-{number}"
                kept = context.workdir / KEPT if last else folder / KEPT
                if kept.is_file():
                    network, report = self._read(kept)
                    yield report
                else:
                    network = self._compressed(compressor, network, number, folder, before)
                    if last:
                        self._reached(network)
                    regime = compressor.regime(network, number) if isinstance(compressor, HasRegime) else None
                    reports = self._trained(network, begun, epochs, last, replace(context, workdir=folder), regime)
                    with closing(reports):
                        for report in reports:
                            report = replace(report, seconds=seconds + report.seconds)
                            yield report
                done.append(_said(folder / COMPRESSED).done)
                if last:
                    write_atomically(context.workdir / DONE, json.dumps({"rounds": done}, indent=2).encode())
                if not kept.is_file():
                    if last:
                        self._reached(network)  # no training may have undone it
                    network = self._write(network, kept, report)
                before, seconds, begun = (kept, _said(kept).changes), report.seconds, begun + epochs
            if "quantize" in self.settings:
                yield replace(report, metrics={**report.metrics, **self._quantized(network, context.workdir)})
        for folder in context.workdir.glob("round-*"):
            shutil.rmtree(folder)

    def result(self, workdir: Path) -> Result:
        files = {WEIGHTS: workdir / KEPT, REPORT: workdir / DONE}
        if "quantize" in self.settings:
            files[self.settings["quantize"]] = workdir / self._said_of_program(workdir)["file"]
        return Result(files, _said(workdir / KEPT).changes)

    def made(self, seed: int) -> Compressor:
        """The method, for a run with this seed. Raises UsageError for what does not fit."""
        from training.fit import trial_failures
        from training.tasks import sample_inputs

        evaluator, settings = self.evaluator, self.settings
        subject = Subject(
            evaluator.task,
            evaluator.data,
            evaluator.device,
            seed,
            inputs=tuple(one.to(evaluator.device) for one in sample_inputs(evaluator.task, SEEN)),
            recipe=evaluator.recipe,
            epochs=settings["epochs"],
            targets=parse_targets(settings["targets"]),
            base=self.base.costs,
            ignored=tuple(settings["ignore"]),
            round_to=settings["round_to"],
            initial=self.base.initial,
            cache=Prefixed(self.cache, f"{settings['of']}/{seed}/"),
        )
        config = validate(self.method.Config, settings["config"], f"{METHOD} {settings['method']}")
        with trial_failures():
            made = self.method(subject, config)
        rounds = getattr(made, "rounds", None)
        if not isinstance(rounds, Sequence) or not rounds or not all(isinstance(one, Round) for one in rounds):
            raise UsageError(
                f"{METHOD} '{settings['method']}': rounds is {rounds!r}; it must be a tuple of "
                "compressors.compressor.Round, of at least one"
            )
        return made

    def _quantized(self, network: nn.Module, folder: Path) -> Mapping[str, float]:
        """The metrics of the quantised program, which is made where it is not there yet."""
        from training.checkpoint import write_atomically
        from training.export.compared import quantize

        if not (folder / QUANTIZED).is_file():
            found = quantize(network, self.evaluator.source, self.settings["quantize"], folder)
            said = {"file": found.path.name, "metrics": dict(found.metrics)}
            write_atomically(folder / QUANTIZED, json.dumps(said).encode())
        metrics: Mapping[str, float] = self._said_of_program(folder)["metrics"]
        return metrics

    def _said_of_program(self, folder: Path) -> dict[str, Any]:
        said: dict[str, Any] = json.loads((folder / QUANTIZED).read_text())
        return said

    def _compressed(
        self, compressor: Compressor, network: nn.Module, number: int, folder: Path, before: tuple[Path, Changes]
    ) -> nn.Module:
        """The network after the method's part in a round, rebuilt from its file: what is trained is what a resumed
        compression trains. It is proved before it counts."""
        from training.fit import trial_failures

        written = folder / COMPRESSED
        if written.is_file():
            return self._read(written)[0]
        changed = copy.deepcopy(network).to(self.evaluator.device).eval()
        with trial_failures():
            change = compressor.compress(changed, number)
        if not isinstance(change, Change):
            raise UsageError(
                f"compress of '{self.settings['method']}' returned {change!r}; return a compressors.compressor.Change"
            )
        for check in change.checks:
            if not check.difference <= check.tolerance:
                raise VerificationError(
                    f"'{self.settings['method']}': {check.name} differs by {check.difference:.3g}, and may by "
                    f"{check.tolerance:g}; nothing was kept"
                )
        if change.recalibrate:
            with trial_failures():
                self._recalibrate(changed)
        proved = folder / "unproved.safetensors"
        found = self._write(changed, proved, Report(0, {}), change)
        if change.removed:
            prove(self._claim(found, before, proved, change))
        proved.rename(written)
        return found

    def _recalibrate(self, network: nn.Module) -> None:
        from training.compute import Forward
        from training.fit import has_convolutions
        from training.recalibration import first, recalibrate

        evaluator = self.evaluator
        forward = Forward(evaluator.device, evaluator.precision, channels_last=has_convolutions(network))
        batches = first(evaluator.data.batches("train", 0, 0), RECALIBRATION)
        recalibrate(forward.place(network), partial(forward, network), batches)

    def _claim(self, network: nn.Module, before: tuple[Path, Changes], path: Path, change: Change) -> Claim:
        """What is to be proved of a written network."""
        import torch

        evaluator, inputs = self.evaluator, self._inputs
        with torch.no_grad():
            answer = network(*inputs)
        return Claim(
            *(self.space, self.arch, evaluator.task, evaluator.size, before, (path, _said(path).changes)),
            removed={name: tuple(sorted(units)) for name, units in change.removed.items()},
            ignored=tuple(self.settings["ignore"]),
            recalibrated=change.recalibrate,
            inputs=tuple(one.numpy() for one in inputs),
            answer=answer.numpy(),
            costs=self._costs(network),
            threads=evaluator.threads,
        )

    def _reached(self, network: nn.Module) -> None:
        """Raises VerificationError where the network costs more than it should."""
        costs = self._costs(network)
        for target in parse_targets(self.settings["targets"]):
            if costs[target.metric] > target.limit(self.base.costs):
                raise VerificationError(
                    f"'{self.settings['method']}' has not reached {target}: {target.metric} is "
                    f"{costs[target.metric]:,g}, of {self.base.costs[target.metric]:,g} before"
                )

    def _costs(self, network: nn.Module) -> dict[str, float]:
        return costs_of(network, self.evaluator)

    def _trained(
        self, network: nn.Module, begun: int, epochs: int, last: bool, context: Context, regime: Regime | None
    ) -> Generator[Report, None, None]:
        """The reports of one round, which begins after `begun` epochs, with what the network costs."""
        evaluator, costs = self.evaluator, self._costs(network)
        if not begun or not epochs:
            parts = ("valid", "test") if last and not epochs else ("valid",)
            base = {f"base_{name}": value for name, value in self.base.metrics.items()}
            yield Report(begun, {**evaluator.measure(network, *parts), **costs, **base})
        if epochs:
            regimes = () if regime is None else (regime,)
            with closing(evaluator.learn(network, epochs, context, regimes)) as reports:
                for report in reports:
                    tested = {name: one for name, one in report.metrics.items() if last or not name.startswith("test_")}
                    yield Report(begun + report.step, {**tested, **costs}, report.seconds)

    def _write(self, network: nn.Module, path: Path, report: Report, change: Change | None = None) -> nn.Module:
        """Write a network, whole or not at all: tensors, changes and the report that it came to; as it is read again.

        Raises VerificationError where that is another one.
        """
        import safetensors.torch
        import torch

        from training.changes import changes_of, rebuilt
        from training.checkpoint import storable, write_atomically

        network = copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format)
        changes = changes_of(self._plain, network)
        said = {
            "changes": changes.model_dump_json(),
            "report": json.dumps([report.step, dict(report.metrics), report.seconds]),
        }
        if change is not None:
            said["done"] = json.dumps(_done(change))
        content = safetensors.torch.save(storable(network.state_dict()), said)
        found = rebuilt(self._plain, changes)
        found.load_state_dict(safetensors.torch.load(content))
        self._same(network, found.eval())
        write_atomically(path, content)
        return found

    def _same(self, network: nn.Module, found: nn.Module) -> None:
        """Raises VerificationError where two networks answer otherwise."""
        import torch

        with torch.no_grad():
            wanted, answer = network.eval()(*self._inputs), found(*self._inputs)
        if not torch.equal(wanted, answer):
            apart = float((wanted - answer).abs().max()) if wanted.shape == answer.shape else "of shape"
            raise VerificationError(
                f"'{self.settings['method']}' has changed more than attributes, tensors and layers in the place of "
                f"modules, so that the network cannot be rebuilt (difference {apart})"
            )

    @cached_property
    def _inputs(self) -> Any:
        """What the network is compared on, on the CPU."""
        import torch

        batch = next(iter(self.evaluator.data.batches("valid", 0, 0)))
        apart, plain = kind_of(self.evaluator.task).apart, torch.contiguous_format
        # Cloned, because images of one channel are contiguous in any layout, which still decides who computes.
        return tuple((x[:SEEN] if apart else x).cpu().clone(memory_format=plain) for x in batch.inputs)

    def _read(self, path: Path) -> tuple[nn.Module, Report]:
        from training.networks import load_trained

        evaluator, said = self.evaluator, _said(path)
        network = load_trained(evaluator.space, self.arch, evaluator.task, evaluator.size, path, said.changes)
        return network, said.report

    @cached_property
    def _plain(self) -> nn.Module:
        """The network as its space builds it."""
        from training.networks import build

        evaluator = self.evaluator
        return build(evaluator.space, self.arch, evaluator.task, evaluator.size, 0)


def compression(
    store: Store,
    study: Study,
    trial: Run,
    run: Run,
    asked: Asked,
    recipe: str | None = None,
    changes: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    device: str | None = None,
) -> Compression:
    """A compression of the network that a run has left, trained on the data of that run after every round for `epochs`
    (None: a tenth of the recipe's, 0: not at all) by a recipe (None: that of the run, as it was changed there).

    Raises UsageError for what does not fit, VerificationError where the weights of the run are gone or damaged.
    """
    if asked.method is None:
        if asked.quantize is None:
            raise UsageError("name a method (nas compressors list), or what to quantise to (--quantize int8)")
        if epochs:
            raise UsageError(f"epochs {epochs}: without a method nothing is trained; leave it out")
        epochs = 0
    name = asked.method or UNCHANGED
    kind, given = method(name), dict(run.recipe or {})
    parse_targets(asked.targets)
    if asked.recover not in RECOVERIES:
        raise unknown("recovery", asked.recover, RECOVERIES)
    if asked.recover == "spa":
        changes = {"adapters": {}, **(changes or {})}
    if asked.quantize is not None:
        from training.export.formats import check_quantized

        check_quantized(asked.quantize, study.spec.task)
    own = {} if recipe is not None else {key: one for key, one in given["changes"].items() if key not in ONCE}
    address = address_of(study, trial, run)
    teacher = teacher_of(store, address) if asked.distill or "distillation" in (changes or {}) else None

    def trained_by(**epochs: int) -> train.Training:
        changed = {**own, **(changes or {}), **epochs}
        plan = study.spec, recipe or given["recipe_name"], changed, given["size"], given["data"]
        return train.training(*plan, device or given["device"], given.get("metrics", ()), teacher=teacher)

    training = trained_by()
    if epochs is None:
        epochs = max(1, training.evaluator.recipe.epochs // 10)
    if epochs:
        training = trained_by(epochs=epochs)
    validated = validate(kind.Config, asked.config, f"{METHOD} {name}")
    weights = hashlib.sha256(trained_weights(store, study, trial, run).read_bytes()).hexdigest()
    settings = {
        **training.settings,
        "method": name,
        "method_hash": refs.locate(name, compressors.BUILTIN, compressors.GROUP, METHOD).file_hash,
        "config": validated.model_dump(mode="json"),
        "targets": list(map(str, parse_targets(asked.targets))),
        "ignore": list(asked.ignore),
        "round_to": asked.round_to,
        "epochs": epochs,
        **({} if asked.quantize is None else {"quantize": asked.quantize}),
        "from": address,
        "of": weights,
    }
    made = _opened(store, study, trial, run, training.evaluator, settings, training.about)
    _check(made.base.network, address, asked.ignore)
    rounds = made.made(made.first_seed).rounds
    made.plan()  # says now what cannot be
    lasting = [epochs if one.epochs is None else min(one.epochs, epochs) for one in rounds]
    if asked.quantize is not None and any(lasting):  # what cannot be written is not trained
        from training.export.compared import float_program

        float_program(made.base.network, training.evaluator.source)
    return replace(made, settings={**settings, "rounds": lasting})


def _check(network: nn.Module, address: str, ignored: Sequence[str]) -> None:
    """Raises UsageError for weights that are no numbers, and for modules to ignore that there are not."""
    import torch

    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UsageError(f"the weights of {address} are no numbers: '{name}' has NaN or infinity; train it again")
    modules = [name for name, _ in network.named_modules() if name]
    for name in ignored:
        if name not in modules:
            raise unknown("module to ignore", name, modules)


def opened(store: Store, spec: StudySpec, settings: Mapping[str, Any]) -> Compression:
    """The compression of stored settings, for a process of its own. Raises as `compression`."""
    study, trial, run = addressed_training(store, settings["from"])
    teacher = teacher_of(store, settings["teacher"]["from"]) if "teacher" in settings else None
    return _opened(store, study, trial, run, train.evaluator_of(spec, settings, teacher=teacher), settings, {})


def costs_of(network: nn.Module, evaluator: Train) -> dict[str, float]:
    """What a network costs: parameters, the share of its weights that are not zero, and MACs of one sample (of a graph,
    all of it)."""
    from compressors.masks.density import density
    from training import cost
    from training.tasks import sample_inputs

    inputs = sample_inputs(evaluator.task)
    return {
        "params": float(cost.params(network)),
        "macs": float(cost.macs(network, inputs)),
        "density": density(network),
    }


def _opened(
    store: Store,
    study: Study,
    trial: Run,
    run: Run,
    evaluator: Train,
    settings: Mapping[str, Any],
    about: Mapping[str, Any],
) -> Compression:
    from training.networks import build, load_trained

    weights = trained_weights(store, study, trial, run)
    network = load_trained(evaluator.space, trial.arch, evaluator.task, evaluator.size, weights, run.changes)
    learned = {name: value for name, value in run.metrics.items() if name.startswith(("val_", "test_"))}
    initial = None
    if run.kind == RETRAIN and "weights" not in (run.recipe or {}):
        seed = seed_of(study, trial, RETRAIN, run.repeat)
        initial = partial(build, evaluator.space, trial.arch, evaluator.task, evaluator.size, seed)
    costs = costs_of(network, evaluator)
    base = Base(network, weights, run.changes, {**learned, **costs}, costs, initial)
    plan = evaluator, study.spec.space, method(settings["method"]), trial.arch, base, settings, about
    return Compression(*plan, cached_in(store), seed_of(study, trial, COMPRESS, 0))


def method(reference: str) -> type[Compressor]:
    """The class of a compression method. Raises UsageError for what is none."""
    found = refs.find(reference, compressors.BUILTIN, compressors.GROUP, METHOD)
    missing = [name for name in ("Config", "needs", "compress") if not hasattr(found, name)]
    if not isinstance(found, type) or missing:
        raise UsageError(
            f"{METHOD} '{reference}' is no class with Config, needs, rounds and compress; see compressors.compressor"
        )
    return found


def _done(change: Change) -> dict[str, Any]:
    """What one round has done, as plain data."""
    return {
        "removed": {name: sorted(units) for name, units in change.removed.items()},
        "checks": [[one.name, one.difference, one.tolerance] for one in change.checks],
        "report": {name: dict(part) for name, part in change.report.items()},
        "notes": list(change.notes),
    }


@dataclass(frozen=True)
class _Said:
    """What a file of a network says beside its tensors."""

    changes: Changes
    report: Report
    done: Mapping[str, Any]


def _said(path: Path) -> _Said:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        said = file.metadata()
    step, metrics, seconds = json.loads(said["report"])
    done = json.loads(said.get("done", "{}"))
    return _Said(Changes.model_validate_json(said["changes"]), Report(step, metrics, seconds), done)
