"""The field's words: what a trial reuses, early stopping, warm starts, strengths of operations."""

from alembic import op

from studies.store.half import rename_column

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("DROP VIEW IF EXISTS trials")
    rename_column("runs", "source", "reuses")
    rename_column("studies", "pruner", "early_stop")
    rename_column("studies", "prior", "warm_start")
    rename_column("epochs", "scores", "strengths")
    op.execute(
        """
        CREATE VIEW trials AS
        SELECT s.name AS study, r.number, r.state, r.reason, r.objective, r.feasible, r.reuses, r.budget, r.continues,
               r.seconds, r.started, r.ended, r.attempt, a.json AS architecture, r.identity, r.note, r.reuses AS source
        FROM runs r JOIN studies s ON s.id = r.study JOIN architectures a ON a.key = r.architecture
        WHERE r.kind = 'trial'"""
    )
