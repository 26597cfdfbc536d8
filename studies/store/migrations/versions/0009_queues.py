"""Queues of studies: attempts that workers on any machine take, and what they say of them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "queues",
        sa.Column("study", sa.Integer, sa.ForeignKey("studies.id"), primary_key=True),
        sa.Column("session", sa.String(32), nullable=False),
        sa.Column("driver", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("lease", sa.Float, nullable=False),
        sa.Column("seen", sa.Float),
        if_not_exists=True,
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study", sa.Integer, sa.ForeignKey("studies.id"), nullable=False),
        sa.Column("session", sa.String(32), nullable=False),
        sa.Column("work", sa.Text, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("halting", sa.Boolean, nullable=False),
        sa.Column("begun", sa.Boolean, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("claimed", sa.Float),
        sa.Column("until", sa.Float),
        sa.Column("said", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    op.create_index("attempts_study", "attempts", ["study", "state"], if_not_exists=True)
    op.create_table(
        "messages",
        sa.Column("attempt", sa.Integer, sa.ForeignKey("attempts.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
