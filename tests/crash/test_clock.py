"""A clock that somebody sets while a search runs: seconds are those of the monotonic clock, the order is that of the
numbers, and leases are by the database's clock, of which a jump costs an attempt at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from studies.store.store import Store
from tests.crash.random_kills import CHAINED, SEARCH
from tests.crash.sessions import contents, stored

Say = Callable[..., tuple[int, str, str]]

DAY = 86_400.0


class Clock:
    """`time.time` of the whole process, which jumps by a day each time it is asked: forward, and back twice as far."""

    def __init__(self, steps: Sequence[float]) -> None:
        self._true, self._steps, self._asked = time.time, steps, 0

    def __call__(self) -> float:
        self._asked += 1
        return self._true() + self._steps[self._asked % len(self._steps)]


@pytest.fixture
def search(say: Say) -> list[str]:
    Path("chained.py").write_text(CHAINED)
    return [*SEARCH, "-s", "evaluator.pause=0"]


@pytest.mark.parametrize("steps", [(0.0, DAY, -DAY), (0.0, -DAY), (-DAY, DAY)])
def test_a_search(say: Say, search: list[str], monkeypatch: pytest.MonkeyPatch, steps: tuple[float, ...]) -> None:
    assert say(*search, "--db", "whole.db", "--files", "whole")[0] == 0
    monkeypatch.setattr(time, "time", Clock(steps))
    assert say(*search)[0] == 0
    assert contents(Path("nas.db"), durations=False) == contents(Path("whole.db"), durations=False)
    with Store("sqlite:///nas.db", reading=True) as here, Store("sqlite:///whole.db", reading=True) as whole:
        assert stored(here) == stored(whole)
    for command in (("ls",), ("show", "s"), ("show", "s:3"), ("trials", "s"), ("best", "s"), ("verify", "s")):
        code, out, err = say(*command)
        assert code == 0, err
        assert " -" not in out.replace(" - ", " "), out  # no negative seconds
        code, out, err = say(*command, "--json")
        assert code == 0, err
        assert '"seconds": -' not in out
