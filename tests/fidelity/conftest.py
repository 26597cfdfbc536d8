"""A study in miniature: ask, look up, tell. Known candidates are told again as reused, free of charge."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from nas_core.architecture import Architecture
from nas_core.evaluation import Context, Objective
from nas_core.space import SearchSpace
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, State
from search_spaces.nasbench201.space import NasBench201
from search_spaces.nasbench_graph.space import NasBenchGraph
from training.evaluators.table import Table

ACCURACY = (Objective("val_accuracy", "max"),)
Measure = Callable[[Architecture], dict[str, float]]


@dataclass
class Run:
    """The outcomes of a run in the order of their tells; `distinct` are those that were evaluated."""

    outcomes: list[Outcome] = field(default_factory=list)
    exhausted: bool = False

    @property
    def distinct(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.state is not State.REUSED]

    @property
    def incumbent(self) -> Outcome:
        return max(self.distinct, key=lambda outcome: outcome.values or (-math.inf,))


def play(strategy: Any, setting: Setting, measure: Measure, queries: int, lag: int = 1) -> Run:
    """Run until `queries` distinct candidates are evaluated, or 1,000 known ones in a row were proposed.

    At most `lag` trials are in flight.
    """
    run, known, pending = Run(), dict[str, Outcome](), list[Pending]()
    number, counted, streak = 0, 0, 0
    while counted < queries and streak < 1000:
        proposal = None
        if len(pending) < lag:
            try:
                proposal = strategy.ask(number, tuple(pending))
            except Exhausted:
                run.exhausted = True
                if not pending:
                    return run
        if proposal is not None:
            pending.append(Pending(number, proposal))
            number += 1
            if len(pending) < lag:
                continue
        assert pending, "the strategy waits for nothing"
        trial = pending.pop(0)
        identity = setting.identity(trial.proposal.arch)
        streak = streak + 1 if identity in known else 0
        if identity in known:
            outcome = replace(known[identity], number=trial.number, proposal=trial.proposal, state=State.REUSED)
        else:
            metrics = measure(trial.proposal.arch)
            values = tuple(goal.orient(metrics[goal.metric]) for goal in setting.objectives)
            outcome = Outcome(trial.number, trial.proposal, State.COMPLETE, values, metrics=metrics)
            known[identity] = outcome
            counted += 1
        strategy.tell(outcome)
        run.outcomes.append(outcome)
    return run


@dataclass
class Bench:
    """A table on which strategies are played over many seeds."""

    table: Table
    space: SearchSpace
    played: dict[tuple[str, int, int], dict[str, float]] = field(default_factory=dict)  # many compare with the same

    def incumbents(self, strategy: Any, config: Any, seeds: int, queries: int) -> list[dict[str, float]]:
        """The metrics, in percent, of the incumbent by validation after `queries` distinct rows, per seed."""
        found = []
        for seed in range(seeds):
            key = f"{strategy.__qualname__} {config!r}", seed, queries
            if key not in self.played:
                setting = Setting(self.space, seed, ACCURACY, identity=self.table.identity)
                metrics = play(strategy(setting, config), setting, self.look_up, queries).incumbent.metrics
                self.played[key] = {name: 100 * value for name, value in metrics.items()}
            found.append(dict(self.played[key]))
        return found

    def look_up(self, arch: Architecture) -> dict[str, float]:
        (report,) = self.table.evaluate(Proposal(arch), None, Context(0, Path()))
        return dict(report.metrics)


def errors_off(found: Sequence[float], mean: float, seeds: float = math.inf) -> float:
    """Difference of two means in standard errors; the other `mean` is over `seeds` runs with the same spread."""
    spread = statistics.pstdev(found)
    return abs(statistics.fmean(found) - mean) / (spread * math.sqrt(1 / len(found) + 1 / seeds))


@pytest.fixture(scope="session", name="play")
def _play() -> Callable[..., Run]:
    return play


@pytest.fixture(scope="session", name="errors_off")
def _errors_off() -> Callable[..., float]:
    return errors_off


@pytest.fixture(scope="session")
def benches(shared_data: Path) -> dict[str, Bench]:
    """The benchmark tables by data set; data sets of one space share it."""
    cells, graphs = NasBench201(), NasBenchGraph()
    sets = {"cifar10": cells, "cifar100": cells, "cora": graphs, "cs": graphs}
    files = {cells.name: shared_data / "nb201.csv.gz", graphs.name: shared_data / "nasbench_graph.csv.gz"}
    return {data: Bench(Table(space, files[space.name], data), space) for data, space in sets.items()}
