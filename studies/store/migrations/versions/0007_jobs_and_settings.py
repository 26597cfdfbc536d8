"""Runs of jobs leave networks that differ from those of their space."""

from studies.store.half import add_column

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    add_column("runs", "changes TEXT")
