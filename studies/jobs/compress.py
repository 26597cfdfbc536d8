"""Make a trained network smaller by a compression method, train what is left, keep its weights and changes."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import compressors
from compressors.compressor import Change, Compressor, HasRegime, Round, Subject
from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.config import validate
from nas_core.errors import UsageError, VerificationError
from nas_core.evaluation import Budget, Context, Report
from nas_core.job import Result
from nas_core.model import Changes
from nas_core.proposal import Proposal
from nas_core.records import COMPRESS, Run
from studies.address import address_of
from studies.analysis.trained import addressed_training, trained_weights
from studies.jobs import train
from studies.jobs.stored import WEIGHTS
from studies.records import Study, StudySpec
from studies.store.store import Store
from training.tasks import kind_of

if TYPE_CHECKING:
    from torch import nn

    from training.evaluators.train import Train
    from training.regimes.regime import Regime

METHOD = "compression method"
KEPT = "weights.safetensors"
PROVED = 4  # samples that the network that is kept must answer as the trained one does


@dataclass(frozen=True)
class Compression:
    """What is made smaller, by what, and how it is trained after each round (`nas_core.job.Job`).

    `base`: the trained network; `before`: what it came to, which is reported as `base_*`.
    """

    evaluator: Train
    method: type[Compressor]
    arch: Architecture
    base: nn.Module
    before: Mapping[str, float]
    settings: Mapping[str, Any]
    about: Mapping[str, Any]

    kind: ClassVar[str] = COMPRESS

    @property
    def steps(self) -> float:
        return float(sum(self.settings["rounds"]))

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        """The network after the first round, before any training, at step 0; then a report per epoch of all rounds. The
        last has the test metrics. A round that is written is not done again; its last report comes again.

        Raises TrialError, and VerificationError where changes and weights do not make the network that was trained.
        """
        rounds, seconds, begun = self.settings["rounds"], 0.0, 0
        with self.evaluator.computing():
            compressor = _made(self.method, self.evaluator, self.settings, context.seed)
            network = self.base
            for number, epochs in enumerate(rounds):
                last = number == len(rounds) - 1
                folder = context.workdir / f"round-{number}"
                kept = context.workdir / KEPT if last else folder / KEPT
                if kept.is_file():
                    network, report = self._read(kept)
                    yield report
                else:
                    network = self._compressed(compressor, network, number, folder)
                    regime = compressor.regime(network, number) if isinstance(compressor, HasRegime) else None
                    reports = self._trained(network, begun, epochs, last, replace(context, workdir=folder), regime)
                    with closing(reports):
                        for report in reports:
                            report = replace(report, seconds=seconds + report.seconds)
                            yield report
                    network = self._write(network, kept, report)
                seconds, begun = report.seconds, begun + epochs
        for folder in context.workdir.glob("round-*"):
            shutil.rmtree(folder)

    def result(self, workdir: Path) -> Result:
        return Result({WEIGHTS: workdir / KEPT}, _said(workdir / KEPT)[0])

    def _compressed(self, compressor: Compressor, network: nn.Module, number: int, folder: Path) -> nn.Module:
        """The network after the method's part in a round, rebuilt from its file: what is trained is what a resumed
        compression trains."""
        from training.fit import trial_failures

        written = folder / "compressed.safetensors"
        if written.is_file():
            return self._read(written)[0]
        changed = copy.deepcopy(network).to(self.evaluator.device).eval()
        with trial_failures():
            done = compressor.compress(changed, number)
        if not isinstance(done, Change):
            raise UsageError(
                f"compress of '{self.settings['method']}' returned {done!r}; return a compressors.compressor.Change"
            )
        return self._write(changed, written, Report(0, {}))

    def _trained(
        self, network: nn.Module, begun: int, epochs: int, last: bool, context: Context, regime: Regime | None
    ) -> Generator[Report, None, None]:
        """The reports of one round, which begins after `begun` epochs, with what the network costs."""
        from training import cost
        from training.tasks import sample_inputs

        evaluator = self.evaluator
        inputs = sample_inputs(evaluator.task)
        costs = {"params": float(cost.params(network)), "macs": float(cost.macs(network, inputs))}
        if not begun or not epochs:
            parts = ("valid", "test") if last and not epochs else ("valid",)
            base = {f"base_{name}": value for name, value in self.before.items()}
            yield Report(begun, {**evaluator.measure(network, *parts), **costs, **base})
        if epochs:
            regimes = () if regime is None else (regime,)
            with closing(evaluator.learn(network, epochs, context, regimes)) as reports:
                for report in reports:
                    tested = {name: one for name, one in report.metrics.items() if last or not name.startswith("test_")}
                    yield Report(begun + report.step, {**tested, **costs}, report.seconds)

    def _write(self, network: nn.Module, path: Path, report: Report) -> nn.Module:
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
        content = safetensors.torch.save(storable(network.state_dict()), said)
        found = rebuilt(self._plain, changes)
        found.load_state_dict(safetensors.torch.load(content))
        self._prove(network, found.eval())
        write_atomically(path, content)
        return found

    def _prove(self, network: nn.Module, found: nn.Module) -> None:
        """Raises VerificationError where two networks answer otherwise."""
        import torch

        batch = next(iter(self.evaluator.data.batches("valid", 0, 0)))
        apart = kind_of(self.evaluator.task).apart
        inputs = [(tensor[:PROVED] if apart else tensor).cpu().contiguous() for tensor in batch.inputs]
        with torch.no_grad():
            wanted, answer = network.eval()(*inputs), found(*inputs)
        if not torch.equal(wanted, answer):
            difference = float((wanted - answer).abs().max()) if wanted.shape == answer.shape else "of shape"
            raise VerificationError(
                f"'{self.settings['method']}' has changed more than attributes, tensors and layers in the place of "
                f"modules, so that the network cannot be rebuilt (difference {difference})"
            )

    def _read(self, path: Path) -> tuple[nn.Module, Report]:
        from training.networks import load_trained

        evaluator, (changes, report) = self.evaluator, _said(path)
        network = load_trained(evaluator.space, self.arch, evaluator.task, evaluator.size, path, changes)
        return network, report

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
    method: str,
    config: Mapping[str, Any],
    recipe: str | None = None,
    changes: Mapping[str, Any] | None = None,
    epochs: int | None = None,
    device: str | None = None,
) -> Compression:
    """A compression of the network that a run has left, trained on the data of that run after every round for `epochs`
    (None: a tenth of the recipe's, 0: not at all) by a recipe (None: that of the run, as it was changed there).

    Raises UsageError for what does not fit, VerificationError where the weights of the run are gone or damaged.
    """
    kind, given = _method(method), dict(run.recipe or {})
    own = {} if recipe is not None else {key: one for key, one in given["changes"].items() if key != "distillation"}

    def asked_for(**epochs: int) -> train.Training:
        changed = {**own, **(changes or {}), **epochs}
        plan = study.spec, recipe or given["recipe_name"], changed, given["size"], given["data"]
        return train.training(*plan, device or given["device"], given.get("metrics", ()))

    asked = asked_for()
    if epochs is None:
        epochs = max(1, asked.evaluator.recipe.epochs // 10)
    if epochs:
        asked = asked_for(epochs=epochs)
    validated = validate(kind.Config, config, f"compression method {method}")
    settings = {
        **asked.settings,
        "method": method,
        "method_hash": refs.locate(method, compressors.BUILTIN, compressors.GROUP, METHOD).file_hash,
        "config": validated.model_dump(mode="json"),
        "epochs": epochs,
        "from": address_of(study, trial, run),
    }
    rounds = _made(kind, asked.evaluator, settings, 0).rounds
    settings["rounds"] = [epochs if one.epochs is None else min(one.epochs, epochs) for one in rounds]
    return _opened(store, study, trial, run, asked.evaluator, settings, asked.about)


def opened(store: Store, spec: StudySpec, settings: Mapping[str, Any]) -> Compression:
    """The compression of stored settings, for a process of its own. Raises as `compression`."""
    study, trial, run = addressed_training(store, settings["from"])
    return _opened(store, study, trial, run, train.evaluator_of(spec, settings), settings, {})


def _opened(
    store: Store,
    study: Study,
    trial: Run,
    run: Run,
    evaluator: Train,
    settings: Mapping[str, Any],
    about: Mapping[str, Any],
) -> Compression:
    from training.networks import load_trained

    weights = trained_weights(store, study, trial, run)
    base = load_trained(evaluator.space, trial.arch, evaluator.task, evaluator.size, weights, run.changes)
    before = {
        name: value for name, value in run.metrics.items() if name.startswith(("val_", "test_", "params", "macs"))
    }
    return Compression(evaluator, _method(settings["method"]), trial.arch, base, before, settings, about)


def _method(reference: str) -> type[Compressor]:
    """Raises UsageError for what is no compression method."""
    found = refs.find(reference, compressors.BUILTIN, compressors.GROUP, METHOD)
    missing = [name for name in ("Config", "needs", "compress") if not hasattr(found, name)]
    if not isinstance(found, type) or missing:
        raise UsageError(
            f"compression method '{reference}' is no class with Config, needs, rounds and compress; "
            "see compressors.compressor"
        )
    return found


def _made(method: type[Compressor], evaluator: Train, settings: Mapping[str, Any], seed: int) -> Compressor:
    from training.fit import trial_failures

    config = validate(method.Config, settings["config"], f"compression method {settings['method']}")
    with trial_failures():
        made = method(Subject(evaluator.task, evaluator.data, evaluator.device, seed), config)
    rounds = getattr(made, "rounds", None)
    if not isinstance(rounds, Sequence) or not rounds or not all(isinstance(one, Round) for one in rounds):
        raise UsageError(
            f"compression method '{settings['method']}': rounds is {rounds!r}; it must be a tuple of "
            "compressors.compressor.Round, of at least one"
        )
    return made


def _said(path: Path) -> tuple[Changes, Report]:
    """What a file of a network says beside its tensors."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        said = file.metadata()
    step, metrics, seconds = json.loads(said["report"])
    return Changes.model_validate_json(said["changes"]), Report(step, metrics, seconds)
