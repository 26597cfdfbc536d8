"""Indexes for studies of many trials: the best of them and the front are found without reading all."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.drop_index("runs_ended", "runs", if_exists=True)
    ended = sa.text("ended IS NOT NULL")
    columns = ["study", "kind", "state", "feasible", "budget", "objective", "number"]
    op.create_index("runs_ended", "runs", columns, sqlite_where=ended, postgresql_where=ended)
    other = sa.text("kind != 'trial'")
    op.create_index(
        "runs_others",
        "runs",
        ["study", "kind", "number"],
        sqlite_where=other,
        postgresql_where=other,
        if_not_exists=True,
    )
    on_file = op.get_bind().dialect.name == "sqlite"
    second, third = (
        f"json_extract(objectives, '$[{place}]')" if on_file else f"((objectives::json ->> {place})::float8)"
        for place in (1, 2)
    )
    columns = ["study", "kind", "state", "feasible", "budget", second, third, "objective", "number", "objectives"]
    op.execute(
        f"CREATE INDEX IF NOT EXISTS runs_several ON runs ({', '.join(columns)}) "
        f"WHERE ended IS NOT NULL AND {second} IS NOT NULL"
    )
