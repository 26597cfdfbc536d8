"""The pool over workers that the test itself plays: who gets which job, and what comes of those that die."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from nas_core.architecture import Architecture
from nas_core.errors import MachineError, UsageError
from nas_core.strategy import Proposal
from studies.executors import Begun, Died, Ended, Event, Halted, Job, Reported
from studies.executors import worker as protocol
from studies.executors.pool import STILLBORN, Pool


class Played:
    """A worker that says what the test lets it say; None: it has ended."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.says: deque[dict[str, Any] | None] = deque()
        self.ended = False

    def say(self, kind: str, **values: Any) -> None:
        self.says.append({"kind": kind, **values})

    def send(self, kind: str, **values: Any) -> None:
        self.heard.append((kind, values))

    def receive(self) -> dict[str, Any]:
        message = self.says.popleft()
        if message is None:
            raise EOFError
        return message

    def end(self) -> str:
        self.ended = True
        return "played"

    @property
    def jobs(self) -> list[int]:
        return [values["number"] for kind, values in self.heard if kind == protocol.JOB]


class Stage:
    """Starts such workers."""

    advice = "play on"

    def __init__(self) -> None:
        self.workers: list[Played] = []
        self.closed = False

    def start(self, place: int) -> Played:
        self.workers.append(Played())
        return self.workers[-1]

    def heard(self, workers: Collection[Played], seconds: float) -> list[Played]:
        return [worker for worker in workers if worker.says]

    def close(self) -> None:
        self.closed = True


def job(number: int) -> Job:
    return Job(number, Proposal(Architecture("s", {"a": 1})), None, 2.0, number, Path("w"), 0)


def events(pool: Pool[Played], count: int) -> list[Event]:
    return [pool.next(lambda: False) for _ in range(count)]


def test_a_worker_is_given_what_waits_before_anybody_hears_of_its_last_one() -> None:
    stage = Stage()
    pool = Pool(stage, 2, ahead=1)
    assert pool.slots == 3
    for number in range(3):
        pool.submit(job(number))
    first, second = stage.workers  # the third has no place
    for worker in (first, second):
        worker.say(protocol.READY)
        worker.say(protocol.STARTED, number=len(worker.heard))
    assert events(pool, 2) == [Begun(0), Begun(0)]
    assert (first.jobs, second.jobs) == ([0], [1])
    first.say(protocol.ENDED, number=0, failure=None)
    second.say(protocol.ENDED, number=1, failure=None)
    assert events(pool, 1) == [Ended(0)]
    assert (first.jobs, second.jobs) == ([0, 2], [1])
    pool.submit(job(3))
    assert second.jobs == [1, 3]
    assert events(pool, 1) == [Ended(1)]


def test_no_job_waits_for_a_worker_that_never_comes() -> None:
    stage = Stage()
    pool = Pool(stage, 2)
    pool.submit(job(0))
    pool.submit(job(1))
    first, second = stage.workers
    assert first.jobs == second.jobs == []
    first.say(protocol.READY)
    for number in (0, 1):
        first.say(protocol.STARTED, number=number)
        first.say(protocol.REPORTED, number=number, step=2.0, metrics={"x": "nan"}, seconds=0.1)
        first.say(protocol.ENDED, number=number, failure=None)
    found = events(pool, 6)
    assert [type(event) for event in found] == [Begun, Reported, Ended] * 2
    assert [event.number for event in found] == [0, 0, 0, 1, 1, 1]
    assert (first.jobs, second.jobs) == ([0, 1], [])
    assert len(stage.workers) == 2


def test_a_job_begins_once_whoever_dies_before_it() -> None:
    stage = Stage()
    pool = Pool(stage, 1)
    pool.submit(job(0))
    stage.workers[0].says.append(None)
    stage.workers[0].say("never read")
    pool._read(0)
    pool.submit(job(1))
    assert len(stage.workers) == 2  # the first died before it was ready: no job was with it
    stage.workers[1].say(protocol.READY)
    stage.workers[1].say(protocol.STARTED, number=0)
    stage.workers[1].says.append(None)
    assert events(pool, 2) == [Begun(0), Died(0, "played")]
    assert stage.workers[1].ended
    pool.submit(job(0))
    stage.workers[2].say(protocol.READY)
    stage.workers[2].say(protocol.STARTED, number=1)
    assert events(pool, 1) == [Begun(1)]
    assert stage.workers[2].jobs == [1]


def test_workers_that_never_become_ready_are_an_error() -> None:
    stage = Stage()
    pool = Pool(stage, 1)
    pool.submit(job(0))
    for _ in range(STILLBORN - 1):
        stage.workers[-1].says.append(None)
        pool._read(0)
        pool.submit(job(0))
    stage.workers[-1].says.append(None)
    with pytest.raises(MachineError, match=r"before they have begun \(played\); play on"):
        events(pool, 1)
    pool.close()
    assert stage.closed


def test_an_error_of_a_worker_is_the_same_error_here() -> None:
    stage = Stage()
    pool = Pool(stage, 1)
    pool.submit(job(0))
    stage.workers[0].say(protocol.ERROR, type="UsageError", text="the file has changed")
    with pytest.raises(UsageError, match="the file has changed"):
        events(pool, 1)


def test_a_halt_reaches_all_and_what_has_not_begun_does_not_begin() -> None:
    stage = Stage()
    pool = Pool(stage, 1)
    pool.submit(job(0))
    stage.workers[0].say(protocol.READY)
    stage.workers[0].say(protocol.STARTED, number=0)
    assert events(pool, 1) == [Begun(0)]
    pool.submit(job(1))
    assert pool.next(lambda: True) == Halted(1)
    assert stage.workers[0].heard[-1] == (protocol.HALT, {})
    stage.workers[0].say(protocol.HALTED, number=0)
    assert pool.next(lambda: True) == Halted(0)
    assert [kind for kind, _ in stage.workers[0].heard] == [protocol.JOB, protocol.HALT]


def test_of_a_dropped_job_nothing_more_is_heard_and_its_worker_goes_on() -> None:
    stage = Stage()
    pool = Pool(stage, 1)
    pool.submit(job(0))
    pool.submit(job(1))
    worker = stage.workers[0]
    worker.say(protocol.READY)
    worker.say(protocol.STARTED, number=0)
    assert events(pool, 1) == [Begun(0)]
    pool.drop(0)
    assert worker.heard[-1] == (protocol.DROP, {})
    worker.say(protocol.REPORTED, number=0, step=1.0, metrics={}, seconds=0.1)
    worker.say(protocol.HALTED, number=0)
    worker.say(protocol.STARTED, number=1)
    assert events(pool, 1) == [Begun(1)]
    assert worker.jobs == [0, 1]


def test_a_worker_that_ends_while_it_halts_costs_no_attempt() -> None:
    stage = Stage()
    pool = Pool(stage, 1)
    pool.submit(job(0))
    stage.workers[0].say(protocol.READY)
    stage.workers[0].say(protocol.STARTED, number=0)
    assert events(pool, 1) == [Begun(0)]
    pool._halt()
    stage.workers[0].says.append(None)
    assert pool.next(lambda: True) == Halted(0)
