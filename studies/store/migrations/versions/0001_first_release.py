"""The first released schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False, unique=True),
        sa.Column("space", sa.Text, nullable=False),
        sa.Column("space_name", sa.Text, nullable=False),
        sa.Column("space_version", sa.Integer, nullable=False),
        sa.Column("space_hash", sa.String(16)),
        sa.Column("size", sa.Text, nullable=False),
        sa.Column("strategy", sa.Text, nullable=False),
        sa.Column("strategy_config", sa.Text, nullable=False),
        sa.Column("evaluator", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("split_hash", sa.Text, nullable=False),
        sa.Column("objectives", sa.Text, nullable=False),
        sa.Column("constraints", sa.Text, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("lag", sa.Integer, nullable=False),
        sa.Column("budget", sa.Text, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
    )
    op.create_table(
        "architectures",
        sa.Column("key", sa.String(16), primary_key=True),
        sa.Column("json", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "environments",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("json", sa.Text, nullable=False, unique=True),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("study", sa.Integer, sa.ForeignKey("studies.id"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("parent", sa.Integer, sa.ForeignKey("runs.id")),
        sa.Column("architecture", sa.String(16), sa.ForeignKey("architectures.key"), nullable=False),
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("budget", sa.Float),
        sa.Column("recipe", sa.Text),
        sa.Column("repeat", sa.Integer, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("source", sa.Integer),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("asked_after", sa.Integer),
        sa.Column("told", sa.Integer),
        sa.Column("objectives", sa.Text),
        sa.Column("violations", sa.Text),
        sa.Column("objective", sa.Float),
        sa.Column("feasible", sa.Boolean),
        sa.Column("started", sa.Float),
        sa.Column("ended", sa.Float),
        sa.Column("seconds", sa.Float),
        sa.Column("environment", sa.Integer, sa.ForeignKey("environments.id")),
        sa.CheckConstraint("kind <> 'trial' OR parent IS NULL", name="trials_have_no_parent"),
    )
    trial, ended, child = sa.text("kind = 'trial'"), sa.text("ended IS NOT NULL"), sa.text("parent IS NOT NULL")
    op.create_index(
        "trials_number", "runs", ["study", "number"], unique=True, sqlite_where=trial, postgresql_where=trial
    )
    op.create_index(
        "runs_ended",
        "runs",
        ["study", "kind", "state", "feasible", "objective"],
        sqlite_where=ended,
        postgresql_where=ended,
    )
    op.create_index("runs_children", "runs", ["parent", "kind"], sqlite_where=child, postgresql_where=child)
    op.create_table(
        "metrics",
        sa.Column("run", sa.Integer, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("step", sa.Float, primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Float),
        sa.Column("number", sa.String(6), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run", sa.Integer, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.UniqueConstraint("run", "path"),
    )
    _create_views()


def _create_views() -> None:
    # Frozen here as released; later migrations drop and make them anew.
    op.execute(
        """
        CREATE VIEW trials AS
        SELECT s.name AS study, r.number, r.state, r.reason, r.objective, r.feasible, r.source, r.seconds,
               r.started, r.ended, r.attempt, a.json AS architecture, r.identity, r.note
        FROM runs r JOIN studies s ON s.id = r.study JOIN architectures a ON a.key = r.architecture
        WHERE r.kind = 'trial'"""
    )
    op.execute(
        """
        CREATE VIEW trials_flat AS
        SELECT s.name AS study, r.number, r.state, m.step, m.name AS metric, m.value, m.number AS kind_of_number
        FROM runs r JOIN studies s ON s.id = r.study JOIN metrics m ON m.run = r.id
        WHERE r.kind = 'trial'
          AND m.step = (SELECT MAX(last.step) FROM metrics last WHERE last.run = r.id)"""
    )
