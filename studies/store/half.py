"""What migrations do where a part of them may be there: an upgrade on SQLite was not always one transaction,
so a process that was killed in it left some of its statements behind."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op


def add_column(table: str, definition: str) -> None:
    """Add a column, given in SQL with its name first, unless it is there."""
    columns = {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}
    if definition.split()[0] not in columns:
        # In plain SQL: alembic cannot add a foreign key together with its column on SQLite.
        op.execute(f"ALTER TABLE {table} ADD COLUMN {definition}")


def rename_column(table: str, before: str, name: str) -> None:
    """Give a column another name, unless it has that."""
    columns = {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}
    if name not in columns:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {before} TO {name}")
