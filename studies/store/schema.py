"""Bring a database to the current schema before it is written; read one of an older schema as it is.

Creation and upgrade are one transaction each, under a lock that is taken before the version is looked at: whatever
kills a process, the next one finds a whole database.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from nas_core.errors import MachineError, NotFoundError
from studies.store import SCHEMA
from studies.store import tables as t
from studies.store.urls import writing

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x6E61735F736368  # of PostgreSQL's advisory locks; those of studies are their small ids

_EMPTY = "the database is empty; start with 'nas search', or name one by --db"


def prepare(connection: Connection, driven: Callable[[Connection], str | None], *, create: bool) -> None:
    """Create the tables of an empty database, upgrade those of an older one, for one that will write. `driven`: a study
    that a process drives, which then is of the older version and would write on as if nothing had been upgraded.

    Raises NotFoundError for an empty database where none may be created, MachineError for a newer one, a damaged one,
    one that is not ours, or an older one that is at work.
    """
    if _version(connection) == SCHEMA:
        return
    with _alone(connection):
        found = _version(connection)  # another process may have been faster
        if found == SCHEMA:
            return
        if found is None:
            _check_unfinished(connection)
            if not create:
                raise NotFoundError(_EMPTY)
            _create(connection)
        else:
            _check_known(found)
            name = driven(connection)
            if name is not None:
                raise MachineError(
                    f"the database has schema {found}, and an older version of nas, which knows no other, runs study "
                    f"'{name}' on it; this one would upgrade it to {SCHEMA}: wait for that one, or use another --db"
                )
            upgrade(connection)


def check_unchanged(connection: Connection) -> None:
    """Raises MachineError where another version of the program has upgraded the database since it was opened; none
    does before this transaction, a writing one, ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock_shared(:id)"), {"id": LOCK})
    found = connection.execute(sa.select(t.version.c.version_num)).scalar()
    if found is None:
        raise MachineError("the database is damaged: it has lost its version")
    if found != SCHEMA:
        raise MachineError(
            f"a newer version of nas has upgraded the database to schema {found}, this one's is {SCHEMA}; what was "
            "committed is kept: update nas and resume"
        )


def look(connection: Connection) -> str:
    """The schema of a database that will only be read: through temporary views where it is older, which stays so.

    Raises like `prepare`.
    """
    found = _version(connection)
    if found is None:
        with connection.begin():
            _check_unfinished(connection)
        raise NotFoundError(_EMPTY)
    if found != SCHEMA:
        _check_known(found)
        with connection.begin():
            _overlay(connection)
    return found


