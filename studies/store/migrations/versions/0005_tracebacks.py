"""Where a candidate's exception came from, how often it was begun without getting on, and final sizes."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for table in ("runs", "supernets"):
        op.execute(f"ALTER TABLE {table} ADD COLUMN tries INTEGER DEFAULT 0 NOT NULL")
        op.execute(f"ALTER TABLE {table} ADD COLUMN traceback TEXT")
    op.execute("ALTER TABLE studies ADD COLUMN final_size TEXT")
