"""Runs of jobs leave networks that differ from those of their space, and supernets are runs. Evaluators say their
`kind`, and a table of costs is around the evaluator whose candidates have them."""

import json
import time

import sqlalchemy as sa
from alembic import op

from nas_core.architecture import Architecture
from studies.store.half import add_column
from training.evaluators.earlier import as_now

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    add_column("studies", "files TEXT")
    add_column("runs", "changes TEXT")
    add_column("runs", "derived TEXT")
    connection = op.get_bind()
    _supernets(connection)
    for number, evaluator in connection.execute(sa.text("SELECT id, evaluator FROM studies")).all():
        _write(connection, "studies", "evaluator", number, as_now(json.loads(evaluator)))
    for number, config in connection.execute(sa.text("SELECT id, config FROM benches")).all():
        plan = json.loads(config)
        if "problem" in plan:
            plan["problem"]["evaluator"] = as_now(plan["problem"]["evaluator"])
            _write(connection, "benches", "config", number, plan)


def _supernets(connection: sa.Connection) -> None:
    """Each becomes a run, and its epochs are that run's. What an upgrade that was cut short has done stays."""
    present = set(sa.inspect(connection).get_table_names())
    if "supernets" in present:
        query = "SELECT n.*, s.space_name FROM supernets n JOIN studies s ON s.id = n.study"
        for row in connection.execute(sa.text(query)).mappings().all():
            _supernet(connection, row)
        op.create_table(
            "epochs_of_runs",
            sa.Column("run", sa.Integer, sa.ForeignKey("runs.id"), primary_key=True),
            sa.Column("epoch", sa.Integer, primary_key=True),
            sa.Column("architecture", sa.String(16), sa.ForeignKey("architectures.key")),
            sa.Column("metrics", sa.Text, nullable=False),
            sa.Column("strengths", sa.Text, nullable=False),
            sa.Column("seconds", sa.Float, nullable=False),
            sqlite_with_rowid=False,
            if_not_exists=True,
        )
        if "epochs" in present and "run" not in _columns(connection, "epochs"):
            op.execute("DELETE FROM epochs_of_runs")
            op.execute(
                """
                INSERT INTO epochs_of_runs
                SELECT r.id, e.epoch, e.architecture, e.metrics, e.strengths, e.seconds
                FROM epochs e JOIN runs r ON r.study = e.study AND r.kind = 'supernet'"""
            )
            op.drop_table("epochs")
        op.drop_table("supernets")
    if "epochs_of_runs" in sa.inspect(connection).get_table_names():
        op.rename_table("epochs_of_runs", "epochs")


def _supernet(connection: sa.Connection, row: sa.RowMapping) -> None:
    known = sa.text("SELECT id FROM runs WHERE study = :study AND kind = 'supernet'")
    if connection.execute(known, {"study": row["study"]}).first():
        return
    arch = Architecture(row["space_name"], {})
    values = {**row, "key": arch.key, "json": arch.to_json(), "now": time.time()}
    if not connection.execute(sa.text("SELECT key FROM architectures WHERE key = :key"), values).first():
        connection.execute(sa.text("INSERT INTO architectures (key, json) VALUES (:key, :json)"), values)
    insert = """
        INSERT INTO runs (study, kind, number, architecture, identity, repeat, note, state, reason, attempt, started,
                          ended, seconds, environment, tries, traceback, derived)
        VALUES (:study, 'supernet', 1, :key, :key, 0, '{}', :state, :reason, :attempt, :started, :ended,
                :seconds, :environment, :tries, :traceback, :result)"""
    connection.execute(sa.text(insert), values)
    if row["weights"] is not None:
        run = connection.execute(known, values).scalar_one()
        insert = """
            INSERT INTO artifacts (run, kind, path, sha256, created)
            VALUES (:run, 'weights', :weights, :sha256, COALESCE(:ended, :now))"""
        connection.execute(sa.text(insert), {**values, "run": run})


def _columns(connection: sa.Connection, table: str) -> set[str]:
    return {column["name"] for column in sa.inspect(connection).get_columns(table)}


def _write(connection: sa.Connection, table: str, column: str, number: int, value: object) -> None:
    text = json.dumps(value, separators=(",", ":"))
    connection.execute(sa.text(f"UPDATE {table} SET {column} = :text WHERE id = :id"), {"text": text, "id": number})
