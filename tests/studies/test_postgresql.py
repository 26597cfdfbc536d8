"""What a server does differently: upgrades of released databases, reading older ones, locks between machines."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from nas_core.errors import MachineError, NotFoundError, UsageError
from nas_core.records import StopAt
from studies.store import SCHEMA, tables
from studies.store.schema import LOCK, upgrade
from studies.store.store import Store
from studies.store.testing import SPEC, of_now

SCHEMAS = Path(__file__).parent / "schemas"
EVERYTHING = [*(table.name for table in tables.metadata.sorted_tables if table is not tables.version), *tables.VIEWS]
Everything = dict[str, tuple[list[str], list[tuple[object, ...]]]]


def released(url: str, schema: str) -> None:
    """Make a server's database what it would have been at a release: the dump's rows in tables of that schema."""
    with sqlite3.connect(":memory:") as dump, sa.create_engine(url).connect() as connection:
        dump.executescript((SCHEMAS / f"{schema}.sql").read_text())
        upgrade(connection, schema)
        found = sa.MetaData()
        with connection.begin():
            found.reflect(connection)
            connection.execute(found.tables["alembic_version"].delete())
            for table in found.sorted_tables:
                flags = {column.name for column in table.columns if isinstance(column.type, sa.Boolean)}
                rows = dump.execute(f"SELECT * FROM {table.name}")
                names = [column[0] for column in rows.description]
                for row in rows.fetchall():
                    values = dict(zip(names, row, strict=True))
                    plain = {name: bool(v) if name in flags and v is not None else v for name, v in values.items()}
                    connection.execute(table.insert(), plain)
                if "id" in names:  # the next ones count on
                    counter = f"pg_get_serial_sequence('{table.name}', 'id')"
                    connection.execute(sa.text(f"SELECT setval({counter}, (SELECT max(id) + 1 FROM {table.name}))"))
    dump.close()


def everything(store: Store) -> Everything:
    found = {}
    for name in EVERYTHING:
        columns, rows = store.query(f"SELECT * FROM {name}")
        order = sorted(range(len(columns)), key=columns.__getitem__)
        plain = [[of_now(column, value) for column, value in zip(columns, row, strict=True)] for row in rows]
        ordered = sorted((tuple(row[index] for index in order) for row in plain), key=repr)
        found[name] = sorted(columns), ordered
    return found


@pytest.mark.parametrize("schema", sorted(path.stem for path in SCHEMAS.glob("*.sql") if path.stem != SCHEMA))
def test_a_released_database_reads_as_it_is_upgraded(
    tmp_path: Path, postgresql: Callable[[], str], schema: str
) -> None:
    url = postgresql()
    released(url, schema)
    with Store(url, tmp_path, reading=True) as store:
        assert store.schema == schema
        (name,) = store.study_names()
        seen = everything(store), list(store.trials(store.study(name), metrics=True))
        with pytest.raises(MachineError, match=r"cannot insert into column|no permission to write"):
            store.create_study("t", SPEC, StopAt())
    with Store(url, tmp_path, reading=True) as store:
        assert store.schema == schema  # the first reader has left no trace
    with Store(url, tmp_path, create=False) as store:
        assert (everything(store), list(store.trials(store.study(name), metrics=True))) == seen
        assert store.create_study("t", SPEC, StopAt()).spec == SPEC
    with Store(url, tmp_path, reading=True) as store, pytest.raises(MachineError, match="no permission to write"):
        store.create_study("u", SPEC, StopAt())


def test_what_is_not_a_whole_database(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    url = postgresql()
    for reading in (True, False):
        with pytest.raises(NotFoundError, match="empty"):
            Store(url, tmp_path, create=False, reading=reading)
    with Store(url, tmp_path) as store, pytest.raises(UsageError):
        store.query("DELETE FROM studies")
    engine = sa.create_engine(url)
    for change, message in (
        ("UPDATE alembic_version SET version_num = '9999'", "newer than this program's"),
        ("UPDATE alembic_version SET version_num = 'none'", "damaged: its schema 'none'"),
        (f"UPDATE alembic_version SET version_num = '{SCHEMA}'; DROP TABLE studies CASCADE", "is damaged"),
    ):
        with engine.begin() as connection:
            connection.exec_driver_sql(change)
        with pytest.raises(MachineError, match=message), Store(url, tmp_path) as store:
            store.study_names()
    engine.dispose()


def test_drivers_of_one_study_meet_on_the_server(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    url = postgresql()
    here, there = Store(url, tmp_path / "here"), Store(url, tmp_path / "there")  # as on two machines
    for store in (here, there):
        store.default_files = store.files
    study = here.create_study("s", SPEC, StopAt())
    with here.lock(study), pytest.raises(UsageError, match="another process"), there.lock(study):
        pass
    with there.lock(study):
        pass
    here.close()
    there.close()


def test_the_schema_is_changed_by_one_process_at_a_time(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    """A second one waits until the first has made the tables, and finds them."""
    url = postgresql()
    made: list[str] = []

    def make() -> None:
        with Store(url, tmp_path) as store:
            made.append(store.create_study("s", SPEC, StopAt()).name)

    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    other = threading.Thread(target=make)
    with sa.create_engine(url).connect() as first, sa.create_engine(url).connect() as look:
        with first.begin():
            first.execute(sa.text("SELECT pg_advisory_xact_lock(:id)"), {"id": LOCK})
            other.start()
            while other.is_alive() and not look.execute(waiting).scalar():
                time.sleep(0.01)
            assert made == []
        other.join()
    assert made == ["s"]
