"""The queue of a study in its database, and the executor on it, with workers that a test plays step by step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from nas_core.architecture import Architecture
from nas_core.errors import MachineError, UsageError
from nas_core.evaluation import Report
from nas_core.failures import Failure
from nas_core.records import StopAt
from nas_core.strategy import Proposal
from studies.executors import Begun, Died, Ended, Event, Halted, Job, Reported
from studies.executors.choose import Assignment, executor
from studies.executors.queued import MARK, Queued, mark_of
from studies.executors.where import Where
from studies.executors.worker import Candidates, JobWork, Remote, reported
from studies.records import Study
from studies.store import queue as queue_module
from studies.store import tables
from studies.store.queue import OVER, RUNNING, WAITING, Queue, Wanted
from studies.store.removal import remove_study
from studies.store.store import Store
from studies.store.testing import SPEC

pytestmark = pytest.mark.filterwarnings("ignore:study 's' waits for workers")
WANTED = Wanted(3, "s/trial-3", {"seed": 2**62, "target": 0.1}, {})
STARTED = {"kind": "started"}
ENDED = {"kind": "ended", "failure": None}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/nas.db"
    made: str = request.getfixturevalue("postgresql")()
    return made


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[Store]:
    with Store(url, tmp_path / "files") as opened:
        yield opened


@pytest.fixture
def study(store: Store) -> Study:
    return store.create_study("s", SPEC, StopAt(trials=3))


@pytest.fixture
def queue(store: Store, study: Study) -> Queue:
    return Queue(store, study)


def run_out(store: Store) -> None:
    """Let an hour pass for every lease."""
    a = tables.attempts
    store.write(lambda c: c.execute(a.update().values(until=a.c.until - 3600, claimed=a.c.claimed - 3600)))


def set_back(store: Store, seconds: float) -> None:
    """Set the database's clock back, as seen from all that it has written."""
    a, q = tables.attempts, tables.queues
    later = {name: a.c[name] + seconds for name in ("until", "claimed")}
    store.write(lambda c: c.execute(a.update().values(**later)))
    store.write(lambda c: c.execute(q.update().values(seen=q.c.seen + seconds)))


# -- the database ---------------------------------------------------------------------------------------------


def test_an_attempt_belongs_to_one_worker_as_long_as_that_gives_signs(queue: Queue, store: Store) -> None:
    assert queue.driver() is None
    assert queue.claim("one") is None
    queue.open("first", "host:1", "1.0", 60.0)
    driver = queue.driver()
    assert driver is not None
    assert (driver.session, driver.name, driver.version, driver.lease) == ("first", "host:1", "1.0", 60.0)
    assert driver.silent is not None
    assert 0 <= driver.silent < 30
    wanted = queue.want("first", WANTED)
    assert (wanted.state, wanted.worker, wanted.silent, wanted.expired) == (WAITING, None, None, False)
    found = queue.claim("one")
    assert found is not None
    attempt, again = found
    assert (attempt, again) == (wanted.id, WANTED)
    (taken,) = queue.attempts()
    assert (taken.id, taken.state, taken.worker, taken.folder) == (attempt, RUNNING, "one", WANTED.folder)
    assert queue.claim("two") is None
    assert queue.say(attempt, "one", STARTED) is False
    assert queue.say(attempt, "two", {"kind": "never"}) is None
    assert not queue.expire(attempt)
    assert not queue.withdraw(attempt)
    run_out(store)
    (late,) = queue.attempts()
    assert late.expired
    assert late.silent is not None
    assert late.claimed is not None
    assert 3600 <= late.silent < 3630
    assert 3600 <= late.claimed < 3630
    assert queue.renew(attempt, "one") is False  # nobody has taken it back: it is still his
    (alive,) = queue.attempts("first")
    assert (alive.expired, alive.said) == (False, 1)
    assert not queue.expire(attempt)
    run_out(store)
    assert queue.expire(attempt)
    for answer in (
        queue.renew(attempt, "one"),
        queue.say(attempt, "one", ENDED, last=True),
        queue.give_back(attempt, "one"),
    ):
        assert answer is None
    assert queue.messages(attempt, 0) == []
    queue.leave("first")
    driver = queue.driver()
    assert driver is not None
    assert driver.silent is None


