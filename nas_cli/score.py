"""`nas score`: scores of predictors for many architectures, and how well they rank them."""

from __future__ import annotations

import math
import re
import shlex
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas_cli import complete
from nas_cli.errors import INTERRUPTED
from nas_cli.options import DEFAULT_DB, Db, Files, Json, open_store

if TYPE_CHECKING:
    from nas_core.architecture import Architecture
    from studies.analysis.correlation import Correlation, Estimate
    from studies.analysis.pool import Target
    from studies.analysis.score import Origin, Scoreboard
    from studies.store.store import Store

SAMPLE = 100  # architectures where none are named
_FROM_ENVIRONMENT = ("space", "size", "data", "scores", "device", "threads")


def score(
    proxies: Annotated[
        str, typer.Option("--proxies", metavar="A,B,...", help="Proxies and rankings, or 'all' (nas predictors list).")
    ] = "naswot,synflow,gradsign",
    space: Annotated[
        str | None, typer.Option(help="Search space: a name, or FILE.py:OBJECT.", autocompletion=complete.spaces)
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="search, full, or changes such as channels=8,cells=1.", autocompletion=complete.sizes),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Data reference; with --scores the name of its data set.", autocompletion=complete.data),
    ] = None,
    sample: Annotated[int | None, typer.Option(help=f"Draw so many architectures [default: {SAMPLE}].")] = None,
    architecture: Annotated[
        list[str] | None, typer.Option(help="An architecture: name, notation, or CHOICE=OPTION,...; repeat it.")
    ] = None,
    of: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY", help="The architectures and results of a study.", autocompletion=complete.studies
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample and of the intervals.")] = 0,
    batch: Annotated[int | None, typer.Option(help="Samples that a network is scored with [default: 64].")] = None,
    scores: Annotated[Path | None, typer.Option(help="Take recorded scores from this table.")] = None,
    table: Annotated[Path | None, typer.Option(help="Table of results to hold the scores against.")] = None,
    against: Annotated[str | None, typer.Option(metavar="METRIC", help="Metric or column of --table.")] = None,
    table_data: Annotated[str | None, typer.Option(help="Data set of --table [default: its first].")] = None,
    top: Annotated[int, typer.Option(min=0, help="How many of the best are shown.")] = 10,
    sort: Annotated[str | None, typer.Option(metavar="SCORE", help="Show the best by this score alone.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write ranks against ranks to this .png or .svg file.")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=complete.devices)
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    setting: Annotated[list[str] | None, typer.Option("-s", help="KEY=VALUE, e.g. split.limit=2000.")] = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
    as_json: Json = False,
) -> int:
    """Score architectures without training them. What the database holds is not computed again."""
    from nas_core.config import parse_assignments, validate
    from nas_core.errors import UsageError, unknown
    from reports import files as pictures
    from studies.analysis import pool
    from studies.analysis.score import ScoreConfig, columns, open_origin, study_config, with_results
    from studies.setup.configuration import environment

    if (table is None) != (against is None):
        raise UsageError("--table FILE and --against METRIC belong together")
    if plot is not None:
        pictures.check("--plot", plot)
        if table is None and of is None:
            raise UsageError("--plot needs results to hold the scores against: --table FILE --against METRIC, or --of")
    if of is not None and (sample is not None or architecture):
        raise UsageError("--of STUDY scores what the study has evaluated; leave out --sample and --architecture")
    names = _split(proxies)
    flags = {
        "space": space,
        "size": size,
        "data": data,
        "batch": batch,
        "scores": None if scores is None else str(scores),
        "device": device,
        "threads": threads,
    }
    given = {
        **({} if of is not None else environment(_FROM_ENVIRONMENT)),
        **parse_assignments(setting or []),
        **{key: value for key, value in flags.items() if value is not None},
    }
    with ExitStack() as stack:
        study = target = None
        if of is not None:
            store = stack.enter_context(open_store(db, files))
            study = store.study(of)
        config = validate(ScoreConfig, given if study is None else study_config(study, given), "scores")
        origin = open_origin(config)
        found = columns(origin.source, names)
        if sort is not None and sort not in found:
            raise unknown("score", sort, found)
        if study is not None:
            archs, target = pool.of_study(store, study)
        else:
            archs = _pool(origin, config.space, sample, architecture or [], seed)
        if table is not None and against is not None:
            target = pool.from_table(origin.space, archs, table, against, table_data, config.mapping)
        if target is not None:
            with_results(archs, target)
        if study is None:  # nothing is written before all options are known to fit
            store = stack.enter_context(open_store(db, files, create=True))
        return _run(store, origin, names, archs, target, seed, top, sort, plot, as_json)


def _run(
    store: Store,
    origin: Origin,
    names: list[str],
    archs: list[Architecture],
    target: Target | None,
    seed: int,
    top: int,
    sort: str | None,
    plot: Path | None,
    as_json: bool,
) -> int:
    from nas_cli import render
    from nas_cli.live import Tally
    from reports import files, scores
    from studies.analysis import score as scoring

    begun = time.perf_counter()
    tally = Tally(origin.space.name, "architectures scored")
    try:
        board = scoring.score(origin, names, archs, store, tally)
    except KeyboardInterrupt:
        print("nas: stopped; what was scored is kept, the same command goes on", file=sys.stderr)
        return INTERRUPTED
    finally:
        tally.end()
    correlations = {} if target is None else scoring.correlations(origin, board, target, seed)
    if plot is not None and target is not None:
        files.write(plot, {"scores": scores.figure(board, target, correlations)}, origin.space.name)
    if as_json:
        seconds = time.perf_counter() - begun
        render.document(_document(store, origin, board, target, correlations, seconds))
        return 0
    _page(store, origin, board, target, correlations)
    for name in [sort] if sort is not None else list(board.values):
        _best(origin, board, target, name, top, alone=sort is not None)
    if plot is not None:
        render.emit("", f"picture: {plot}")
    _where(store, board)
    return 0


