"""The evaluator of a search that asks for nothing but costs: nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nas_core.architecture import Architecture
from nas_core.evaluation import Budget, Context, Evaluator, Report
from nas_core.strategy import Proposal


class CostsOnly:
    """Reports what another evaluator knows of an architecture before it evaluates it, and never lets it evaluate.

    In all else it is that evaluator. Measured costs are taken by whoever needs them (`costs`), not here.
    """

    deterministic = True

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self.metrics = tuple(metric for metric in evaluator.metrics if metric.cost)
        self.fidelity = evaluator.fidelity
        self.in_process = evaluator.in_process
        self._counted = tuple(metric.name for metric in self.metrics if not metric.measured)

    def __getattr__(self, name: str) -> Any:
        """What else an evaluator has, such as its task or its device."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._evaluator, name)

    def identity(self, arch: Architecture) -> str | None:
        return self._evaluator.identity(arch)

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        return self._evaluator.costs(arch, names)

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        full = self.fidelity.high if self.fidelity else 1.0
        yield Report(full if budget is None else budget, self.costs(proposal.arch, self._counted))


def needs_costs_only(evaluator: Evaluator, wanted: Sequence[str]) -> bool:
    """Whether all of these metrics are known without an evaluation."""
    return set(wanted) <= {metric.name for metric in evaluator.metrics if metric.cost}
