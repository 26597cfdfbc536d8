"""Many fidelities, workers and benches: continued trials, pruning, free order, snapshots, child studies."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "benches",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False, unique=True),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
    )
    # In plain SQL: alembic cannot add a foreign key together with its column on SQLite.
    op.execute("ALTER TABLE studies ADD COLUMN ordering VARCHAR(8) DEFAULT 'strict' NOT NULL")
    op.execute("ALTER TABLE studies ADD COLUMN pruner TEXT")
    op.execute("ALTER TABLE studies ADD COLUMN bench INTEGER REFERENCES benches (id)")
    op.execute("ALTER TABLE studies ADD COLUMN measured TEXT")
    op.execute("ALTER TABLE runs ADD COLUMN continues INTEGER")
    op.create_table(
        "snapshots",
        sa.Column("study", sa.Integer, sa.ForeignKey("studies.id"), primary_key=True),
        sa.Column("told", sa.Integer, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("arrays", sa.LargeBinary, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
    )
    op.drop_index("runs_ended", "runs")
    ended = sa.text("ended IS NOT NULL")
    columns = ["study", "kind", "state", "feasible", "budget", "objective"]
    op.create_index("runs_ended", "runs", columns, sqlite_where=ended, postgresql_where=ended)
    op.create_index("studies_bench", "studies", ["bench"])
    op.execute("DROP VIEW trials")
    op.execute(
        """
        CREATE VIEW trials AS
        SELECT s.name AS study, r.number, r.state, r.reason, r.objective, r.feasible, r.source, r.budget, r.continues,
               r.seconds, r.started, r.ended, r.attempt, a.json AS architecture, r.identity, r.note
        FROM runs r JOIN studies s ON s.id = r.study JOIN architectures a ON a.key = r.architecture
        WHERE r.kind = 'trial'"""
    )
