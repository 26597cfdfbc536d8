"""`nas bench`: which strategy finds more with the same number of queries, on a table of recorded results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas_cli import complete
from nas_cli.command import Commands
from nas_cli.options import DEFAULT_DB, Db, Files, Json, open_store
from nas_cli.search_options import Executor, listed
from studies.executors.where import AUTO, Where

if TYPE_CHECKING:
    from nas_core.records import Bench
    from studies.bench.plan import Plan
    from studies.store.store import Store

bench = Commands(help="Compare strategies on a table.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[
    str, typer.Argument(metavar="BENCH", help="Name of a bench (see 'nas bench ls').", autocompletion=complete.benches)
]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Processes [default: one per core].")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Write regret curves and ranks to this .png or .svg file.")]
Durable = Annotated[bool, typer.Option("--durable", help="Wait for the disk at every commit (power failures).")]


@bench.command("strategies")
def strategies(
    contenders: Annotated[
        str, typer.Option("--strategies", metavar="A,B,...", help="Strategies, each STRATEGY or NAME=STRATEGY.")
    ],
    table: Annotated[Path, typer.Option(help="Table of recorded results (csv or csv.gz).")],
    space: Annotated[str, listed("space")] = "nasbench201",
    data: Annotated[str | None, typer.Option(help="Data set of the table [default: its first].")] = None,
    mapping: Annotated[str | None, typer.Option(help="What the table's columns hold, if not beside it.")] = None,
    scores: Annotated[Path | None, listed("scores")] = None,
    score_on: Annotated[str | None, listed("score_on")] = None,
    objective: Annotated[
        str, typer.Option(help="Metric, or METRIC:min.", autocompletion=complete.objectives)
    ] = "val_accuracy",
    constraint: Annotated[
        list[str] | None, typer.Option(help="Such as params<=5e5: only what satisfies it counts; repeat for several.")
    ] = None,
    queries: Annotated[int, typer.Option(help="Evaluations per search.")] = 100,
    seeds: Annotated[int, typer.Option(help="Searches per strategy.")] = 50,
    workers: Annotated[int, typer.Option(help="Asynchronous workers on a simulated clock.")] = 1,
    clock: Annotated[str | None, typer.Option(help="simulated: the table's recorded seconds pass.")] = None,
    setting: Annotated[list[str] | None, typer.Option("-s", help="NAME.KEY=VALUE of a strategy.")] = None,
    name: Annotated[str | None, typer.Option("--name", "--study", help="Name of the bench [default: made up].")] = None,
    jobs: Jobs = None,
    executor: Executor = AUTO,
    plot: Plot = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
    durable: Durable = False,
    as_json: Json = False,
) -> int:
    """Search with every strategy and seed, and rank them. The same command goes on with what is there."""
    from nas_core.config import parse_assignments
    from nas_core.errors import unknown
    from reports import files as pictures
    from studies.bench import plan

    if plot is not None:
        pictures.check("--plot", plot)
    where = _where(executor)
    if clock not in (None, "simulated"):
        raise unknown("clock", clock, ["simulated"])
    search = {
        "space": space,
        "table": str(table),
        "data": data,
        "mapping": mapping,
        "scores": None if scores is None else str(scores),
        "score_on": score_on,
        "objectives": [objective],
        "constraints": constraint or None,
    }
    wanted = plan.make(
        {key: value for key, value in search.items() if value is not None},
        [part.strip() for part in contenders.split(",") if part.strip()],
        parse_assignments(setting or []),
        queries=queries,
        seeds=seeds,
        workers=workers,
        simulated=clock is not None or workers > 1,
    )
    with open_store(db, files, create=True, durable=durable) as store:
        return _run(store, _bench(store, name, wanted), wanted, jobs, where, plot, durable, as_json)


@bench.command("resume")
def resume(
    name: Name,
    table: Annotated[str | None, typer.Option(help="The same table at another place.")] = None,
    jobs: Jobs = None,
    executor: Executor = AUTO,
    plot: Plot = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
    durable: Durable = False,
    as_json: Json = False,
) -> int:
    """Go on with a bench, however it stopped."""
    from reports import files as pictures
    from studies.bench.plan import Plan
    from studies.setup.assemble import moved

    if plot is not None:
        pictures.check("--plot", plot)
    where = _where(executor)
    with open_store(db, files, durable=durable) as store:
        found = store.bench(name)
        plan = Plan.model_validate(found.config)
        plan = plan.model_copy(update={"problem": moved(plan.problem, table)})
        return _run(store, found, plan, jobs, where, plot, durable, as_json)


@bench.command("show")
def show(
    name: Name,
    after: Annotated[int | None, typer.Option("--after", min=1, help="After this many queries [default: all].")] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="STRATEGY", help="Whom to test against [default: random].")
    ] = None,
    plot: Plot = None,
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Rank the strategies by what the database holds."""
    from nas_core.errors import UsageError
    from reports import files as pictures
    from studies.bench.plan import Plan

    if plot is not None:
        pictures.check("--plot", plot)
    with open_store(db, reading=True) as store:
        found = store.bench(name)
        plan = Plan.model_validate(found.config)
        if after is not None and after > plan.queries:
            raise UsageError(f"--after {after}: the searches of bench '{name}' have {plan.queries} queries")
        _print(store, found, plan.model_copy(update={"queries": after or plan.queries}), plot, as_json, against)


