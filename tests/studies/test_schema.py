"""Databases on their way: half made, half upgraded, older, newer, damaged, on a read-only medium."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from nas_core.errors import MachineError, NotFoundError, UsageError
from nas_core.records import StopAt
from studies.store import SCHEMA, sqlite, tables, urls
from studies.store.schema import upgrade
from studies.store.store import Store
from studies.store.testing import SPEC, of_now

RELEASED = sorted((Path(__file__).parent / "schemas").glob("*.sql"))
OLDER = [script for script in RELEASED if script.stem != SCHEMA]
EVERYTHING = [*(table.name for table in tables.metadata.sorted_tables if table is not tables.version), *tables.VIEWS]


def load(database: Path, script: Path) -> Path:
    with sqlite3.connect(database) as connection:
        connection.executescript(script.read_text())
    connection.close()
    return database


def schema(database: Path) -> list[tuple[Any, ...]]:
    """Names, columns and indexes of a whole database, without how its SQL was written."""
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = connection.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
        described = [
            (kind, name, *sorted(column[1:] for column in connection.execute(f"PRAGMA table_info({name})")))
            for kind, name in found
        ]
        version = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    connection.close()
    return sorted([*described, ("version", *version)])


def statements(database: Path, work: Callable[[sa.Connection], object]) -> list[str]:
    """What changes the schema in some work on a database, one statement after the other."""
    engine = sa.create_engine(f"sqlite:///{database}")
    found: list[str] = []
    changes = ("CREATE", "ALTER", "DROP")

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.split()[0] in changes:
            found.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    with engine.connect() as connection:
        work(connection)
        connection.commit()
    engine.dispose()
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """The schema of a database that was made in one go."""
    database = tmp_path_factory.mktemp("whole") / "nas.db"
    Store(f"sqlite:///{database}").close()
    return schema(database)


@pytest.mark.parametrize("script", OLDER, ids=lambda path: path.stem)
def test_a_half_upgraded_database_is_finished(tmp_path: Path, script: Path, whole: list[tuple[Any, ...]]) -> None:
    """Upgrades used to be committed statement by statement, and a process that was killed left the first ones."""
    following = f"{int(script.stem) + 1:04d}"
    changes = statements(load(tmp_path / "complete.db", script), lambda connection: upgrade(connection, following))
    assert changes
    for count in range(1, len(changes) + 1):
        database = load(tmp_path / f"half{count}.db", script)
        with sqlite3.connect(database) as connection:
            for change in changes[:count]:
                connection.execute(change)
        connection.close()
        with Store(f"sqlite:///{database}", reading=True) as store:
            (name,) = store.study_names()
            before = store.study(name), list(store.trials(store.study(name), metrics=True))
        with Store(f"sqlite:///{database}", create=False) as store:
            assert (store.study(name), list(store.trials(store.study(name), metrics=True))) == before
        assert schema(database) == whole


def test_a_half_made_database_is_finished(tmp_path: Path, whole: list[tuple[Any, ...]]) -> None:
    changes = statements(tmp_path / "complete.db", tables.metadata.create_all)
    changes += [f"CREATE VIEW {name} AS {select}" for name, select in tables.VIEWS.items()]
    for count in range(0, len(changes) + 1, 3):
        database = tmp_path / f"half{count}.db"
        with sqlite3.connect(database) as connection:
            for change in changes[:count]:
                connection.execute(change)
        connection.close()
        for reading in (True, False):
            with pytest.raises(NotFoundError, match="empty"):
                Store(f"sqlite:///{database}", create=False, reading=reading)
        Store(f"sqlite:///{database}").close()
        assert schema(database) == whole


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = load(tmp_path / "old.db", RELEASED[0])
    before = database.read_bytes()
    with sa.create_engine(f"sqlite:///{database}").connect() as connection:

        def stop(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            if "CREATE TABLE" in statement and "supernets" in statement:
                raise KeyboardInterrupt

        sa.event.listen(connection, "before_cursor_execute", stop)
        with pytest.raises(KeyboardInterrupt):
            upgrade(connection)
    assert database.read_bytes() == before


@pytest.mark.parametrize("script", OLDER, ids=lambda path: path.stem)
def test_an_older_database_reads_as_it_will_be(tmp_path: Path, script: Path) -> None:
    """Without an upgrade every table and view shows what the upgrade would put there; of the JSON of evaluators the
    program reads both forms."""

    def rows(store: Store) -> dict[str, list[tuple[Any, ...]]]:
        found = {}
        for name in EVERYTHING:
            columns, values = store.query(f"SELECT * FROM {name}")
            order = sorted(range(len(columns)), key=columns.__getitem__)
            plain = [[of_now(column, value) for column, value in zip(columns, row, strict=True)] for row in values]
            found[name] = sorted((tuple(row[index] for index in order) for row in plain), key=repr)
            assert store.query(f"SELECT {', '.join(columns)} FROM {name}")
        return found

    database = load(tmp_path / "old.db", script)
    before = database.read_bytes()
    with Store(f"sqlite:///{database}", reading=True) as store:
        assert store.schema == script.stem
        seen = rows(store)
        with pytest.raises(MachineError, match="no permission to write"):
            store.create_study("t", SPEC, StopAt())
    assert database.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["old.db"]
    with Store(f"sqlite:///{database}") as store:
        assert rows(store) == seen


def test_what_a_database_is_not(tmp_path: Path) -> None:
    def found(change: str, reading: bool) -> str:
        database = tmp_path / "nas.db"
        database.unlink(missing_ok=True)
        with Store(f"sqlite:///{database}") as store:
            store.create_study("s", SPEC, StopAt())
        with sqlite3.connect(database) as connection:
            connection.execute(change)
        connection.close()
        with pytest.raises(MachineError) as caught, Store(f"sqlite:///{database}", reading=reading) as store:
            store.study_names()
        return str(caught.value)

    for reading in (True, False):
        assert "schema 9999, newer than this program's" in found(
            "UPDATE alembic_version SET version_num = 9999", reading
        )
        assert "damaged: its schema '00x1'" in found("UPDATE alembic_version SET version_num = '00x1'", reading)
        assert "damaged: it has lost its version" in found("DELETE FROM alembic_version", reading)
        assert "damaged: it has lost its version" in found("DROP TABLE alembic_version", reading)
        assert "is damaged: no such table: studies" in found("DROP TABLE studies", reading)


@pytest.fixture
def medium(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder, and what makes it read-only."""
    folder = tmp_path / "medium"
    folder.mkdir()
    if os.geteuid() != 0:
        yield folder, lambda: folder.chmod(0o555)
        folder.chmod(0o755)
        return
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("permissions do not bind root, and nothing can be mounted here")
    yield folder, lambda: subprocess.run(["mount", "-o", "remount,ro", folder], check=True) and None
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("left", ["nothing", "log", "log and index", "rollback journal"])
def test_a_read_only_medium(tmp_path: Path, medium: tuple[Path, Callable[[], None]], left: str) -> None:
    """Nothing that was committed is overlooked there, whatever the last process had left beside the database."""
    folder, shut = medium
    source = f"sqlite:///{tmp_path}/nas.db"
    store = Store(source)
    names = ["one"]
    store.create_study("one", SPEC, StopAt())
    if left != "nothing":
        store.close()
        store = Store(source)
        store.create_study("two", SPEC, StopAt())  # in the log alone
        names.append("two")
        if left == "rollback journal":
            store.close()
            half_written(tmp_path)
        for path in tmp_path.glob("nas.db*"):
            if left == "log and index" or not path.name.endswith("-shm"):
                shutil.copy(path, folder)
    store.close()
    if left == "nothing":
        shutil.copy(tmp_path / "nas.db", folder)
    shut()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with Store(f"sqlite:///{folder}/nas.db", reading=True) as found:
        assert found.study_names() == names
        with pytest.raises(UsageError):
            found.query("DELETE FROM studies")
    with pytest.raises(MachineError, match="no permission to write"):
        Store(f"sqlite:///{folder}/nas.db")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def half_written(folder: Path) -> None:
    """Leave a rollback journal in the way of a process that was killed while it wrote to the file itself."""
    database = folder / "nas.db"
    with sqlite3.connect(database, isolation_level=None) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        for number in range(300):
            connection.execute("INSERT INTO architectures VALUES (?, ?)", (str(number), "x" * 500))
        kept = {path.name: path.read_bytes() for path in folder.glob("nas.db*")}
        connection.execute("ROLLBACK")
    connection.close()
    assert set(kept) == {"nas.db", "nas.db-journal"}
    for name, content in kept.items():
        (folder / name).write_bytes(content)