def _split(proxies: str) -> list[str]:
    """Names separated by commas; a comma within settings separates nothing. Raises UsageError for none."""
    from nas_core.errors import UsageError

    names = [name.strip() for name in re.split(r",(?![^()]*\))", proxies) if name.strip()]
    if not names:
        raise UsageError("--proxies names none; see 'nas predictors list'")
    return list(dict.fromkeys(names))


def _pool(
    origin: Origin, space_name: str, sample: int | None, architectures: list[str], seed: int
) -> list[Architecture]:
    """The named architectures, then the drawn ones, each once."""
    from nas_cli.architecture import find
    from studies.analysis import pool

    found = [find(origin.space, space_name, text)[1] for text in architectures]
    if sample is not None or not found:
        size = SAMPLE if sample is None else sample
        found += pool.sample(origin.space, size, seed)
    return list({arch.key: arch for arch in found}.values())


def _page(
    store: Store, origin: Origin, board: Scoreboard, target: Target | None, correlations: dict[str, Correlation]
) -> None:
    from nas_cli import render

    where = dict(origin.source.context)
    data = f"{where['data']}, batch {where['batch']}" if where["from"] == "networks" else f"table {where['table']}"
    size = ", ".join(f"{key}={value}" for key, value in origin.size.model_dump().items())
    built = f" ({size})" if size and where["from"] == "networks" else ""
    render.emit(
        f"{len(board.archs):,} architectures of {origin.space.name}{built}, {data}; {board.computed:,} scored now"
    )
    if target is not None:
        known = sum(arch.key in target.values for arch in board.archs)
        less = ", less is better" if target.minimised else ""
        render.emit(f"against {target.metric}{less} ({target.source}), which {known:,} of them have")
    render.emit("")
    held = any(found.partial is not None and not math.isnan(found.partial.value) for found in correlations.values())
    heads = ["score", *(["Spearman", "Kendall"] if target else []), *(["Spearman given params"] if held else [])]
    rows = []
    for name in board.values:
        found = correlations.get(name)
        cells = [] if found is None else [_interval(found.spearman), _interval(found.kendall)]
        if held and found is not None:
            cells.append(_interval(found.partial))
        cost = board.milliseconds.get(name)
        took = None if cost is None else render.Rounded(cost, f"{cost:.1f}")
        reasons = "; ".join(f"{count} {reason}" for reason, count in board.reasons.get(name, {}).items())
        rows.append([name, *cells, took, board.worst(name), reasons])
    render.table([*heads, "ms", "worst", "why"], rows, right=["ms", "worst"])


def _interval(estimate: Estimate | None) -> str:
    if estimate is None or math.isnan(estimate.value):
        return "-"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _best(origin: Origin, board: Scoreboard, target: Target | None, name: str, top: int, *, alone: bool) -> None:
    from nas_cli import render
    from nas_cli.architecture import text_of

    best = board.best(name, top)
    if not best:
        return
    shown = [name, *(other for other in board.values if other != name and alone)]
    heads = [*shown, *([target.metric] if target else []), "architecture"]
    rows = []
    for index in best:
        arch = board.archs[index]
        numbers = [board.values[column][index] for column in shown]
        result = [] if target is None else [target.shown(arch.key)]
        rows.append([*numbers, *result, text_of(origin.space, arch)])
    render.emit("", f"best {len(best)} by {name}")
    render.table(heads, rows, right=heads[:-1])


def _where(store: Store, board: Scoreboard) -> None:
    from nas_cli import render
    from nas_cli.ending import database

    query = f"SELECT architecture, predictor, value, seconds FROM scores WHERE context = {board.context}"
    render.emit("", f"kept in {store.place}:", f"  nas query {shlex.quote(query)}{database(store)}")


def _document(
    store: Store,
    origin: Origin,
    board: Scoreboard,
    target: Target | None,
    correlations: dict[str, Correlation],
    seconds: float,
) -> dict[str, Any]:
    from dataclasses import asdict

    from nas_cli.architecture import text_of

    scores = []
    for name in board.values:
        found = correlations.get(name)
        scores.append(
            {
                "score": name,
                "spearman": None if found is None else asdict(found.spearman),
                "kendall": None if found is None else asdict(found.kendall),
                "given_params": None if found is None or found.partial is None else asdict(found.partial),
                "count": None if found is None else found.count,
                "milliseconds": board.milliseconds.get(name),
                "worst": board.worst(name),
                "reasons": board.reasons.get(name, {}),
            }
        )
    rows = [
        {
            "architecture": text_of(origin.space, arch),
            "key": arch.key,
            "scores": {name: values[index] for name, values in board.values.items()},
            "against": None if target is None else target.shown(arch.key),
        }
        for index, arch in enumerate(board.archs)
    ]
    return {
        "source": dict(origin.source.context),
        "space": origin.space.name,
        "size": origin.size.model_dump(mode="json"),
        "computed": board.computed,
        "seconds": seconds,
        "against": None
        if target is None
        else {"metric": target.metric, "source": target.source, "goal": "min" if target.minimised else "max"},
        "scores": scores,
        "architectures": rows,
        "database": store.place,
        "context": board.context,
    }
