"""A search beside random ones when all have cost as much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from nas_core.architecture import Architecture
from nas_core.records import StopAt, Verdict
from nas_core.strategy import Proposal, State
from studies.analysis.equal_cost import EVALUATIONS, SECONDS, beside_random
from studies.records import Study
from studies.store.store import Store
from studies.store.testing import SPEC


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path}/nas.db", create=True) as found:
        yield found


def search(
    store: Store,
    name: str,
    values: Sequence[float | None],
    strategy: str = "random",
    seconds: Sequence[float] = (),
    budgets: Sequence[float] = (),
    **changes: object,
) -> Study:
    """Values are oriented; None failed."""
    study = store.create_study(name, SPEC.model_copy(update={"strategy": strategy, **changes}), StopAt())
    for number, value in enumerate(values):
        spent = seconds[number] if seconds else 1.0
        state = State.FAILED if value is None else State.COMPLETE
        verdict = Verdict(state, None, None if value is None else (value,), () if value is None else (-1.0,), spent)
        arch = Architecture("letters", {"a": number})
        budget = budgets[number] if budgets else None
        store.propose(study, number, Proposal(arch, budget), f"i{number}", verdict)
    return study


def test_the_shorter_search_says_how_many_evaluations(store: Store) -> None:
    study = search(store, "s", [1.0, 3.0, 2.0], "tpe")
    search(store, "r1", [2.0, None, 2.5, 9.0])
    search(store, "r2", [0.0, 4.0, 0.0, 0.0, 8.0], seed=7)
    found = beside_random(store, study)
    assert found is not None
    assert (found.unit, found.cost, found.value) == (EVALUATIONS, 3.0, 3.0)
    assert (found.names, found.found, found.mean) == (["r1", "r2"], [2.5, 4.0], 3.25)
    assert found.deviation == pytest.approx(1.5 / 2**0.5)


def test_a_bracket_is_compared_by_time(store: Store) -> None:
    """Its small budgets cost, and do not count."""
    study = search(store, "s", [9.0, 1.0, 2.0], "hyperband", [1.0, 4.0, 4.0], [3.0, 12.0, 12.0])
    search(store, "r", [0.5, 1.5, 7.0], seconds=[4.0, 4.0, 4.0])
    found = beside_random(store, study)
    assert found is not None
    assert (found.unit, found.cost, found.value, found.found) == (SECONDS, 9.0, 2.0, [1.5])


@pytest.mark.parametrize(
    "changes", [{"split_hash": "1"}, {"objectives": ("score:min",)}, {"size": {"channels": 8}}, {"strategy": "tpe"}]
)
def test_another_problem_is_none(store: Store, changes: dict[str, object]) -> None:
    study = search(store, "s", [1.0], "tpe")
    search(store, "r", [2.0], **{"strategy": "random", **changes})  # type: ignore[arg-type]
    assert beside_random(store, study) is None


def test_nothing_feasible_is_none(store: Store) -> None:
    study = search(store, "s", [1.0], "tpe")
    search(store, "r", [None, None])
    assert beside_random(store, study) is None
    assert beside_random(store, search(store, "t", [None], "gp")) is None
