"""A small space and evaluators, so that the loop is tested without training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import strategies
from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.config import SizeConfig
from nas_core.errors import TrialError
from nas_core.evaluation import Budget, Context, Fidelity, Metric, Report, parse_constraint, parse_objective
from nas_core.records import StopAt
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal, Setting
from nas_core.task import Task
from studies.records import Study, StudySpec
from studies.setup.assemble import StudyObjects
from studies.store.store import Store


class Edges(SearchSpace):
    """Four choices; the last does not matter, so architectures that differ in it are the same function."""

    name = "edges"
    tasks = frozenset({"none"})
    choices = tuple(Choice(f"edge{n}", ("a", "b", "c", "d")) for n in range(4))

    def identity(self, arch: Architecture) -> str:
        return "".join(str(value) for value in list(arch.values.values())[:3])


class Score:
    """Counts letters; reports two steps, and fails where the word says so."""

    metrics = (Metric("score"), Metric("other", "min"), Metric("params", "min", cost=True))
    fidelity: Fidelity | None = Fidelity("epoch", 1, 2, continues=True)
    deterministic = True
    in_process = True

    def __init__(self) -> None:
        self.evaluated: list[Architecture] = []

    def identity(self, arch: Architecture) -> str | None:
        return None

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        values = list(arch.values.values())
        costs = {"params": 100.0 * values.count("d") + 10.0 * (values[3] == "a")}
        return {name: costs[name] for name in names if name in costs}

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        self.evaluated.append(proposal.arch)
        values = list(proposal.arch.values.values())
        word = "".join(str(value) for value in values[:3])
        if word == "bbb":
            raise TrialError("out-of-memory", "too large")
        if word == "ccc":
            raise ZeroDivisionError("in a user's code")
        score = values[:3].count("a") + values[:3].count("d") + (context.seed % 1000) / 1e6
        for step in (1, 2):
            metrics = {
                "score": score * step / 2,
                "other": float(values[:3].count("d")),
                **self.costs(proposal.arch, ["params"]),
            }
            if word == "bcb" and step == 2:
                metrics["score"] = math.nan
            yield Report(step, metrics, 0.1 * step)


class Bench:
    """A store and a study on the space above."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.space = Edges()
        self.evaluator: Any = Score()

    def store(self, name: str = "nas") -> Store:
        return Store(f"sqlite:///{self.folder / name}.db")

    def spec(self, strategy: str = "random", lag: int = 1, **changes: Any) -> StudySpec:
        values: dict[str, Any] = {
            "space": "edges", "space_name": "edges", "space_version": 1, "space_hash": None, "size": {},
            "strategy": strategy, "strategy_config": {}, "evaluator": {"kind": "score", "settings": {"data": "none"}},
            "task": Task(kind="none", input_shape=(1,), outputs=1), "split_hash": "", "objectives": ("score:max",),
            "constraints": (), "seed": 5, "lag": lag,
        }  # fmt: skip
        return StudySpec(**{**values, **changes})

    def study(self, store: Store, name: str = "s", trials: int | None = None, **changes: Any) -> Study:
        return store.create_study(name, self.spec(**changes), StopAt(trials=trials))

    def parts(self, spec: StudySpec, evaluator: Any = None, make: Callable[..., Any] | None = None) -> StudyObjects:
        evaluator = evaluator or self.evaluator
        strategy = make or refs.find(spec.strategy, strategies.BUILTIN, strategies.GROUP, "strategy")
        objectives = tuple(parse_objective(text, evaluator.metrics) for text in spec.objectives)
        constraints = tuple(parse_constraint(text, evaluator.metrics) for text in spec.constraints)

        def identity(arch: Architecture) -> str:
            return evaluator.identity(arch) or self.space.identity(arch)

        return StudyObjects(
            space=self.space,
            size=SizeConfig(),
            evaluator=evaluator,
            objectives=objectives,
            constraints=constraints,
            setting=Setting(self.space, spec.seed, objectives, constraints, identity),
            strategy=strategy,
            strategy_config=strategy.Config(**spec.strategy_config),
            budget=None,
            trial_seconds=None,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)
