"""A database that others keep, or that goes away: a search waits for it and goes on; where that takes too long it ends
with a line and code 5, and goes on later as if nothing had been."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from nas_cli.app import run as nas
from nas_core.architecture import Architecture
from nas_core.errors import MachineError
from nas_core.records import StopAt, Verdict
from nas_core.strategy import Proposal, State
from studies.store import drivers, sqlite
from studies.store.drivers import take
from studies.store.store import Store
from studies.store.testing import SPEC
from tests.crash.running import Fork, ended, finish, until
from tests.crash.sessions import PACED_SEARCH, contents, stored, write_toy
from tests.postgresql import NoServer, Server, server

Start = Callable[..., Fork]

SEARCH = [*PACED_SEARCH, "--trials", "8", "--lag", "2", "-s", "evaluator.pause=0.03"]


def impatient(arguments: Sequence[str]) -> int:
    """`nas` that waits for a second where it would wait for minutes."""
    sqlite.WAIT, drivers.PATIENCE, drivers.PAUSE = 1.0, 1.0, 0.05
    return nas(list(arguments))


IMPATIENT = "tests.crash.test_outage:impatient"


# -- a file that another process has locked --------------------------------------------------------------------


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """As by another process that writes."""
    other = sqlite3.connect(database, isolation_level=None, timeout=60)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def rows(database: Path) -> int:
    with Store(f"sqlite:///{database}", reading=True) as store:
        return store.run_count(store.study("s"))


def begun(database: Path) -> bool:
    return database.exists() and database.with_name("nas-files").exists() and rows(database) >= 3


def check_locked(start: Start, folder: Path, function: str, seconds: float, survives: bool) -> None:
    whole, place = write_toy(folder / "whole"), write_toy(folder / "place")
    finish(start, SEARCH, whole)
    process = start(SEARCH, place, function=function)
    until(lambda: begun(place / "nas.db"), process, place)
    with locked(place / "nas.db"):
        limit = time.monotonic() + seconds
        while time.monotonic() < limit and process.poll() is None:
            time.sleep(0.05)
        assert (process.poll() is None) is survives, (place / "stderr").read_text()
    code, said = ended(process, place)
    assert code == (0 if survives else 5), said
    assert "Traceback" not in said
    if not survives:
        last = said.splitlines()[-1]
        assert last.startswith("nas: sqlite:///")
        assert "has been locked by another process for" in last
        finish(start, ["resume", "s"], place)
    assert contents(place / "nas.db", durations=False) == contents(whole / "nas.db", durations=False)


@pytest.mark.parametrize("survives", [True, False])
def test_a_database_that_is_locked(start: Start, tmp_path: Path, survives: bool) -> None:
    check_locked(start, tmp_path, IMPATIENT, 0.4 if survives else 60, survives)


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "survives"), [(50, True), (90, False)])
def test_a_database_that_is_locked_for_a_minute(start: Start, tmp_path: Path, seconds: float, survives: bool) -> None:
    check_locked(start, tmp_path, "nas_cli.app:run", seconds, survives)


def test_who_has_waited_in_vain_asks_in_passing_until_the_file_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that ends for a lock has more to write while it ends."""
    monkeypatch.setattr(sqlite, "WAIT", 0.1)

    def waits(store: Store) -> float:
        return float(store.read(sa.text("PRAGMA busy_timeout"))[0][0]) / 1000

    with Store(f"sqlite:///{tmp_path / 'nas.db'}") as store:
        store.create_study("s", SPEC, StopAt())
        assert waits(store) == 0.1
        with locked(tmp_path / "nas.db"), pytest.raises(MachineError, match="has been locked by another process"):
            store.create_study("other", SPEC, StopAt())
        assert waits(store) == sqlite.BRIEFLY
        store.create_study("other", SPEC, StopAt())
        assert waits(store) == 0.1


def test_a_look_at_a_database_that_is_locked(say: Callable[..., tuple[int, str, str]]) -> None:
    assert say(*PACED_SEARCH, "--trials", "2")[0] == 0
    with locked(Path("nas.db")):
        for command in (("ls",), ("show", "s"), ("trials", "s")):
            code, out, err = say(*command)
            assert (code, err) == (0, "")
            assert out


# -- a server that goes away -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """One that no other test uses."""
    try:
        with server() as made:
            yield made
    except NoServer as error:
        pytest.skip(f"needs a PostgreSQL server: {error}")


def check_stopped(start: Start, own: Server, folder: Path, function: str, seconds: float, survives: bool) -> None:
    place, search = write_toy(folder / "work"), [*SEARCH, "--files", "files"]
    whole, cut = own(), own()
    finish(partial(start, environment={"NAS_DB": whole}), search, place)
    process = start(search, place, function=function, environment={"NAS_DB": cut})
    with Store(whole, reading=True) as store:
        expected = stored(store)
    until(lambda: count(cut) >= 3, process, place)
    own.stop("fast")
    try:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit and process.poll() is None:
            time.sleep(0.05)
    finally:
        assert own.start() is None
    code, said = ended(process, place)
    assert code == (0 if survives else 5), said
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("nas: ")]
    assert "does not answer; waiting for it" in lines[0]
    assert len(lines) == (1 if survives else 2)
    if not survives:
        assert "has not answered for 1 s" in lines[1]
        assert "what was committed is kept" in lines[1]
        finish(partial(start, environment={"NAS_DB": cut}), search, place)
    with Store(cut, reading=True) as store:
        assert stored(store) == expected


