"""The rounds of a compression: a network is changed by the method, written, proved, and what is left is trained."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Generator, Iterator, Mapping, MutableMapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from compressors.compressor import Change, Compressor, HasPlan, HasRegime, Plan, Round, Subject
from compressors.methods import METHOD, costs_of, recalibrated
from compressors.target import parse_targets
from nas_core.architecture import Architecture
from nas_core.cache import Prefixed
from nas_core.config import validate
from nas_core.errors import UsageError, VerificationError
from nas_core.evaluation import Budget, Context, Report
from nas_core.job import Result
from nas_core.model import Changes
from nas_core.proposal import Proposal
from nas_core.records import COMPRESS
from studies.jobs.proof import Claim, prove
from studies.jobs.stored import EXAMPLE, REPORT, WEIGHTS
from training.tasks import kind_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from training.evaluators.train import Train
    from training.regimes.regime import Regime

KEPT, COMPRESSED, DONE = "weights.safetensors", "compressed.safetensors", "compression.json"
QUANTIZED = "quantized.json"  # what the quantised program came to
SEEN = 4  # samples that the network that is kept must answer as the trained one does


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
        from nas_core.files import write_atomically

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

        evaluator, settings = self.evaluator, self.settings
        subject = Subject(
            evaluator.task,
            evaluator.data,
            evaluator.device,
            seed,
            inputs=tuple(one.to(evaluator.device) for one in self._example),
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
        from nas_core.files import write_atomically
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
        from nas_core.files import rename
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
                recalibrated(changed, self.evaluator)
        proved = folder / "unproved.safetensors"
        found = self._write(changed, proved, Report(0, {}), change)
        if change.removed:
            prove(self._claim(found, before, proved, change))
        rename(proved, written)
        return found

    def _claim(self, network: nn.Module, before: tuple[Path, Changes], path: Path, change: Change) -> Claim:
        """What is to be proved of a written network."""
        import torch

        evaluator, inputs = self.evaluator, self._inputs
        with torch.no_grad():
            answer = network(*inputs)
        return Claim(
            *(self.space, self.arch, evaluator.task, evaluator.size.model_dump(), before, (path, _said(path).changes)),
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
        return costs_of(network, self.evaluator.task)

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
                    yield Report(begun + report.step, {**tested, **costs}, report.seconds, report.detail)

    def _write(self, network: nn.Module, path: Path, report: Report, change: Change | None = None) -> nn.Module:
        """Write a network, whole or not at all: tensors, changes and the report that it came to; as it is read again.

        Raises VerificationError where that is another one.
        """
        import safetensors.torch
        import torch

        from nas_core.files import write_atomically
        from training.changes import changes_of, rebuilt
        from training.checkpoint import storable

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
        seen, plain = kind_of(self.evaluator.task).first(batch.inputs, SEEN), torch.contiguous_format
        # Cloned, because images of one channel are contiguous in any layout, which still decides who computes.
        return tuple(x.cpu().clone(memory_format=plain) for x in seen)

    def _read(self, path: Path) -> tuple[nn.Module, Report]:
        from training.networks import load_trained

        evaluator, said = self.evaluator, _said(path)
        network = load_trained(evaluator.space, self.arch, evaluator.task, evaluator.size, path, said.changes)
        return network, said.report

    @cached_property
    def _example(self) -> tuple[Tensor, ...]:
        """What the network is traced with: the user's inputs, or random ones."""
        from training.example import example, hash_of
        from training.tasks import sample_inputs

        if EXAMPLE not in self.settings:
            return sample_inputs(self.evaluator.task, SEEN)
        given = self.settings[EXAMPLE]
        if hash_of(given["from"]) != given["file_hash"]:
            raise UsageError(
                f"the file of --inputs '{given['from']}' has changed since the compression began; restore it"
            )
        return example(given["from"], self.evaluator.task, self.base.network)

    @cached_property
    def _plain(self) -> nn.Module:
        """The network as its space builds it."""
        from training.networks import build

        evaluator = self.evaluator
        return build(evaluator.space, self.arch, evaluator.task, evaluator.size, 0)


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
