"""Bring a database to the current schema: create, check, or upgrade it by alembic's migrations."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from nas_core.errors import MachineError, NotFoundError
from studies.store import SCHEMA
from studies.store import tables as t

MIGRATIONS = Path(__file__).parent / "migrations"


def prepare(connection: Connection, create: bool) -> None:
    """Create the tables of an empty database, upgrade those of an older one.

    Raises NotFoundError for an empty database where none may be created, MachineError for a newer one or
    one that is not ours.
    """
    with connection.begin():
        names = set(sa.inspect(connection).get_table_names())
    if "alembic_version" not in names:
        if names:
            raise MachineError(f"the database holds other tables ({', '.join(sorted(names)[:3])}); choose another --db")
        if not create:
            raise NotFoundError("the database is empty; start with 'nas search', or name one by --db")
        _create(connection)
        return
    with connection.begin():
        found = connection.execute(sa.select(t.version.c.version_num)).scalar()
    if found == SCHEMA:
        return
    if found is None or found > SCHEMA:
        raise MachineError(f"the database has schema {found}, newer than this program's {SCHEMA}; update nas")
    upgrade(connection)


def _create(connection: Connection) -> None:
    """Tables, views and version in one transaction; a second process that loses the race finds them made."""
    if connection.dialect.name == "postgresql":
        # Said here and not in `tables`, where it would load that dialect for every command.
        for index in t.runs.indexes:
            index.dialect_options["postgresql"]["where"] = index.dialect_options["sqlite"]["where"]
    with connection.begin():
        t.metadata.create_all(connection)
        create_views(connection)
        if connection.execute(sa.select(t.version.c.version_num)).scalar() is None:
            connection.execute(t.version.insert(), {"version_num": SCHEMA})


def create_views(connection: Connection) -> None:
    """(Re)create the views for people."""
    for name, select in t.VIEWS.items():
        connection.execute(sa.text(f"DROP VIEW IF EXISTS {name}"))
        connection.execute(sa.text(f"CREATE VIEW {name} AS {select}"))


def upgrade(connection: Connection, target: str = "head") -> None:
    """Run alembic's migrations up to `target` on this connection."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, target)
    connection.commit()
