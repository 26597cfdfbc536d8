"""The best trials of a study, as they are trained again."""

from __future__ import annotations

from typing import Any

import pytest

from nas_core.records import StopAt
from studies.analysis.queries import top_trials
from studies.search.loop import Search
from tests.studies.test_blackbox import listed


@pytest.mark.parametrize("constraints", [(), ("params<=5",)])
def test_candidates_of_one_identity_are_one(bench: Any, constraints: tuple[str, ...]) -> None:
    """The last letter decides nothing, but what a candidate costs: within a constraint the one that keeps it counts."""
    store = bench.store()
    study = bench.study(store, constraints=constraints)
    make = listed("abba", "abbb", "aaca", "aacb", "bbca", "aaaa", "aaab")
    Search(store, study, bench.parts(study.spec, make=make)).run(StopAt())
    found = top_trials(store, study, 3)
    words = ["".join(str(value) for value in run.arch.values.values()) for run in found]
    assert words == (["aaab", "aacb", "abbb"] if constraints else ["aaaa", "aaca", "abba"])
    values = [run.verdict.values for run in found]
    assert values == sorted(values, reverse=True)
    assert [run.number for run in top_trials(store, study, 1)] == [found[0].number]
    assert len(top_trials(store, study, 99)) == (3 if constraints else 4)