def upgrade(connection: Connection, target: str = "head") -> None:
    """Run alembic's migrations up to `target`, in the transaction of this connection or in one of their own."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    with nullcontext() if connection.in_transaction() else writing(connection):
        command.upgrade(config, target)


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """A transaction in which no other process changes the schema."""
    with writing(connection):
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:id)"), {"id": LOCK})
        yield


def _version(connection: Connection) -> str | None:
    """The schema that a database says it has; None where it says nothing."""
    with nullcontext() if connection.in_transaction() else connection.begin():
        if not sa.inspect(connection).has_table(t.version.name):
            return None
        found: str | None = connection.execute(sa.select(t.version.c.version_num)).scalar()
        return found


def _check_known(found: str) -> None:
    """Raises MachineError for a schema that is not one of the older ones."""
    known = {path.stem.partition("_")[0] for path in (MIGRATIONS / "versions").glob("*.py")}
    if found in known:
        return
    if found.isdecimal() and found > SCHEMA:
        raise MachineError(f"the database has schema {found}, newer than this program's {SCHEMA}; update nas")
    raise MachineError(f"the database is damaged: its schema '{found}' has never existed (this program's is {SCHEMA})")


def _check_unfinished(connection: Connection) -> None:
    """Raises MachineError where a database without a version is anything but one whose creation was cut short."""
    names = set(sa.inspect(connection).get_table_names())
    others = sorted(names - t.metadata.tables.keys())
    if others:
        raise MachineError(f"the database holds other tables ({', '.join(others[:3])}); choose another --db")
    filled = [name for name in sorted(names) if connection.execute(sa.text(f"SELECT 1 FROM {name} LIMIT 1")).first()]
    if filled:
        raise MachineError(f"the database is damaged: it has lost its version, and {filled[0]} holds rows")


def _create(connection: Connection) -> None:
    """Tables, views and version, in place of what a creation that was cut short has left: nothing is in it."""
    inspector = sa.inspect(connection)
    for view in inspector.get_view_names():
        if view in t.VIEWS:
            connection.execute(sa.text(f"DROP VIEW {view}"))
    for table in reversed(t.metadata.sorted_tables):
        table.drop(connection, checkfirst=True)
    if connection.dialect.name == "postgresql":
        # Said here and not in `tables`, where it would load that dialect for every command.
        for index in t.runs.indexes:
            index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]
    t.metadata.create_all(connection)
    connection.exec_driver_sql(t.several(connection.dialect.name))
    for name, select in t.VIEWS.items():
        connection.exec_driver_sql(f"CREATE VIEW {name} AS {select}")
    connection.execute(t.version.insert(), {"version_num": SCHEMA})


def _overlay(connection: Connection) -> None:
    """Temporary views in front of tables of an older schema, which show what it has not: empty tables and defaults."""
    inspector = sa.inspect(connection)
    schema = inspector.default_schema_name or "main"
    present = set(inspector.get_table_names())
    for table in t.metadata.sorted_tables:
        names = {column["name"] for column in inspector.get_columns(table.name)} if table.name in present else set()
        moved = _SUPERNETS in present and table.name in _OF_SUPERNETS
        if names.issuperset(column.name for column in table.columns) and not moved:
            continue
        shown = [_shown(column, names, connection) for column in table.columns]
        source = f"FROM {schema}.{table.name}" if names else "WHERE 1 = 0"
        select = f"SELECT {', '.join(shown)} {source}"
        if moved:
            told = inspector.get_columns(_SUPERNETS)
            select = _with_supernets(table, select, {column["name"] for column in told}, schema, connection)
        connection.exec_driver_sql(f"CREATE TEMPORARY VIEW {table.name} AS {select}")
    for name, select in t.VIEWS.items():
        connection.exec_driver_sql(f"CREATE TEMPORARY VIEW {name} AS {select}")


_SUPERNETS = "supernets"
"""The table in which the runs of supernets were, with their studies' ids for keys."""

_OF_SUPERNETS: Mapping[str, Mapping[str, str]] = {
    "runs": {
        "id": "-n.study",
        "study": "n.study",
        "kind": "'supernet'",
        "number": "1",
        # The view has no hash of an architecture without a choice; nothing asks for it.
        "architecture": "''",
        "identity": "''",
        "repeat": "0",
        "note": "'{}'",
        "derived": "n.result",
    },
    "artifacts": {"id": "-n.study", "run": "-n.study", "kind": "'weights'", "path": "n.weights", "created": "n.ended"},
}
"""What their columns are in the tables where they are now; others have the same name, or are empty."""


def _with_supernets(table: sa.Table, select: str, told: Collection[str], schema: str, connection: Connection) -> str:
    """The rows of a table with those that supernets have in it now."""
    known = _OF_SUPERNETS[table.name]
    shown = [
        known.get(column.name, f"n.{column.name}" if column.name in told else _default(column, connection))
        for column in table.columns
    ]
    where = " WHERE n.weights IS NOT NULL" if table.name == "artifacts" else ""
    return f"{select} UNION ALL SELECT {', '.join(shown)} FROM {schema}.{_SUPERNETS} n{where}"


def _shown(column: sa.Column[Any], names: Collection[str], connection: Connection) -> str:
    """A column out of an older table that has columns of these names."""
    if column.name in names:
        return column.name
    before = column.info.get(t.BEFORE, "")
    return f"{before if before.removeprefix('-') in names else _default(column, connection)} AS {column.name}"


def _default(column: sa.Column[Any], connection: Connection) -> str:
    """What a migration gives the rows that are there when it adds a column."""
    kind = column.type.compile(connection.dialect)
    default = column.server_default
    value = default.arg if isinstance(default, sa.DefaultClause) else sa.null()
    literal = sa.literal(value) if isinstance(value, str) else value
    text = literal.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    return f"CAST({text} AS {kind})"