@bench.command("ls")
def ls(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """List the benches."""
    from nas_cli import render
    from studies.bench.plan import Plan
    from studies.bench.worker import finished

    documents: list[dict[str, Any]] = []
    with open_store(db, reading=True) as store:
        for name in store.bench_names():
            found = store.bench(name)
            plan = Plan.model_validate(found.config)
            documents.append(
                {
                    "bench": name,
                    "space": plan.problem.space_name,
                    "data": plan.problem.evaluator.facts.data,
                    "strategies": list(plan.contenders),
                    "queries": plan.queries,
                    "seeds": plan.seeds,
                    "finished": sum(finished(study) for study in store.studies_of(found)),
                    "searches": plan.seeds * len(plan.contenders),
                    "created": found.created,
                }
            )
    if as_json:
        render.document(documents)
        return
    if not documents:
        print("no benches yet; start one with 'nas bench strategies'", file=sys.stderr)
        return
    rows = [
        [
            one["bench"],
            one["space"],
            one["data"],
            one["queries"],
            one["seeds"],
            f"{one['finished']}/{one['searches']}",
            render.moment(one["created"]),
            ", ".join(one["strategies"]),
        ]
        for one in documents
    ]
    heads = ["bench", "space", "data", "queries", "seeds", "searches", "created", "strategies"]
    render.table(heads, rows, right=["queries", "seeds", "searches"])


def _where(executor: str) -> Where:
    """Raises UsageError for what cannot do the searches of a bench, before anything is stored."""
    from studies.executors.choose import pool_name

    where = Where(executor=executor)
    pool_name(where)
    return where


def _bench(store: Store, name: str | None, plan: Plan) -> Bench:
    """The bench of that name, or without one the bench of that configuration; a new one where there is none.

    Raises UsageError where the named one has another configuration.
    """
    from nas_core.errors import UsageError
    from nas_core.names import bench_name, stem
    from studies.bench.plan import Plan, differences

    if name is None:
        for other in store.bench_names():
            found = store.bench(other)
            if not differences(Plan.model_validate(found.config), plan):
                return found
        text = f"{plan.problem.space_name}-{plan.problem.evaluator.facts.data}"
        return store.create_numbered_bench(stem(text), plan.model_dump(mode="json"))
    try:
        bench_name(name)
    except ValueError as error:
        raise UsageError(f"--name '{name}': {error}") from None
    existing = store.find_bench(name)
    if existing is None:
        return store.create_bench(name, plan.model_dump(mode="json"))
    different = differences(Plan.model_validate(existing.config), plan)
    if different:
        raise UsageError(
            f"bench '{name}' exists with another configuration ({'; '.join(different)})\n"
            f"Choose another --name, or go on with the stored one: nas bench resume {name}"
        )
    return existing


def _run(
    store: Store,
    found: Bench,
    plan: Plan,
    jobs: int | None,
    where: Where,
    plot: Path | None,
    durable: bool,
    as_json: bool,
) -> int:
    from nas_cli.ending import places
    from nas_cli.live import Tally
    from nas_cli.signals import Stopper
    from studies.bench.run import run

    progress = Tally(found.name, "searches")
    with Stopper() as stopper:
        try:
            done = run(
                store,
                found,
                plan,
                jobs=jobs,
                where=where,
                durable=durable,
                stopping=stopper.stopping,
                listener=progress,
            )
        except KeyboardInterrupt:  # the second one: at once
            done = False
        finally:
            progress.end()
    if not done:
        print(f"nas: stopped; go on: nas bench resume {found.name}{places(store)}", file=sys.stderr)
        return stopper.code
    _print(store, found, plan, plot, as_json)
    return 0


def _print(
    store: Store, found: Bench, plan: Plan, plot: Path | None, as_json: bool, against: str | None = None
) -> None:
    from nas_cli import ranking, render
    from reports import files
    from reports.kinds.bench import figure
    from studies.bench.curves import load
    from studies.bench.standings import rank

    curves = load(store, found, plan)
    standings = rank(curves, plan, against)
    if plot is not None:
        files.write(plot, {"bench": figure(found.name, curves, plan, standings)}, found.name)
    if as_json:
        render.document(ranking.document(found.name, plan, standings))
    else:
        ranking.page(found.name, plan, standings)
    if plot is not None and not as_json:
        render.emit("", f"picture: {plot}")
