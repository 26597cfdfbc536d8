"""Which attempts on a run count: those that ended without a word since its furthest report."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas_core.architecture import Architecture
from nas_core.evaluation import Report
from nas_core.records import BASELINE, StopAt, Verdict
from nas_core.strategy import Proposal, State
from studies.executors.attempts import Attempts
from studies.store.store import Store
from studies.store.testing import SPEC


@pytest.mark.parametrize("apart", [False, True])
def test_attempts(tmp_path: Path, apart: bool) -> None:
    with Store(f"sqlite:///{tmp_path}/nas.db") as store:
        study = store.create_study("s", SPEC, StopAt())
        arch = Architecture("letters", {"a": 1})
        store.propose(study, 1, Proposal(arch), arch.key, Verdict(State.WAITING), kind=BASELINE)

        def stored() -> int:
            return store.runs(study, BASELINE)[0].tries

        def begin() -> Attempts:
            found = Attempts.of(store, store.runs(study, BASELINE)[0])
            found.start(store, apart, None)
            if apart:
                assert stored() == found.tries  # another process has not come to it yet
                found.begun(store)
            return found

        begin().halted(store)
        assert stored() == 0  # stopped in good order
        begin()
        second = begin()
        assert stored() == 2  # the first has ended without a word
        tries = second.reported(Report(3, {}))
        assert tries == 1  # it has come further than any before
        store.report(second.run.id, Report(3, {"a": 1.0}), tries=tries)
        third = begin()
        assert third.reported(Report(2, {})) is None  # no further than the one before
        assert (stored(), third.furthest) == (2, 3)