def test_a_clock_that_is_set_back_costs_an_attempt_at_most(queue: Queue, store: Store) -> None:
    """A worker that lives signs by the new clock before long; the lease of one that has died ends, and not in a day."""
    queue.open("d", "host:1", "1.0", 60.0)
    queue.want("d", WANTED)
    claimed, _ = queue.claim("one") or (0, None)
    set_back(store, 30.0)
    assert not queue.attempts()[0].expired
    set_back(store, 86_400.0)
    (found,) = queue.attempts()
    driver = queue.driver()
    assert driver is not None
    assert (found.claimed, found.silent, driver.silent, found.expired) == (0.0, 0.0, 0.0, True)
    assert queue.renew(claimed, "one") is False
    assert not queue.attempts()[0].expired
    assert not queue.expire(claimed)
    set_back(store, 86_400.0)
    assert queue.expire(claimed)
    assert queue.renew(claimed, "one") is None


def test_a_worker_that_is_stopped_as_it_claims_learns_it_later(
    queue: Queue, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the claim itself is between taking an attempt and having it."""
    queue.open("first", "host:1", "1.0", 60.0)
    wanted, real = queue.want("first", WANTED), store.write

    def write(work: Any) -> Any:
        answer = real(work)
        if queue.attempts():
            monkeypatch.setattr(store, "write", real)
            run_out(store)
            assert queue.expire(wanted.id)
        return answer

    monkeypatch.setattr(store, "write", write)
    assert queue.claim("one") == (wanted.id, WANTED)
    assert queue.renew(wanted.id, "one") is None


def test_a_number_is_never_given_twice(queue: Queue) -> None:
    """Or a worker that was thought dead would speak for another's attempt."""
    queue.open("first", "host:1", "1.0", 60.0)
    ids = []
    for _ in range(3):
        ids.append(queue.want("first", WANTED).id)
        queue.remove(ids[-1])
    assert ids == sorted(set(ids))


def test_a_worker_that_is_stopped_as_it_speaks_stands_in_nobodys_way(
    tmp_path: Path, postgresql: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a transaction it holds a lock, until the server closes its connection."""
    monkeypatch.setattr(queue_module, "PAUSE", 1.0)
    url = postgresql()
    with Store(url, tmp_path) as store, Store(url, tmp_path) as other:
        study = store.create_study("s", SPEC, StopAt(trials=3))
        queue, late = Queue(store, study), Queue(other, study)
        queue.open("first", "host:1", "1.0", 60.0)
        wanted = queue.want("first", WANTED)
        late.claim("late")
        run_out(store)

        def stopped(connection: Any, said: int) -> None:
            assert not queue.expire(wanted.id)
            limit = time.monotonic() + 60
            while not queue.expire(wanted.id):
                assert time.monotonic() < limit
                time.sleep(0.05)

        with pytest.raises(MachineError):
            late._signed(wanted.id, "late", {}, stopped)
        assert late.renew(wanted.id, "late") is None


def test_what_is_given_back_goes_to_another(queue: Queue) -> None:
    queue.open("first", "host:1", "1.0", 60.0)
    wanted = queue.want("first", WANTED)
    assert queue.claim("one")
    assert queue.give_back(wanted.id, "one") is False
    found = queue.claim("two")
    assert found is not None
    assert found[0] == wanted.id
    assert queue.renew(wanted.id, "one") is None
    queue.halt(wanted.id)
    assert queue.renew(wanted.id, "two") is True
    assert queue.give_back(wanted.id, "two") is True
    assert queue.claim("three") is None  # it is to stop
    assert queue.withdraw(wanted.id)
    assert not queue.is_wanted(WANTED.folder)


def test_a_last_word_may_be_said_again(queue: Queue) -> None:
    """By a worker that does not know whether the database heard it."""
    queue.open("first", "host:1", "1.0", 60.0)
    wanted = queue.want("first", WANTED)
    queue.claim("one")
    for _ in range(2):
        assert queue.say(wanted.id, "one", ENDED, last=True) is False
    assert queue.messages(wanted.id, 0) == [ENDED]
    assert queue.renew(wanted.id, "one") is None
    assert queue.say(wanted.id, "two", ENDED, last=True) is None


def test_the_next_driver_takes_over_what_it_wants_as_well(queue: Queue) -> None:
    queue.open("first", "host:1", "1.0", 60.0)
    wanted = queue.want("first", WANTED)
    other = queue.want("first", Wanted(4, "s/trial-4", {}, {}))
    queue.claim("one")
    queue.say(wanted.id, "one", ENDED, last=True)
    queue.halt(other.id)
    queue.open("second", "host:2", "1.0", 60.0)
    assert queue.claim("one") is None  # nobody wants it until the driver says so
    again = queue.want("second", WANTED)
    assert (again.id, again.state, again.said) == (wanted.id, OVER, 1)
    kept = queue.want("second", Wanted(4, "s/trial-4", {}, {}))
    assert (kept.id, kept.halting) == (other.id, False)
    changed = queue.want("second", Wanted(4, "s/trial-4", {"seed": 1}, {}))
    assert changed.id > other.id
    assert [attempt.id for attempt in queue.attempts("second")] == [wanted.id, changed.id]
    queue.open("third", "host:3", "1.0", 60.0)
    queue.open("fourth", "host:4", "1.0", 60.0)  # what nobody wanted for a whole session is gone
    assert [queue.attempts(session) for session in ("second", "third", "fourth")] == [[], [], []]


def test_a_driver_that_ends_in_good_order_leaves_nothing_of_the_one_before(queue: Queue) -> None:
    """Such as what was done, and committed, when that one was killed."""
    queue.open("first", "host:1", "1.0", 60.0)
    queue.want("first", WANTED)
    other = queue.want("first", Wanted(4, "s/trial-4", {}, {}))
    done, _ = queue.claim("one") or (0, None)
    queue.say(done, "one", ENDED, last=True)
    queue.open("second", "host:2", "1.0", 60.0)
    queue.want("second", Wanted(4, "s/trial-4", {}, {}))
    queue.leave("second")
    assert queue.attempts("first") == []
    assert queue.messages(done, 0) == []
    assert [attempt.id for attempt in queue.attempts("second")] == [other.id]


def test_many_workers_take_everything_once(url: str, store: Store, study: Study, queue: Queue, tmp_path: Path) -> None:
    queue.open("first", "host:1", "1.0", 60.0)
    wanted = {queue.want("first", Wanted(number, f"s/trial-{number}", {}, {})).id for number in range(24)}
    start, taken = threading.Barrier(4), list[int]()

    def work(name: str) -> None:
        with Store(url, tmp_path / "files") as own:
            mine = Queue(own, study)
            start.wait()
            while (found := mine.claim(name)) is not None:
                taken.append(found[0])

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 24
    assert set(taken) == wanted


def test_a_study_that_is_removed_takes_its_queue_along(store: Store, study: Study, queue: Queue) -> None:
    queue.open("first", "host:1", "1.0", 60.0)
    wanted = queue.want("first", WANTED)
    queue.claim("one")
    queue.say(wanted.id, "one", STARTED)
    remove_study(store, study)
    for table in (tables.queues, tables.attempts, tables.messages):
        assert store.read(sa.select(sa.func.count()).select_from(table))[0][0] == 0
    assert queue.renew(wanted.id, "one") is None


# -- the executor ---------------------------------------------------------------------------------------------


class Played:
    """A driver's executor, and workers."""

    def __init__(self, store: Store, study: Study, slots: int = 4) -> None:
        self.store, self.study = store, study
        self.executor = Queued(store, study, Candidates(study.spec), slots, 60.0)
        self.queue = Queue(store, study)

    def job(self, number: int) -> Job:
        folder = self.store.folder(self.study) / f"trial-{number}"
        return Job(number, Proposal(Architecture("letters", {"a": number})), None, 2.0, 7, folder, 0)

    def submit(self, number: int) -> None:
        self.executor.submit(self.job(number))

    def claim(self, worker: str = "w") -> int:
        found = self.queue.claim(worker)
        assert found is not None
        return found[0]

    def say(self, attempt: int, *bodies: dict[str, Any], worker: str = "w") -> None:
        for body in bodies:
            assert self.queue.say(attempt, worker, body, last=body["kind"] in ("ended", "died", "error")) is not None

    def next(self, stopping: bool = False) -> Event:
        return self.executor.next(lambda: stopping)


@pytest.fixture
def played(store: Store, study: Study) -> Played:
    return Played(store, study)


def at(step: float, **metrics: float) -> dict[str, Any]:
    return reported(0, Report(step, metrics, step / 2))


def test_what_a_worker_says_is_heard_in_its_order(played: Played) -> None:
    played.submit(0)
    played.submit(1)
    first, second = played.claim(), played.claim("v")
    failed = {"kind": "ended", "failure": {"reason": "exception: x", "traceback": "one.py", "rejected": None}}
    played.say(first, STARTED, at(1, score=float("nan")), at(2, score=0.5), ENDED)
    played.say(second, STARTED, failed, worker="v")
    heard = [played.next() for _ in range(6)]
    assert [type(event) for event in heard if event.number == 0] == [Begun, Reported, Reported, Ended]
    (one, two) = (event.report for event in heard if isinstance(event, Reported))
    assert str(one.metrics["score"]) == "nan"
    assert two == Report(2, {"score": 0.5}, 1.0)
    assert [event for event in heard if event.number == 1] == [Begun(1), Ended(1, Failure("exception: x", "one.py"))]
    last = next(f"s/trial-{event.number}" for event in reversed(heard) if isinstance(event, Ended))
    assert played.queue.is_wanted(last)  # until it is certain that the result is kept
    played.submit(2)
    played.say(played.claim(), STARTED)
    assert played.next() == Begun(2)
    assert [played.queue.is_wanted(f"s/trial-{number}") for number in range(3)] == [False, False, True]


def test_a_worker_without_a_sign_has_died_and_is_not_heard_any_more(played: Played, store: Store) -> None:
    played.submit(0)
    attempt = played.claim("host:7")
    played.say(attempt, STARTED, at(1, score=1.0), worker="host:7")
    run_out(store)
    heard = [played.next() for _ in range(3)]
    assert heard[2] == Died(0, "no sign of worker host:7 for 60 s")
    played.submit(0)
    assert played.queue.say(attempt, "host:7", ENDED, last=True) is None
    again = played.claim("host:8")
    assert again > attempt
    played.say(again, STARTED, at(1, score=1.0), ENDED, worker="host:8")
    assert [type(played.next()) for _ in range(3)] == [Begun, Reported, Ended]


def test_a_worker_that_wakes_before_anybody_noticed_is_heard(played: Played, store: Store) -> None:
    played.submit(0)
    attempt = played.claim()
    run_out(store)
    played.say(attempt, STARTED, at(2, score=1.0), ENDED)
    assert [type(played.next()) for _ in range(3)] == [Begun, Reported, Ended]


def test_a_candidate_that_is_given_back_costs_nothing_and_repeats_nothing(played: Played) -> None:
    played.submit(0)
    attempt = played.claim()
    played.say(attempt, STARTED, at(1, score=1.0))
    assert [type(played.next()) for _ in range(2)] == [Begun, Reported]
    assert played.queue.give_back(attempt, "w") is False
    assert played.claim("v") == attempt
    played.say(attempt, STARTED, at(1, score=1.0), at(2, score=2.0), ENDED, worker="v")
    assert [played.next() for _ in range(2)] == [Reported(0, Report(2, {"score": 2.0}, 1.0)), Ended(0)]


def test_stopping_takes_back_what_waits_and_asks_the_others(played: Played) -> None:
    for number in (0, 1, 2):
        played.submit(number)
    running, ending = played.claim(), played.claim("v")
    played.say(running, STARTED)
    played.say(ending, STARTED, worker="v")
    assert {played.next(), played.next()} == {Begun(0), Begun(1)}
    assert played.next(stopping=True) == Halted(2)
    assert played.queue.renew(running, "w") is True
    played.queue.give_back(running, "w")
    played.say(ending, at(2, score=1.0), ENDED, worker="v")  # that comes first
    heard = [played.next(stopping=True) for _ in range(3)]
    assert [event for event in heard if event.number == 0] == [Halted(0)]
    assert [type(event) for event in heard if event.number == 1] == [Reported, Ended]
    assert played.queue.claim("w") is None


def test_a_candidate_that_is_dropped_is_nobodys(played: Played) -> None:
    played.submit(0)
    attempt = played.claim()
    played.say(attempt, STARTED, at(1, score=1.0), at(2, score=1.0), ENDED)
    assert [type(played.next()) for _ in range(2)] == [Begun, Reported]
    played.executor.drop(0)
    played.submit(1)
    played.say(played.claim(), STARTED)
    assert played.next() == Begun(1)
    assert not played.queue.is_wanted("s/trial-0")
    played.executor.drop(1)
    assert played.queue.attempts() == []


def test_a_driver_that_is_killed_finds_what_was_done_meanwhile(played: Played, store: Store, study: Study) -> None:
    for number in (0, 1, 2):
        played.submit(number)
    done, running = played.claim(), played.claim("v")
    played.say(done, STARTED, at(1, score=1.0))
    assert [type(played.next()) for _ in range(2)] == [Begun, Reported]
    # Here the driver is gone; its workers go on, also with what waited.
    played.say(done, at(2, score=2.0), ENDED)
    played.say(running, STARTED, worker="v")
    later = Played(store, study)
    for number in (0, 1, 2):
        later.submit(number)
    heard = [later.next() for _ in range(4)]
    assert [event for event in heard if event.number == 0] == [
        Reported(0, Report(1, {"score": 1.0}, 0.5)),
        Reported(0, Report(2, {"score": 2.0}, 1.0)),
        Ended(0),
    ]  # and no second beginning: the attempt is counted already
    assert [event for event in heard if event.number == 1] == [Begun(1)]
    assert later.claim("u") > running


def test_a_driver_that_ends_in_good_order_takes_back_what_waits(played: Played, store: Store, study: Study) -> None:
    for number in (0, 1, 2):
        played.submit(number)
    running, over = played.claim(), played.claim("v")
    played.say(over, STARTED, ENDED, worker="v")
    assert [type(played.next()) for _ in range(1)] == [Begun]  # the end was heard and not handed on
    played.executor.close()
    driver = played.queue.driver()
    assert driver is not None
    assert driver.silent is None
    assert played.queue.renew(running, "w") is True
    assert played.queue.claim("w") is None
    later = Played(store, study)
    for number in (0, 1, 2):
        later.submit(number)
    assert later.queue.renew(running, "w") is False
    assert [later.next(), type(later.claim("u"))] == [Ended(1), int]


def test_an_error_of_what_was_asked_for_ends_the_search_and_is_not_found_again(played: Played) -> None:
    played.submit(0)
    played.say(played.claim(), STARTED, {"kind": "error", "type": "UsageError", "text": "it cannot be"})
    with pytest.raises(UsageError, match="it cannot be"):
        played.next()
    played.executor.close()
    assert not played.queue.is_wanted("s/trial-0")


def test_a_process_that_dies_behind_a_worker_is_told(played: Played) -> None:
    played.submit(0)
    attempt = played.claim()
    played.say(attempt, STARTED, {"kind": "died", "cause": "SIGSEGV"})
    assert [played.next(), played.next()] == [Begun(0), Died(0, "SIGSEGV")]
    played.submit(0)
    assert played.claim() > attempt


def test_attempts_that_somebody_has_removed_are_said(played: Played) -> None:
    played.submit(0)
    played.queue.remove(played.claim())
    with pytest.raises(MachineError, match="was removed from the database"):
        played.next()


def test_a_database_that_is_gone_ends_a_driver_in_order(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/nas.db", tmp_path / "files")
    played = Played(store, store.create_study("s", SPEC, StopAt(trials=3)))
    played.submit(0)
    store.write(lambda c: tables.messages.drop(c))
    with pytest.raises(MachineError):
        played.executor.drop(0)
    played.executor.close()
    store.close()


def test_where_it_is_made(store: Store, study: Study) -> None:
    """In strict order all that a study may have pending waits, whatever --workers says; of a job what that says."""
    work: Any = None
    free = study.spec.model_copy(update={"lag": 6})
    strict = Study(study.id, study.name, free, study.stop_at, study.created)

    def assigned(remote: Remote) -> Assignment:
        return Assignment(store=store, study=strict, work=work, remote=remote, folder=store.folder(strict))

    made = executor(assigned(Candidates(free)), Where(2, "queue:1.5"))
    assert made.slots == 6
    assert Queue(store, study).driver().lease == 1.5  # type: ignore[union-attr]
    assert (store.folder(study) / MARK).read_text() == mark_of(study)
    job = JobWork(free, "retrain", {"device": "cpu"}, store.url, store.files)
    made = executor(assigned(job), Where(3, "queue"))
    assert (made.slots, Queue(store, study).driver().lease) == (3, 60.0)  # type: ignore[union-attr]
    for given in ("0", "soon", "nan", "inf"):
        with pytest.raises(UsageError, match="write queue:SECONDS"):
            executor(assigned(Candidates(free)), Where(1, f"queue:{given}"))
    with pytest.raises(UsageError, match="--per-gpu: workers of a queue share a GPU"):
        executor(assigned(Candidates(free)), Where(2, "queue", per_gpu=2))


def test_the_settings_of_a_job_go_to_workers_without_the_url(store: Store, study: Study) -> None:
    secret = "postgresql+psycopg://nas:secret@host/name"
    played = Played(store, study)
    played.executor = Queued(store, study, JobWork(study.spec, "retrain", {"lr": 0.1}, secret, store.files), 1)
    played.submit(0)
    found = played.queue.claim("w")
    assert found is not None
    assert found[1].work == {"kind": "retrain", "settings": {"lr": 0.1}}
    assert found[1].folder == "s/trial-0"
    everything = [str(row) for name in ("attempts", "queues") for row in store.query(f"SELECT * FROM {name}")[1]]
    assert not any("secret" in row or str(store.files) in row for row in everything)