def test_numbered_names_are_chosen_inside_of_the_insert(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nas.db"
    made: list[str] = []
    start = threading.Barrier(6)

    def work() -> None:
        with Store(url) as store:
            start.wait()
            for _ in range(5):
                made.append(store.create_numbered_study("letters", SPEC, StopAt()).name)
                store.create_numbered_bench("letters", {})

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made, key=lambda name: int(name.removeprefix("letters-"))) == [f"letters-{n}" for n in range(1, 31)]
    with Store(url) as store:
        assert len(store.bench_names()) == 30


def test_one_definition_per_name_of_a_space(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path}/nas.db") as store:
        store.create_study("one", SPEC, StopAt())
        other = SPEC.model_copy(update={"space_hash": "abc"})
        for create in (store.create_study, store.study_or_new, store.create_numbered_study):
            with pytest.raises(UsageError, match="another definition of space 'letters'"):
                create("two", other, StopAt())
        assert store.study_names() == ["one"]


def test_a_place_that_threatens_the_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A way of locking that has no shared memory, as on some network file systems.
    connection = sqlite3.connect(f"file:{tmp_path}/nas.db?vfs=unix-dotfile", uri=True)
    mode = sqlite.prepare_writing(connection, durable=False)
    assert mode == "delete"
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    connection.close()
    assert [risk for risk in urls.risks(tmp_path / "nas.db", mode) if "no write-ahead log" in risk]
    (tmp_path / "mounts").write_text(
        "22 1 0:20 / / rw - ext4 /dev/sda1 rw\n"
        f"23 22 0:21 / {tmp_path} rw,noatime shared:1 - nfs4 server:/home rw\n"
        f"24 23 0:22 / {tmp_path}/local\\040disk rw - ext4 /dev/sdb1 rw\n"
    )
    monkeypatch.setattr(sqlite, "MOUNTS", tmp_path / "mounts")
    assert sqlite.network_file_system(tmp_path / "nas.db") == "nfs4"
    assert sqlite.network_file_system(tmp_path / "local disk" / "nas.db") is None
    assert sqlite.network_file_system(Path("/nas.db")) is None
    (tmp_path / "nas.db").unlink()
    with Store(f"sqlite:///{tmp_path}/nas.db") as store:
        (risk,) = store.risks
        assert "network file system (nfs4)" in risk


def test_errors_are_named_as_they_are(tmp_path: Path) -> None:
    class Driver(sqlite3.OperationalError):
        def __init__(self, name: str) -> None:
            super().__init__("disk I/O error")
            self.sqlite_errorname = name

    def text(name: str, file: Path | None = None) -> str:
        error = sa.exc.OperationalError("", None, Driver(name))
        return str(urls.explain(error, "sqlite:///nas.db", file))

    assert text("SQLITE_IOERR_WRITE", tmp_path / "nas.db").startswith("input/output error")
    assert text("SQLITE_FULL").startswith("the disk is full")
    assert "locked by another process" in text("SQLITE_BUSY")
    assert "no permission to write" in text("SQLITE_READONLY_DBMOVED")
    assert "is damaged" in text("SQLITE_CORRUPT")
    assert "is not a study database" in text("SQLITE_NOTADB")
