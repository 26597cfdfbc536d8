"""The standings of a bench as tables, and what the tests say of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from reports.pages.blocks import Table
from reports.texts import Cell, Rounded, within
from studies.bench.plan import Plan
from studies.bench.standings import Spread, Standing, Standings
from studies.bench.statistics import Paired


def lead(name: str, plan: Plan, standings: Standings) -> list[str]:
    """What was compared on what, and what there was to find."""
    objective, landscape, problem = plan.objective, plan.landscape, plan.problem
    limits = f" that satisfy {', '.join(problem.constraints)}" if problem.constraints else ""
    workers = f", {plan.workers} simulated workers" if plan.simulated else ""
    return [
        f"bench {name}: {problem.space_name} on {problem.evaluator.facts.data}, {plan.queries} queries{workers}, "
        f"{standings.seeds} seeds" + (f" of {plan.seeds}" if standings.seeds < plan.seeds else ""),
        f"the best of {landscape.rows:,} rows{limits} has {objective.metric} {objective.orient(landscape.optimum):.6g}",
    ]


def tables(plan: Plan, standings: Standings) -> Iterator[Table]:
    """Incumbents after some queries, and the ranking; the best mean rank first."""
    ordered = sorted(standings.strategies, key=lambda standing: standing.rank)
    metric = plan.objective.metric
    yield _incumbents(f"{metric} of the incumbent after so many queries", {s.label: s.validation for s in ordered})
    if plan.test_metric is not None:
        yield _incumbents(f"{plan.test_metric} of the same incumbent", {s.label: s.test or {} for s in ordered})
    heads = ["strategy", "rank", "regret", "area", f"to top {plan.landscape.top}: median", "90%"]
    if len(ordered) > 1:
        heads += [f"regret - {standings.baseline}'s", "p (t)", "Holm", "p (Wilcoxon)", "Holm"]
    scores = any(standing.scored for standing in ordered)
    heads += ["ask ms", "tell ms"] + ["scored"] * scores + ["simulated hours"] * plan.simulated
    rows = [_row(standing, plan, scores, len(ordered) > 1) for standing in ordered]
    yield Table(heads, rows, heads[1:], f"ranking after {plan.queries} queries", _notes(plan, standings))


def _incumbents(title: str, curves: Mapping[str, Mapping[int, Spread]]) -> Table:
    checkpoints = list(next(iter(curves.values())))
    heads = ["strategy", *(f"{count:,}" for count in checkpoints)]
    rows = [[label, *(_spread(curve[count]) for count in checkpoints)] for label, curve in curves.items()]
    return Table(heads, rows, heads[1:], title)


def _row(standing: Standing, plan: Plan, scores: bool, tested: bool) -> list[Cell]:
    cells: list[Cell] = [
        standing.label,
        Rounded(standing.rank, f"{standing.rank:.2f}"),
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
        cells.append(None if hours is None else Rounded(hours, f"{hours:.3g}"))
    return cells


def _tests(paired: Paired | None) -> list[str]:
    if paired is None:
        return [""] * 5
    values = (paired.p_t, paired.p_t_holm, paired.p_wilcoxon, paired.p_wilcoxon_holm)
    return [within(paired.difference, paired.half), *map(_probability, values)]


def _notes(plan: Plan, standings: Standings) -> Sequence[str]:
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
    return within(spread.mean, spread.std)


def _probability(p: float) -> str:
    return "" if math.isnan(p) else f"{p:.2g}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.3g}"
