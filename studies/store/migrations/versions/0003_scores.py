"""Scores of predictors, and studies that use them."""

import sqlalchemy as sa
from alembic import op

from studies.store.half import add_column

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "contexts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("json", sa.Text, nullable=False, unique=True),
        if_not_exists=True,
    )
    op.create_table(
        "scores",
        sa.Column("context", sa.Integer, sa.ForeignKey("contexts.id"), primary_key=True),
        sa.Column("predictor", sa.String(200), primary_key=True),
        sa.Column("architecture", sa.String(16), sa.ForeignKey("architectures.key"), primary_key=True),
        sa.Column("value", sa.Float),
        sa.Column("number", sa.String(6), nullable=False),
        sa.Column("seconds", sa.Float),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    add_column("studies", "scoring TEXT")
    add_column("studies", "prior TEXT")
