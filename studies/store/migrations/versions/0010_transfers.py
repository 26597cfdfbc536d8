"""Trainings that begin with the weights of another trial."""

import sqlalchemy as sa
from alembic import op

from studies.store.half import add_column

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    add_column("runs", "transfer INTEGER")
    there = sa.text("transfer IS NOT NULL")
    op.create_index("runs_transfers", "runs", ["study"], sqlite_where=there, postgresql_where=there, if_not_exists=True)
