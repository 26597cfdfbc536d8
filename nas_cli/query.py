"""The commands that read studies: `ls`, `show`, `trials`, `best`, `front`, `query`, `verify`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas_cli import complete
from nas_cli.options import DEFAULT_DB, Db, Files, Json, StudyName, open_store

if TYPE_CHECKING:
    from nas_core.records import Run
    from studies.documents import View
    from studies.records import Study
    from studies.store.store import Store

LOOKED_AT = 50  # trials that are listed where a person looks


def ls(db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """List the studies."""
    from nas_cli import render
    from nas_cli.listing import standing, summaries
    from studies.analysis.summary import document, objective

    found = summaries(db)
    if as_json:
        render.document([document(summary) for summary in found])
        return
    if not found:
        print("no studies yet; start one with 'nas search'", file=sys.stderr)
        return
    rows: list[list[render.Cell]] = []
    for summary in found:
        goal = objective(summary.objective)
        best = "" if summary.best is None else f"{goal.metric} {render.number(goal.orient(summary.best))}"
        data = summary.data if summary.evaluator == "train" else f"{summary.data} ({summary.evaluator})"
        failures = summary.states.get("failed", 0)
        created = render.moment(summary.created)
        rows.append([summary.name, summary.space, summary.strategy, data, standing(summary), best, failures, created])
    heads = ["study", "space", "strategy", "data", "evaluated", "best", "failures", "created"]
    render.table(heads, rows, right=["evaluated", "failures"], spare=["created", "failures", "data"])


def show(
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDY[:N[/train-K]]]",
            autocompletion=complete.studies,
            help="A study, its trial number N, or a training of it.",
            show_default=False,
        ),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(metavar="SPACE:NAME", help="A published architecture, or SPACE:TEXT in its notation.")
    ] = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Of a trial: measure its network at the study's final size, now.")
    ] = False,
    db: Db = DEFAULT_DB,
    files: Files = None,
    as_json: Json = False,
) -> None:
    """Show a study, all of one trial, one training or compression of it (STUDY:N/train-K, STUDY:N/compress-K), a
    supernet (STUDY/supernet), what was generated (STUDY/generator-1), or an architecture."""
    from nas_cli import baselines_view, costs_view, render, supernet_view, view
    from nas_core.errors import InfeasibleError, NotFoundError, UsageError
    from nas_core.records import GENERATOR, SUPERNET
    from studies import documents
    from studies.address import Address, parse
    from studies.analysis.baselines import compared
    from studies.analysis.queries import best_trial, rejections, state_counts, subject_of
    from studies.documents import View

    if address is None and architecture is None:
        raise UsageError("nothing to show; name a study or trial, STUDY[:N], or --architecture SPACE:NAME")
    if address is not None and architecture is not None:
        raise UsageError(f"'{address}' and --architecture exclude each other; give one of them")
    if architecture is not None:
        from nas_cli import architecture as page

        page.show(architecture, as_json)
        return
    assert address is not None
    place = parse(address)
    if latency and (place.subject == place.study or place.kind is not None):
        raise UsageError(f"--latency measures the network of a trial; name one, {place.study}:N")
    with open_store(db, files, reading=True) as store:
        study = store.study(place.study)
        seen = View.of(study)
        if place.kind == SUPERNET:
            supernet_view.show(seen, store, as_json)
            return
        if place.kind == GENERATOR:
            from nas_cli import generate
            from studies.analysis.generated import addressed

            generate.show(str(place), addressed(store, place)[1], as_json)
            return
        if place.kind is not None:
            from nas_cli import training_view

            training_view.show(seen, store, place, as_json)
            return
        if place.trial is not None or place.baseline is not None:
            run = subject_of(store, study, place)
            measured = {"latency": costs_view.latency(study, run)} if latency else {}
            if as_json:
                render.document({**documents.full_document(seen, store, run), **measured})
            else:
                view.trial_page(seen, store, run)
                for found in measured.values():
                    costs_view.latency_page(found)
            return
        try:
            best, trouble = best_trial(store, study), ""
        except (InfeasibleError, NotFoundError) as error:
            best, trouble = None, str(error)
        states = state_counts(store, study)
        known = compared(store, study, best, seen.objectives)
        correlation, rejected = documents.rank_correlation(store, study), rejections(store, study, states)
        trained = supernet_view.Trained.of(seen, store)
        drawn = [str(Address(study.name, kind=GENERATOR, number=run.number)) for run in store.runs(study, GENERATOR)]
        working = documents.workers(store, study)
        if as_json:
            document = documents.study_document(seen, states, best, correlation, rejected, known)
            document |= {"generated": drawn} if drawn else {}
            document |= {"workers": working} if working else {}
            render.document(document if trained is None else {**document, "supernet": trained.document()})
            return
        view.study_head(seen, states, correlation, rejected)
        if trained is not None:
            trained.page()
        view.study_best(seen, store, best, trouble, drawn=None if trained is None else trained.derived)
        baselines_view.table(seen, [run for run, _ in known])
        baselines_view.comparisons(known)
        if drawn:
            render.emit("", f"generated: {', '.join(drawn)}")
        if working:
            render.emit("")
            rows = [list(one.values()) for one in working]
            render.table(["worker", "works on", "for seconds", "silent for"], rows, right=["for seconds", "silent for"])


def trials(
    study: StudyName,
    sort: Annotated[
        str,
        typer.Option(
            help="number, seconds or a metric (an objective: best first); -KEY turns the order round.",
            autocompletion=complete.sort_keys,
        ),
    ] = "number",
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help=f"Show this many [default: {LOOKED_AT} on a terminal, else all]."),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(help="Only complete, failed, rejected, reused, ... ones.", autocompletion=complete.states),
    ] = None,
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """List the trials of a study."""
    from nas_cli import render
    from nas_core.errors import unknown
    from nas_core.strategy import State
    from studies.analysis import listing
    from studies.analysis.queries import before_trials
    from studies.documents import View, trial_document

    if state is not None and state not in set(State):
        raise unknown("state", state, [str(known) for known in State])
    wanted = None if state is None else State(state)
    with open_store(db, reading=True) as store:
        seen = View.of(_study(store, study))
        first = limit or (None if as_json or not render.for_people() else LOOKED_AT)
        found = listing.listed(store, seen.study, seen.objectives, sort=sort, limit=first, state=wanted)
        if as_json:
            render.document(trial_document(seen, run) for run in found.runs)
            return
        if seen.study.spec.supernet is not None and not listing.count(store, seen.study):
            print(render.clean(before_trials(store, seen.study)), file=sys.stderr)
            return
        transfers = ["begins with"] * listing.any_transfers(store, seen.study)
        columns = ["state", *["budget"] * found.budgets, *transfers, "seconds", *["reason"] * found.reasons]
        _table(seen, found.runs, columns)
        total = listing.count(store, seen.study, wanted) if first is not None and limit is None else 0
    if total > LOOKED_AT:
        print(f"the first {first} of {total:,} trials: see more by --limit, all of them by '| less'", file=sys.stderr)


def best(study: StudyName, db: Db = DEFAULT_DB, as_json: Json = False) -> None:
    """Show the best feasible trial; of several objectives the best at each (all that are worth a look: nas front)."""
    from nas_cli import baselines_view, render
    from nas_cli.view import best_page
    from studies.analysis.baselines import compared
    from studies.analysis.queries import best_trials
    from studies.documents import View, baselines_document, trial_document

    with open_store(db, reading=True) as store:
        seen = View.of(_study(store, study))
        leading = best_trials(store, seen.study)
        (_, first), *others = leading.items()
        known = compared(store, seen.study, first, seen.objectives)
        if as_json:
            beside = {"baselines": baselines_document(seen, known)} if known else {}
            render.document({**trial_document(seen, first), **beside})
            return
        best_page(seen, store, first)
        for metric, run in others:
            render.emit("")
            best_page(seen, store, run, at=metric)
        baselines_view.comparisons(known)


def front(
    study: StudyName,
    reference: Annotated[
        str | None,
        typer.Option(metavar="METRIC=VALUE,...", help="Add the hypervolume above this point, one value per objective."),
    ] = None,
    compressed: Annotated[
        bool, typer.Option("--compressed", help="The front of the trained and the compressed networks instead.")
    ] = False,
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Show the Pareto front of the feasible trials."""
    if compressed:
        _compressed_front(study, reference, db, as_json)
        return
    from nas_cli import baselines_view, render
    from nas_cli.view import reference_point, volume_page
    from nas_core.records import BASELINE
    from studies.analysis.queries import front_trials
    from studies.documents import View, front_document, trial_document

    with open_store(db, reading=True) as store:
        seen = View.of(_study(store, study))
        point = None if reference is None else reference_point(reference, seen.objectives)
        runs, known = front_trials(store, seen.study), store.runs(seen.study, BASELINE)
    if as_json:
        documents = [trial_document(seen, run) for run in runs]
        render.document(documents if point is None else front_document(seen, runs, point, known))
        return
    _table(seen, runs, ())
    baselines_view.table(seen, known)
    if point is not None:
        volume_page(seen, runs, point)


