"""Two versions of the program on one database: the newer one does not upgrade it below an older one that searches, the
older one writes into nothing that it does not know, and a schema that is too new is left as it is."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from nas_core.errors import MachineError
from nas_core.records import StopAt
from studies.store import SCHEMA, locks, schema
from studies.store.drivers import take
from studies.store.store import Store
from studies.store.testing import SPEC
from tests.crash.running import Fork, ended, finish, rows_stored, until
from tests.crash.sessions import PACED_SEARCH, contents, write_toy

SCHEMAS = Path(__file__).parent.parent / "studies" / "schemas"
OLDEST = (SCHEMAS / "0001.sql").read_text()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database of the first release with a study."""
    database = tmp_path / "nas.db"
    with sqlite3.connect(database) as connection:
        connection.executescript(OLDEST)
    connection.close()
    return database


@contextmanager
def driven(folder: Path) -> Iterator[None]:
    """As by another process: the lock of a study beside its database."""
    handle = locks.take(folder / locks.NAME)
    assert handle is not None
    try:
        yield
    finally:
        import os

        os.close(handle)


def dump(database: Path) -> list[str]:
    with sqlite3.connect(database) as connection:
        found = list(connection.iterdump())
    connection.close()
    return found


def test_an_upgrade_waits_for_the_end_of_an_older_search(old: Path) -> None:
    before, url = dump(old), f"sqlite:///{old}"
    with Store(url, reading=True) as store:
        (name,) = store.study_names()
        trials = list(store.trials(store.study(name), metrics=True))
    with driven(old.parent / "nas-files" / name), pytest.raises(MachineError) as caught:
        Store(url)
    assert f"an older version of nas, which knows no other, runs study '{name}'" in str(caught.value)
    assert dump(old) == before
    with Store(url) as store:
        assert list(store.trials(store.study(name), metrics=True)) == trials
    assert dump(old) != before


def test_an_upgrade_waits_for_the_end_of_an_older_search_on_a_server(
    tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    url = postgresql()
    with Store(url, tmp_path) as store:
        study = store.create_study("s", SPEC, StopAt())
    other = sa.create_engine(url)
    with other.connect() as connection:
        with connection.begin():
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
            assert take(connection, study.id)
        with pytest.raises(MachineError, match="runs study 's' on it"):
            Store(url, tmp_path)
        with connection.begin():
            assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == "0001"
    other.dispose()


def test_what_an_older_version_is_writing_is_upgraded_too(old: Path) -> None:
    """Its transaction began before, and it commits while the newer version waits."""
    writer = sqlite3.connect(old, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    (name,) = (row[0] for row in writer.execute("SELECT name FROM studies"))
    writer.execute("UPDATE runs SET note = '{\"late\": 1}' WHERE number = 0")
    opened: list[Store] = []
    thread = threading.Thread(target=lambda: opened.append(Store(f"sqlite:///{old}")))
    thread.start()
    time.sleep(0.3)
    assert not opened
    writer.execute("COMMIT")
    writer.close()
    thread.join()
    with opened[0] as store:
        assert dict(store.trial(store.study(name), 0).proposal.note) == {"late": 1}


def upgraded(url: str, *changes: str) -> None:
    """As a version that comes later would leave it."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for change in (*changes, "UPDATE alembic_version SET version_num = '9999'"):
            connection.exec_driver_sql(change)
    engine.dispose()


@pytest.fixture(params=["file", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"sqlite:///{tmp_path}/nas.db"
    return str(request.getfixturevalue("postgresql")())


UPGRADED = rf"newer version of nas has upgraded the database to schema 9999, this one's is {SCHEMA}"


def test_an_older_version_drives_nothing_that_has_been_upgraded(tmp_path: Path, place: str) -> None:
    with Store(place, tmp_path) as store:
        study = store.create_study("s", SPEC, StopAt())
        upgraded(place)
        with pytest.raises(MachineError, match=UPGRADED), store.lock(study):
            pass


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE studies RENAME COLUMN budget TO budgets",
        "ALTER TABLE studies RENAME TO searches",
        "CREATE UNIQUE INDEX one ON studies (seed)",
    ],
)
def test_an_older_version_says_that_it_is_no_damage(tmp_path: Path, place: str, change: str) -> None:
    """Of what has no lock: it fails where the newer schema differs, and says why."""
    with Store(place, tmp_path) as store:
        store.create_study("s", SPEC, StopAt())
        upgraded(place, *(["DROP VIEW trials", "DROP VIEW trials_flat"] if "studies TO" in change else []), change)
        with pytest.raises(MachineError, match=UPGRADED):
            store.create_study("t", SPEC, StopAt())


def test_a_newer_version_is_refused_below_a_search(
    start: Callable[..., Fork], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real search; what comes later is this program with another number."""
    here, whole = write_toy(tmp_path / "here"), write_toy(tmp_path / "whole")
    search = [*PACED_SEARCH, "--trials", "8"]
    finish(start, search, whole)
    process = start([*search, "-s", "evaluator.pause=0.05"], here)
    until(lambda: rows_stored(here / "nas.db") >= 2, process, here)
    with monkeypatch.context() as later:
        later.setattr(schema, "SCHEMA", "9998")
        with pytest.raises(MachineError, match="runs study 's' on it"):
            Store(f"sqlite:///{here}/nas.db")
    code, said = ended(process, here)
    assert code == 0, said
    found, expected = (contents(place / "nas.db", durations=False) for place in (here, whole))
    assert {name: rows for name, rows in found.items() if name != "studies"} == {
        name: rows for name, rows in expected.items() if name != "studies"
    }


def test_a_database_that_is_too_new_stays_as_it_is(say: Callable[..., tuple[int, str, str]]) -> None:
    assert say(*PACED_SEARCH, "--trials", "2")[0] == 0
    upgraded("sqlite:///nas.db")
    before = dump(Path("nas.db"))
    for command in ([*PACED_SEARCH, "--trials", "3"], ["resume", "s"], ["ls"], ["rm", "s", "--yes"], ["gc", "--yes"]):
        code, out, err = say(*command)
        assert (code, out) == (5, "")
        assert err.startswith("nas: ")
        assert "the database has schema 9999, newer than this program's" in err
        assert err.count("\n") == 1
    assert dump(Path("nas.db")) == before


def test_versions_without_a_lock_of_their_own_are_not_looked_for(tmp_path: Path, old: Path) -> None:
    """Files that only look like a lock, or are a folder."""
    (tmp_path / "nas-files").write_text("a file")
    with Store(f"sqlite:///{old}") as store:
        assert store.schema == SCHEMA
    found: Any = locks.is_held(tmp_path / "nas-files" / "s" / "lock")
    assert found is False
