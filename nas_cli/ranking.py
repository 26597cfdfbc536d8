"""How the standings of a bench are printed: three tables and what the tests say, or one JSON document."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nas_cli import render

if TYPE_CHECKING:
    from studies.bench.plan import Plan
    from studies.bench.standings import Spread, Standing, Standings
    from studies.bench.statistics import Paired


def page(name: str, plan: Plan, standings: Standings) -> None:
    """The strategies, best mean rank first."""
    ordered = sorted(standings.strategies, key=lambda standing: standing.rank)
    objective, landscape, problem = plan.objective, plan.landscape, plan.problem
    limits = f" that satisfy {', '.join(problem.constraints)}" if problem.constraints else ""
    workers = f", {plan.workers} simulated workers" if plan.simulated else ""
    render.emit(
        f"bench {name}: {problem.space_name} on {problem.evaluator.facts.data}, {plan.queries} queries{workers}, "
        f"{standings.seeds} seeds" + (f" of {plan.seeds}" if standings.seeds < plan.seeds else ""),
        f"the best of {landscape.rows:,} rows{limits} has {objective.metric} {objective.orient(landscape.optimum):.6g}",
    )
    _incumbents(f"{objective.metric} of the incumbent after so many queries", {s.label: s.validation for s in ordered})
    if plan.test_metric is not None:
        _incumbents(f"{plan.test_metric} of the same incumbent", {s.label: s.test or {} for s in ordered})
    render.emit("", f"ranking after {plan.queries} queries")
    heads = ["strategy", "rank", "regret", "area", f"to top {landscape.top}: median", "90%"]
    if len(ordered) > 1:
        heads += [f"regret - {standings.baseline}'s", "p (t)", "Holm", "p (Wilcoxon)", "Holm"]
    scores = any(standing.scored for standing in ordered)
    heads += ["ask ms", "tell ms"] + ["scored"] * scores + ["simulated hours"] * plan.simulated
    render.table(heads, [_row(standing, plan, scores, len(ordered) > 1) for standing in ordered], right=heads[1:])
    render.emit("", *_notes(plan, standings))


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


def _incumbents(title: str, curves: Mapping[str, Mapping[int, Spread]]) -> None:
    render.emit("", title)
    checkpoints = list(next(iter(curves.values())))
    heads = ["strategy", *(f"{count:,}" for count in checkpoints)]
    rows = [[label, *(_spread(curve[count]) for count in checkpoints)] for label, curve in curves.items()]
    render.table(heads, rows, right=heads[1:])


def _row(standing: Standing, plan: Plan, scores: bool, tested: bool) -> list[render.Cell]:
    cells: list[render.Cell] = [
        standing.label,
        render.Rounded(standing.rank, f"{standing.rank:.2f}"),
        _spread(standing.regret),
        _spread(standing.area),
        *(f">{plan.queries}" if count > plan.queries else str(count) for count in standing.to_top.values()),
        *(_tests(standing.paired) if tested else []),
        *(_milliseconds(seconds) for seconds in (standing.ask_seconds, standing.tell_seconds)),
    ]
    if scores:
        cells.append(standing.scored or 0)
    if plan.simulated:
        hours = None if standing.simulated_seconds is None else standing.simulated_seconds / 3600
        cells.append(None if hours is None else render.Rounded(hours, f"{hours:.3g}"))
    return cells


def _tests(paired: Paired | None) -> list[str]:
    if paired is None:
        return [""] * 5
    values = (paired.p_t, paired.p_t_holm, paired.p_wilcoxon, paired.p_wilcoxon_holm)
    return [_within(paired.difference, paired.half), *map(_probability, values)]


def _notes(plan: Plan, standings: Standings) -> list[str]:
    if len(standings.strategies) < 2:
        return []
    lines = [
        f"regret - {standings.baseline}'s: mean paired difference with its 95% interval; below 0 is better",
        f"p: one-sided paired tests over the seeds that the regret after {plan.queries} queries is lower than that of "
        f"{standings.baseline}",
        f"Holm: the same, corrected for {len(standings.strategies) - 1} comparisons (Holm's step-down method)",
        f"Friedman's test that all rank alike: chi-squared {standings.friedman.statistic:.4g}, "
        f"p {_probability(standings.friedman.p)}",
        f"Nemenyi's critical difference of mean ranks at the 5% level: {standings.critical_difference:.3g}; "
        + ("it separates all" if not standings.groups else "not separated:"),
    ]
    return lines + [f"  {', '.join(group)}" for group in standings.groups]


def _spread(spread: Spread) -> str:
    """Mean and standard deviation."""
    return _within(spread.mean, spread.std)


def _within(middle: float, half: float) -> str:
    """To the second digit of what follows the ±; where that is 0 or not known, six digits."""
    if not math.isfinite(half):
        return f"{middle:.6g}"
    if half == 0:
        return f"{middle:.6g} ± 0"
    digits = max(0, 1 - math.floor(math.log10(half)))
    return f"{middle:.{digits}f} ± {half:.{digits}f}"


def _probability(p: float) -> str:
    return "" if math.isnan(p) else f"{p:.2g}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.3g}"