def _compressed_front(study: str, reference: str | None, db: str, as_json: bool) -> None:
    """Raises UsageError where a hypervolume is asked for too."""
    from nas_cli import render
    from nas_core.errors import UsageError
    from studies.address import address_of
    from studies.analysis import compressed
    from studies.documents import View, training_document

    if reference is not None:
        raise UsageError("--reference is of the front of the trials; leave it out, or leave --compressed out")
    with open_store(db, reading=True) as store:
        found = _study(store, study)
        networks = compressed.front(store, found)
        if as_json:
            view = View.of(found)
            render.document([training_document(view, store, one.trial, one.run) for one in networks])
            return
    names = [axis.metric for axis in compressed.axes(found)]
    rows = [
        [
            address_of(found, one.trial, one.run),
            *(one.run.metrics[name] for name in names),
            one.run.metrics.get("params"),
            (one.run.recipe or {}).get("method", ""),
            ", ".join((one.run.recipe or {}).get("targets", ())),
        ]
        for one in networks
    ]
    render.table(["network", *names, "params", "method", "targets"], rows, right=[*names, "params"])


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A SELECT; see the views trials and trials_flat.")],
    format: Annotated[
        str | None, typer.Option("--format", help="csv or parquet instead of a table.", autocompletion=complete.sheets)
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write this file: .csv or .parquet.")] = None,
    db: Db = DEFAULT_DB,
    as_json: Json = False,
) -> None:
    """Ask the database in SQL; nothing is changed."""
    from nas_cli import render, sheets
    from nas_core.errors import UsageError

    kind = sheets.check(format, out)
    if kind is not None and as_json:
        raise UsageError(f"--json is a format, and so is {kind}; ask for one of them")
    with open_store(db, reading=True) as store, store.asked(sql) as (columns, rows):
        if kind is not None:
            _sheet(kind, out, _distinct(columns), rows)
            return
        if as_json:
            names = _distinct(columns)
            render.document(dict(zip(names, row, strict=True)) for row in rows)
            return
        numeric: list[str] = []
        if render.for_people():
            rows = list(rows)
            aligned = (all(isinstance(value, int | float | None) for value in one) for one in zip(*rows, strict=True))
            numeric = [name for name, is_number in zip(columns, aligned, strict=False) if is_number]
        render.table(columns, (["" if value is None else str(value) for value in row] for row in rows), right=numeric)


