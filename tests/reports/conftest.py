"""Small stored studies that figures are drawn of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from nas_core.architecture import Architecture
from nas_core.evaluation import Report
from nas_core.records import StopAt, Verdict
from nas_core.strategy import Proposal, State
from studies.records import Study
from studies.store.store import Store
from studies.store.testing import SPEC


@dataclass
class Made:
    """A database, and studies that are written into it trial by trial."""

    store: Store

    def study(self, name: str, objectives: Sequence[str] = ("score:max",), **changes: object) -> Study:
        spec = SPEC.model_copy(update={"objectives": tuple(objectives), "constraints": (), **changes})
        return self.store.create_study(name, spec, StopAt())

    def trial(
        self,
        study: Study,
        number: int,
        values: Sequence[float] | None = None,
        state: State = State.COMPLETE,
        *,
        feasible: bool = True,
        budget: float | None = None,
        note: Mapping[str, str | int] | None = None,
        curve: Mapping[float, Mapping[str, float]] | None = None,
    ) -> int:
        """`values` as the metrics have them."""
        goals = [text.rpartition(":")[2] for text in study.spec.objectives]
        signs = [1 if goal == "max" else -1 for goal in goals]
        oriented = None if values is None else tuple(sign * value for sign, value in zip(signs, values, strict=True))
        arch = Architecture("letters", {"a": number % 3, "b": "xyz"[number % 2]})
        violations = () if values is None else (-0.5 if feasible else 0.5,)
        verdict = Verdict(state, None, oriented, violations, 1.0)
        run = self.store.propose(study, number, Proposal(arch, budget, None, note or {}), f"i{number}", verdict)
        for step, metrics in (curve or {}).items():
            self.store.report(run, Report(step, metrics))
        return run


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    with Store(f"sqlite:///{tmp_path}/nas.db", tmp_path, create=True) as store:
        yield Made(store)
