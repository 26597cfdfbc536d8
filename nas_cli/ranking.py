"""How the standings of a bench are printed: three tables and what the tests say, or one JSON document."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nas_cli import render

if TYPE_CHECKING:
    from studies.bench.plan import Plan
    from studies.bench.standings import Standings


def page(name: str, plan: Plan, standings: Standings) -> None:
    """The strategies, best mean rank first."""
    from reports import ranking

    render.emit(*ranking.lead(name, plan, standings))
    for table in ranking.tables(plan, standings):
        render.emit("", table.title)
        render.table(table.heads, table.rows, right=table.right)
        if table.notes:
            render.emit("", *table.notes)


def document(name: str, plan: Plan, standings: Standings) -> dict[str, Any]:
    """Everything, as plain data; strategies in the order in which they were given."""
    return {
        "bench": name,
        "space": plan.problem.space_name,
        "data": plan.problem.evaluator.facts.data,
        "objective": str(plan.objective),
        "constraints": list(plan.problem.constraints),
        "test": plan.test_metric,
        "queries": plan.queries,
        "workers": plan.workers,
        "simulated": plan.simulated,
        "seeds": standings.seeds,
        "seeds_wanted": plan.seeds,
        "rows": plan.landscape.rows,
        "optimum": plan.objective.orient(plan.landscape.optimum),
        "top_rows": plan.landscape.top,
        "top_threshold": plan.objective.orient(plan.landscape.threshold),
        "baseline": standings.baseline,
        "friedman": asdict(standings.friedman),
        "critical_difference": standings.critical_difference,
        "not_separated": [list(group) for group in standings.groups],
        "strategies": [
            {
                **{key: value for key, value in asdict(standing).items() if key not in ("to_top", "missed")},
                "to_top": {
                    "median": standing.to_top[0.5],
                    "p90": standing.to_top[0.9],
                    "missed": standing.missed,
                },
                "strategy": plan.contenders[standing.label].strategy,
                "config": plan.contenders[standing.label].config,
            }
            for standing in standings.strategies
        ],
    }
