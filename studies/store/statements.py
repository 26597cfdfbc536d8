"""The hot statements, compiled once to the driver's own SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from studies.store import tables as t


class Statements:
    """The hot statements, compiled once to the driver's own SQL: half the time per trial of the ORM-less Core."""

    def __init__(self, dialect: sa.Dialect) -> None:
        insert: Any
        if dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert
        else:
            from sqlalchemy.dialects.sqlite import insert
        metric = insert(t.metrics)
        r = t.runs.c
        outcome = [
            "state",
            "reason",
            "traceback",
            "objectives",
            "violations",
            "objective",
            "feasible",
            "ended",
            "seconds",
            "tries",
        ]
        statements: dict[str, Any] = {
            "architecture": insert(t.architectures).on_conflict_do_nothing(),
            "context": insert(t.contexts).values(json=sa.bindparam("json")).on_conflict_do_nothing(),
            "score": insert(t.scores).on_conflict_do_nothing(),
            "environment": insert(t.environments).values(json=sa.bindparam("json")).on_conflict_do_nothing(),
            "metric": metric.on_conflict_do_update(
                index_elements=["run", "step", "name"],
                set_={"value": metric.excluded.value, "number": metric.excluded.number},
            ),
            "run": insert(t.runs)
            .values({c.name: sa.bindparam(c.name) for c in t.runs.c if c.name != "id"})
            .returning(r.id),
            "tell": t.runs.update().where(r.id == sa.bindparam("id_")).values(told=sa.bindparam("told")),
            "finish": t.runs.update()
            .where(r.id == sa.bindparam("id_"))
            .values({name: sa.bindparam(name) for name in outcome}),
        }
        self._compiled = {name: self._compile(statement, dialect) for name, statement in statements.items()}

    @staticmethod
    def _compile(statement: Any, dialect: sa.Dialect) -> tuple[str, Callable[[Mapping[str, Any]], Any]]:
        compiled = statement.compile(dialect=dialect)
        names = compiled.positiontup
        rename = {"id_": "id"}
        if names is None:
            named = [(name, rename.get(name, name)) for name in compiled.params]
            return str(compiled), lambda row: {name: row[key] for name, key in named}
        keys = [rename.get(name, name) for name in names]
        return str(compiled), lambda row: tuple([row[key] for key in keys])

    def run(self, connection: Connection, name: str, row: Mapping[str, Any]) -> None:
        sql, order = self._compiled[name]
        connection.exec_driver_sql(sql, order(row))

    def run_many(self, connection: Connection, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        sql, order = self._compiled[name]
        if rows:
            connection.exec_driver_sql(sql, [order(row) for row in rows])

    def insert_run(self, connection: Connection, row: Mapping[str, Any]) -> int:
        sql, order = self._compiled["run"]
        return int(connection.exec_driver_sql(sql, order(row)).scalar_one())