def _sheet(kind: str, out: Path | None, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a file, or CSV on stdout. Raises MachineError."""
    from nas_cli import output, render, sheets

    if out is None:
        for piece in sheets.lines(columns, rows):
            output.write(piece)
        return
    from nas_core.files import write_atomically

    content = sheets.parquet(columns, rows) if kind == sheets.PARQUET else "".join(sheets.lines(columns, rows)).encode()
    write_atomically(out, content)
    render.emit(f"table: {out}")


def verify(
    study: StudyName,
    data: Annotated[str | None, typer.Option(help="The same data or table at another place.")] = None,
    costs: Annotated[str | None, typer.Option(help="The same table of costs at another place.")] = None,
    scores: Annotated[str | None, typer.Option(help="The same table of scores at another place.")] = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
    as_json: Json = False,
) -> None:
    """Repeat a study's decisions and compare.

    Every ask is repeated with the outcomes it had seen; verdicts, tables and files are compared with the record.
    """
    from nas_cli import render
    from nas_core.errors import VerificationError
    from studies.analysis import verify as verification
    from studies.analysis.queries import state_counts
    from studies.setup.assemble import build, moved

    with open_store(db, files, reading=True) as store:
        found = _study(store, study)
        asks = sum(state_counts(store, found).values())
        findings = list(verification.verify(store, found, build(moved(found.spec, data, costs, scores))))
    if as_json:
        render.document({"study": study, "ok": not findings, "asks": asks, "findings": findings})
    if findings:
        if not as_json:
            print(*(render.clean(finding) for finding in findings), sep="\n", file=sys.stderr)
        raise VerificationError(f"study '{study}' is not what its record makes it: {len(findings)} findings")
    if not as_json:
        render.emit(f"ok: {asks:,} asks repeated, each gives the stored proposal; verdicts and files are as stored")


def _study(store: Store, name: str) -> Study:
    """Raises UsageError for the address of a trial, NotFoundError with the nearest name."""
    from nas_core.errors import UsageError
    from studies.address import parse_trial

    study, number = parse_trial(name)
    if number is not None:
        raise UsageError(f"'{name}' is one trial; name the study, '{study}', or look at the trial: nas show {name}")
    return store.study(study)


def _table(view: View, runs: Iterable[Run], columns: Sequence[str]) -> None:
    """Trials as rows: address, objectives and constrained metrics, the given columns, and the architecture."""
    from nas_cli import render

    bounds = [text.replace(">=", "<=").partition("<=")[0] for text in view.study.spec.constraints]
    names = list(dict.fromkeys([*(objective.metric for objective in view.objectives), *bounds]))

    def row(run: Run) -> list[render.Cell]:
        values = {**run.metrics, **view.values(run)}
        cells: dict[str, render.Cell] = {
            "state": str(run.state),
            "budget": run.proposal.budget,
            "begins with": "" if run.proposal.transfer is None else f"{view.study.name}:{run.proposal.transfer}",
            "seconds": run.verdict.seconds,
            "reason": run.verdict.reason or "",
        }
        architecture = view.notation(run.arch) or run.arch.key
        return [view.address(run), *map(values.get, names), *(cells[column] for column in columns), architecture]

    heads = ["trial", *names, *columns, "architecture"]
    render.table(heads, map(row, runs), right=[*names, "budget", "seconds"])


def _distinct(columns: list[str]) -> list[str]:
    """Column names as keys: a repeated one gets a number."""
    seen: Counter[str] = Counter()
    names = []
    for name in columns:
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names
