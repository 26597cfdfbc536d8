"""Many fidelities, workers and benches: continued trials, pruning, free order, snapshots, child studies."""

import sqlalchemy as sa
from alembic import op

from studies.store.half import add_column

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "benches",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False, unique=True),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        if_not_exists=True,
    )
    add_column("studies", "ordering VARCHAR(8) DEFAULT 'strict' NOT NULL")
    add_column("studies", "pruner TEXT")
    add_column("studies", "bench INTEGER REFERENCES benches (id)")
    add_column("studies", "measured TEXT")
    add_column("runs", "continues INTEGER")
    op.create_table(
        "snapshots",
        sa.Column("study", sa.Integer, sa.ForeignKey("studies.id"), primary_key=True),
        sa.Column("told", sa.Integer, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("arrays", sa.LargeBinary, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        if_not_exists=True,
    )
    op.drop_index("runs_ended", "runs", if_exists=True)
    ended = sa.text("ended IS NOT NULL")
    columns = ["study", "kind", "state", "feasible", "budget", "objective"]
    op.create_index("runs_ended", "runs", columns, sqlite_where=ended, postgresql_where=ended)
    op.create_index("studies_bench", "studies", ["bench"], if_not_exists=True)
    op.execute("DROP VIEW IF EXISTS trials")
    op.execute(
        """
        CREATE VIEW trials AS
        SELECT s.name AS study, r.number, r.state, r.reason, r.objective, r.feasible, r.source, r.budget, r.continues,
               r.seconds, r.started, r.ended, r.attempt, a.json AS architecture, r.identity, r.note
        FROM runs r JOIN studies s ON s.id = r.study JOIN architectures a ON a.key = r.architecture
        WHERE r.kind = 'trial'"""
    )
