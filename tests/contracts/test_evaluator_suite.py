"""The evaluator suite finds nothing in a good evaluator, and each check catches the defect it is there for."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy
import pytest

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.errors import TrialError
from nas_core.evaluation import Budget, Context, Fidelity, Metric, Report
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal
from nas_core.testing.evaluator import check


class Toy(SearchSpace):
    name = "toy"
    tasks = frozenset({"image-classification"})
    choices = (Choice("width", (2, 4, 8)), Choice("depth", (1, 2)))


SPACE = Toy()
ARCH = moves.sample(SPACE, generator(0))
COUNT = itertools.count()


class Good:
    """A training of four epochs, with a checkpoint after each that holds the reports so far."""

    metrics: tuple[Metric, ...] = (
        Metric("accuracy"),
        Metric("duration", "min", "s", measured=True),
        Metric("params", "min", cost=True),
    )
    fidelity: Fidelity | None = Fidelity("epochs", 1, 4, continues=True)
    deterministic = True
    in_process = True

    def identity(self, arch: Architecture) -> str | None:
        return None

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        return {"params": 3.0 * int(arch.values["width"])} if "params" in names else {}

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        if context.deadline is not None:
            raise TrialError("time-limit", "the deadline is over")
        path = context.workdir / "checkpoint.json"
        curve = json.loads(path.read_text()) if path.exists() else []
        for epoch in range(1, int(budget or 4) + 1):
            if epoch > len(curve):
                curve.append(self.epoch(epoch, context.seed))
                path.write_text(json.dumps(curve))
            metrics = {**curve[epoch - 1], **self.costs(proposal.arch, ["params"])}
            yield Report(float(epoch), metrics, seconds=float(epoch))

    def epoch(self, epoch: int, seed: int) -> dict[str, float]:
        return {"accuracy": float(generator(seed, epoch).random()), "duration": float(next(COUNT))}


class GoodTable:
    """One report with recorded values; a metric that a row lacks is nan."""

    metrics = (Metric("accuracy"), Metric("latency", "min", cost=True))
    fidelity = None
    deterministic = True
    in_process = True

    def identity(self, arch: Architecture) -> str | None:
        return f"row {arch.key}"

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        return {name: math.nan for name in names if name == "latency"}

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        yield Report(1, {"accuracy": math.nan, "latency": math.nan})


@pytest.mark.parametrize("evaluator", [Good(), GoodTable()])
def test_nothing_is_found_in_a_good_evaluator(evaluator: Good | GoodTable) -> None:
    assert list(check(evaluator, SPACE, ARCH)) == []


@pytest.mark.parametrize("budget", [1, 2])
def test_a_budget_can_be_given(budget: int) -> None:
    assert list(check(Good(), SPACE, ARCH, budget)) == []


class NoMetrics(Good):
    metrics = ()


class RepeatedMetrics(Good):
    metrics = (*Good.metrics, Metric("accuracy", "min"))


class WrongFidelity(Good):
    fidelity = Fidelity("epochs", 5, 4)


class WrongLevels(Good):
    fidelity = Fidelity("epochs", 1, 4, levels=(1, 2))


class UnknownDeterminism(Good):
    deterministic = None  # type: ignore[assignment]


class Undeclared(Good):
    def epoch(self, epoch: int, seed: int) -> dict[str, float]:
        return {**super().epoch(epoch, seed), "loss": 1.0}


class Missing(Good):
    metrics = (*Good.metrics, Metric("test_accuracy"))


class Nothing(Good):
    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        yield from ()


class StandsStill(Good):
    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        for report in super().evaluate(proposal, budget, context):
            yield Report(4.0, report.metrics, report.seconds)


class TimeRunsBack(Good):
    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        for report in super().evaluate(proposal, budget, context):
            yield Report(report.step, report.metrics, 10 - report.seconds)


class StopsShort(Good):
    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        return super().evaluate(proposal, (budget or 4) - 1, context)


class IgnoresBudget(Good):
    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        return super().evaluate(proposal, None, context)


class NumpyNumbers(Good):
    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        for report in super().evaluate(proposal, budget, context):
            yield Report(report.step, {**report.metrics, "accuracy": numpy.float64(0.5)}, report.seconds)


class Infinite(Good):
    def epoch(self, epoch: int, seed: int) -> dict[str, float]:
        return {"accuracy": -math.inf, "duration": 1.0}


class UndeclaredCost(Good):
    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        return {"params": 1.0, "macs": 2.0}


class CostsUnasked(Good):
    metrics = (*Good.metrics, Metric("macs", "min", cost=True))

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        return {"params": 1.0, "macs": 2.0}


class OtherCosts(Good):
    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        return {"params": float(next(COUNT))} if "params" in names else {}


class DisagreeingCosts(Good):
    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        for report in super().evaluate(proposal, budget, context):
            yield Report(report.step, {**report.metrics, "params": 1.0}, report.seconds)


class UnstableIdentity(Good):
    def identity(self, arch: Architecture) -> str | None:
        return str(id(arch))


class CrashesAtDeadline(Good):
    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        if context.deadline is not None:
            raise TimeoutError("over")
        return super().evaluate(proposal, budget, context)


class ReturnsList(Good):
    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        return iter(list(super().evaluate(proposal, budget, context)))


class ResistsClosing(Good):
    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        for report in super().evaluate(proposal, budget, context):
            try:
                yield report
            except GeneratorExit:
                yield report


class IgnoresSeed(Good):
    def epoch(self, epoch: int, seed: int) -> dict[str, float]:
        return super().epoch(epoch, next(COUNT))


class DifferentHorizon(Good):
    """The curve depends on the budget, so a larger one cannot go on from a smaller one."""

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        for report in super().evaluate(proposal, budget, context):
            accuracy = report.metrics["accuracy"] * int(budget or 4)
            yield Report(report.step, {**report.metrics, "accuracy": accuracy}, report.seconds)


class SkipsOnResume(Good):
    """After a resume the reports that the checkpoint holds are not yielded again."""

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        path = context.workdir / "checkpoint.json"
        done = len(json.loads(path.read_text())) if path.exists() else 0
        return itertools.islice(super().evaluate(proposal, budget, context), done, None)


class ForgetsWhenStopped(Good):
    """Asked to stop, it writes a checkpoint whose next epoch is another."""

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        for report in super().evaluate(proposal, budget, context):
            if context.stopping():
                path = context.workdir / "checkpoint.json"
                path.write_text(json.dumps([*json.loads(path.read_text()), self.epoch(9, 0)]))
            yield report


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NoMetrics, "declaration: the metrics are none"),
        (RepeatedMetrics, "declaration: the metrics are none, or repeat a name"),
        (WrongFidelity, "wanted 0 < low <= high"),
        (WrongLevels, "levels (1, 2) do not rise from low 1 to high 4"),
        (UnknownDeterminism, "deterministic is None"),
        (Undeclared, "reports undeclared metrics: loss"),
        (Missing, "neither in the final report nor among the costs: test_accuracy"),
        (Nothing, "reports: there are none"),
        (StandsStill, "reports: step 4 follows step 4"),
        (TimeRunsBack, "seconds fall from 9 to 8"),
        (StopsShort, "the final step is 3 instead of 4"),
        (IgnoresBudget, "fidelity: the budget 1 ends at step 4"),
        (NumpyNumbers, "accuracy at step 1.0 is a float64, not a float"),
        (Infinite, "accuracy at step 1.0 is -inf"),
        (UndeclaredCost, "costs: they hold metrics not declared as costs: macs"),
        (CostsUnasked, "costs: asked for params alone they are"),
        (OtherCosts, "when asked for again"),
        (DisagreeingCosts, "before the evaluation and 1.0 in the final report"),
        (UnstableIdentity, "for the same architecture; wanted one text"),
        (CrashesAtDeadline, "deadline: raised TimeoutError"),
        (ReturnsList, "closing: evaluate returns no generator"),
        (ResistsClosing, "closing: raised RuntimeError"),
        (IgnoresSeed, "repeat: the same seed gives"),
        (DifferentHorizon, "fidelity: the budget 1 gives"),
        (SkipsOnResume, "resume: raised AttributeError"),
        (ForgetsWhenStopped, "resume: asked to stop after one report"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_defects_are_found(kind: type[Good], message: str) -> None:
    assert message in "\n".join(check(kind(), SPACE, ARCH))


def test_what_is_measured_need_not_repeat() -> None:
    class Declared(IgnoresSeed):
        metrics = (Metric("accuracy", measured=True), *Good.metrics[1:])

    assert list(check(Declared(), SPACE, ARCH)) == []


def test_an_evaluator_that_does_not_claim_to_repeat_need_not() -> None:
    class Honest(IgnoresSeed):
        deterministic = False

    assert list(check(Honest(), SPACE, ARCH)) == []


def test_the_architecture_to_check_with_must_be_legal() -> None:
    with pytest.raises(ValueError, match="is illegal: choice 'width' is active but missing"):
        list(check(Good(), SPACE, Architecture("toy", {"depth": 1})))