def count(url: str) -> int:
    """Runs that are stored so far."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            return int(connection.execute(sa.text("SELECT count(*) FROM runs")).scalar_one())
    except sa.exc.ProgrammingError:  # the tables are not there yet
        return 0


@pytest.mark.parametrize("survives", [True, False])
def test_a_server_that_is_stopped(start: Start, own_server: Server, tmp_path: Path, survives: bool) -> None:
    function = "nas_cli.app:run" if survives else IMPATIENT
    check_stopped(start, own_server, tmp_path, function, 0.5 if survives else 60, survives)


@pytest.mark.slow
def test_a_server_that_is_stopped_for_half_a_minute(start: Start, own_server: Server, tmp_path: Path) -> None:
    check_stopped(start, own_server, tmp_path, "nas_cli.app:run", 30, survives=True)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "PATIENCE", 1.0)
    monkeypatch.setattr(drivers, "PAUSE", 0.05)


def end_session(url: str) -> None:
    """What a server that is stopped does to all of its sessions: they end."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND "
        assert connection.exec_driver_sql(f"{others} datname = current_database()").all() == [(True,)]


@pytest.mark.usefixtures("brief")
@pytest.mark.filterwarnings("ignore:.*does not answer")
def test_a_study_that_another_process_has_taken_meanwhile(
    tmp_path: Path, postgresql: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the lock's file lies
    url = postgresql()
    with Store(url, tmp_path) as store:
        study = store.create_study("s", SPEC, StopAt())
        with store.lock(study):
            end_session(url)
            assert store.study("s").name == "s"  # it has taken its lock again
            with sa.create_engine(url, poolclass=sa.NullPool).connect() as other:
                assert not take(other, study.id)
            end_session(url)
            with sa.create_engine(url, poolclass=sa.NullPool).connect() as other:
                assert take(other, study.id)
                other.commit()
                with pytest.raises(MachineError, match="another process runs the study now"):
                    store.set_stop_at(study, StopAt(trials=3))
                with pytest.raises(MachineError, match="another process"):  # it writes nothing without its lock
                    store.set_stop_at(study, StopAt(trials=3))
    with Store(url, tmp_path) as store:
        assert store.study("s").stop_at == StopAt()


@pytest.mark.usefixtures("brief")
@pytest.mark.filterwarnings("ignore:.*does not answer")
def test_what_was_being_committed_is_not_done_twice(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    """The server is gone when it should answer a COMMIT: nobody knows whether it has committed."""
    url = postgresql()
    with Store(url, tmp_path) as store:
        study = store.create_study("s", SPEC, StopAt())
        propose = partial(store.propose, study, proposal=Proposal(Architecture("toy", {"a": 1})), identity="a")
        run = propose(number=0, verdict=Verdict(State.RUNNING))

        def gone(connection: sa.Connection) -> None:
            end_session(url)

        sa.event.listen(store._connection, "commit", gone, once=True)
        with pytest.raises(MachineError, match="went away while something was being committed"):
            propose(number=1, verdict=Verdict(State.RUNNING))
        sa.event.listen(store._connection, "commit", gone, once=True)
        store.finish(run, Verdict(State.FAILED, "this can be said twice"))
        assert [(found.number, found.state) for found in store.trials(study)] == [(0, State.FAILED)]


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("number", [1, 3, 6])
@pytest.mark.parametrize("committed", [False, True])
def test_a_proposal_of_which_nobody_knows_whether_it_is_committed(
    say: Callable[..., tuple[int, str, str]],
    postgresql: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    committed: bool,
) -> None:
    """The search ends with a line, and its resume is the search that nothing disturbed, whichever it was."""
    whole, cut = postgresql(), postgresql()
    search = [*PACED_SEARCH, "--trials", "6", "--lag", "2", "-s", "evaluator.pause=0", "--files", "files"]
    assert say(*search, "--db", whole)[0] == 0
    propose, calls = Store.propose_all, iter(range(1, 100))

    def proposing(store: Store, *arguments: Any) -> Any:
        if next(calls) == number:
            lose_the_answer(store._connection, cut, committed)
        return propose(store, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "propose_all", proposing)
        code, _, err = say(*search, "--db", cut)
    assert (code, "Traceback" in err) == (5, False), err
    assert "went away while something was being committed" in err.splitlines()[-1]
    assert say("resume", "s", "--db", cut, "--files", "files")[0] == 0
    with Store(whole, reading=True) as one, Store(cut, reading=True) as other:
        assert stored(one) == stored(other)


def lose_the_answer(connection: sa.Connection, url: str, committed: bool) -> None:
    """The session ends at the next commit, just before or just after."""
    dialect = connection.dialect
    commit = dialect.do_commit

    def lost(raw: Any) -> None:
        del dialect.do_commit  # the class has another
        if committed:
            commit(raw)
        end_session(url)
        raw.execute("SELECT 1")

    dialect.do_commit = lost  # type: ignore[method-assign]
