"""One-shot searches: supernets and what each epoch of their training came to."""

import sqlalchemy as sa
from alembic import op

from studies.store.half import add_column

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "supernets",
        sa.Column("study", sa.Integer, sa.ForeignKey("studies.id"), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("weights", sa.Text),
        sa.Column("sha256", sa.String(64)),
        sa.Column("started", sa.Float),
        sa.Column("ended", sa.Float),
        sa.Column("seconds", sa.Float),
        sa.Column("environment", sa.Integer, sa.ForeignKey("environments.id")),
        if_not_exists=True,
    )
    op.create_table(
        "epochs",
        sa.Column("study", sa.Integer, sa.ForeignKey("supernets.study"), primary_key=True),
        sa.Column("epoch", sa.Integer, primary_key=True),
        sa.Column("architecture", sa.String(16), sa.ForeignKey("architectures.key")),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.Column("scores", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    add_column("studies", "supernet TEXT")
