"""What a bench has compared, and what came of it, as a page."""

from __future__ import annotations

import json
from collections.abc import Iterator

from nas_core.errors import NotFoundError
from nas_core.public import public
from nas_core.records import Bench
from reports import make, ranking
from reports.kind import Subject
from reports.pages.blocks import Block, Code, Facts, Page, Picture, Section, Table, Text, Tile, Tiles
from reports.texts import Cell, moment, number, settings_text
from studies.bench import curves
from studies.bench.plan import Plan
from studies.bench.standings import Standings, rank
from studies.bench.worker import finished


def page(subject: Subject) -> Page:
    """The page of a bench."""
    assert subject.bench is not None
    bench, plan = subject.bench, Plan.model_validate(subject.bench.config)
    studies = subject.store.studies_of(bench)
    done = sum(finished(study) for study in studies)
    total = plan.seeds * len(plan.contenders)
    try:
        standings: Standings | None = rank(curves.load(subject.store, bench, plan), plan)
        trouble = ""
    except NotFoundError as error:
        standings, trouble = None, str(error)
    pictures, missing = make.every(subject)
    figures: list[Block] = [Picture(figure) for figure in pictures.values()]
    figures += [Text(reason) for reason in missing]
    result: list[Block] = [Text(trouble, "careful")] if standings is None else list(_result(plan, standings))
    sections = [
        Section("result", "Result", result),
        Section("figures", "Figures", figures),
        Section("compared", "What was compared", list(_compared(bench, plan))),
        Section("repeat", "Repeat it", [Code("\n".join(_commands(bench, plan)), "Commands")]),
    ]
    tiles = [Tile("searches", f"{done:,}", f"of {total:,}"), Tile("queries of each", number(plan.queries))]
    if standings is not None:
        best = min(standings.strategies, key=lambda standing: standing.rank)
        tiles.insert(0, Tile("best mean rank", best.label, f"{best.rank:.2f} of {len(standings.strategies)}"))
        least = min(standings.strategies, key=lambda standing: standing.regret.mean)
        tiles.append(Tile("least mean regret", f"{least.regret.mean:.4g}", least.label))
    lead = (
        f"{', '.join(plan.contenders)} compared on {public(plan.problem.space)}, recorded results on "
        f"{public(plan.problem.evaluator.facts.data)}: {plan.seeds} searches of {plan.queries:,} queries each."
    )
    return Page("bench", bench.name, lead, sections, Tiles(tiles))


def _result(plan: Plan, standings: Standings) -> Iterator[Block]:
    if standings.seeds < plan.seeds:
        yield Text(f"Only {standings.seeds} of {plan.seeds} seeds have been finished by every strategy.", "careful")
    yield from ranking.tables(plan, standings)


def _compared(bench: Bench, plan: Plan) -> Iterator[Block]:
    problem, landscape = plan.problem, plan.landscape
    yield Facts(
        {
            "created": moment(bench.created),
            "space": public(problem.space),
            "table": public(str(problem.evaluator.model_dump(mode="json").get("table", ""))),
            "data": public(problem.evaluator.facts.data) or "",
            "objective": str(plan.objective),
            "constraints": ", ".join(problem.constraints),
            "rows of the table": number(landscape.rows),
            "the best row": number(plan.objective.orient(landscape.optimum)),
            "the mean of all rows": number(plan.objective.orient(landscape.mean)),
            "simulated workers": number(plan.workers) if plan.simulated else "",
        }
    )
    rows: list[list[Cell]] = [
        [label, public(one.strategy), settings_text(public(dict(one.config)))] for label, one in plan.contenders.items()
    ]
    yield Table(["name", "strategy", "settings"], rows)


def _commands(bench: Bench, plan: Plan) -> Iterator[str]:
    """The bench again, with settings that are not defaults as they were said."""
    import shlex

    settings = plan.problem.evaluator.model_dump(mode="json")
    contenders = ",".join(
        label if label == one.strategy else f"{label}={public(one.strategy)}" for label, one in plan.contenders.items()
    )
    words = ["nas", "bench", "strategies", "--strategies", contenders, "--space", public(plan.problem.space)]
    if "table" in settings:
        words += ["--table", public(settings["table"]), "--data", public(settings["data"])]
    words += ["--objective", plan.problem.objectives[0]]
    words += [word for limit in plan.problem.constraints for word in ("--constraint", limit)]
    words += ["--queries", str(plan.queries), "--seeds", str(plan.seeds)]
    words += ["--workers", str(plan.workers)] if plan.workers > 1 else []
    words += ["--clock", "simulated"] if plan.simulated and plan.workers == 1 else []
    for label, one in plan.contenders.items():
        for key, value in one.config.items():
            if value is not None:
                said = value if isinstance(value, str) else json.dumps(value)
                words += ["-s", f"{label}.{key}={said}"]
    yield shlex.join([*words, "--name", f"{bench.name}-again"])
    yield f"nas bench show {bench.name}"
    yield f"nas report {bench.name}"
