"""Runs of jobs leave networks that differ from those of their space. Evaluators say their `kind`, and a table of costs
is around the evaluator whose candidates have them."""

import json

import sqlalchemy as sa
from alembic import op

from studies.store.half import add_column
from training.evaluators.earlier import as_now

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    add_column("runs", "changes TEXT")
    connection = op.get_bind()
    for number, evaluator in connection.execute(sa.text("SELECT id, evaluator FROM studies")).all():
        _write(connection, "studies", "evaluator", number, as_now(json.loads(evaluator)))
    for number, config in connection.execute(sa.text("SELECT id, config FROM benches")).all():
        plan = json.loads(config)
        if "problem" in plan:
            plan["problem"]["evaluator"] = as_now(plan["problem"]["evaluator"])
            _write(connection, "benches", "config", number, plan)


def _write(connection: sa.Connection, table: str, column: str, number: int, value: object) -> None:
    text = json.dumps(value, separators=(",", ":"))
    connection.execute(sa.text(f"UPDATE {table} SET {column} = :text WHERE id = :id"), {"text": text, "id": number})
