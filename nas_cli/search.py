"""`nas search` and `nas resume`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas_cli import complete
from nas_cli.options import DEFAULT_DB, Db, Files, Json, StudyName, open_store
from nas_cli.search_options import Executor, GpuMemory, PerGpu
from studies.executors.where import AUTO, Where

if TYPE_CHECKING:
    from nas_cli.run import Beside
    from studies.search.start import Planned
    from studies.setup.config import SearchConfig

Durable = Annotated[bool, typer.Option("--durable", help="Wait for the disk at every commit (power failures).")]
Trials = Annotated[int | None, typer.Option("--trials", "-n", help="Stop after this many evaluations.")]
Time = Annotated[float | None, typer.Option("--time", help="Stop after this many seconds.")]
Spend = Annotated[float | None, typer.Option("--spend", help="Stop when budgets come to this many full evaluations.")]
Notify = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND",
        help="Shell command to run at a new best, a failure and the end; $NAS_MESSAGE says what happened.",
    ),
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PROGRAM:PLACE",
        help="Show what is stored in tensorboard:DIR, mlflow:URI or wandb:PROJECT too; may be repeated.",
    ),
]


def search(
    config: Annotated[Path | None, typer.Argument(help="YAML file with the keys that 'nas init' writes.")] = None,
    then: Annotated[
        str | None,
        typer.Option(
            metavar="STRATEGY",
            help="Search on the trained supernet with this strategy.",
            autocompletion=complete.strategies,
        ),
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="Learn from another study's results.", autocompletion=complete.studies),
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option("--print-config", help="Print the resolved configuration as a YAML file, and search nothing."),
    ] = False,
    setting: Annotated[list[str] | None, typer.Option("-s", help="KEY=VALUE, e.g. strategy.population=20.")] = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
    durable: Durable = False,
    notify: Notify = None,
    track: Track = None,
    as_json: Json = False,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Search for an architecture. Without arguments: a real search on embedded data, in under two minutes."""
    from nas_core.errors import UsageError
    from studies.setup.configuration import asked_by, gather

    wanted, beside = gather(config, setting or [], asked_by(options)), _beside(notify, track)
    if print_config:
        for option, given in (("--then", then), ("--warm-start", warm_start), ("--notify", notify), ("--track", track)):
            if given:
                raise UsageError(f"--print-config prints one search, and no file holds {option}; leave it out")
        return _print(_planned(wanted, db, files), as_json)
    if then is not None:
        return _both(wanted, then, db, files, durable, as_json, beside)
    plan = _planned(wanted, db, files, warm_start)
    return _run(plan, db, files, durable, as_json, beside)


def resume(
    study: StudyName,
    trials: Trials = None,
    time: Time = None,
    spend: Spend = None,
    workers: Annotated[int, typer.Option(min=1, help="Candidates evaluated at a time; the study stays the same.")] = 1,
    executor: Executor = AUTO,
    per_gpu: PerGpu = None,
    gpu_memory: GpuMemory = None,
    data: Annotated[str | None, typer.Option(help="The same data or table at another place.")] = None,
    costs: Annotated[str | None, typer.Option(help="The same table of costs at another place.")] = None,
    scores: Annotated[str | None, typer.Option(help="The same table of scores at another place.")] = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
    durable: Durable = False,
    notify: Notify = None,
    track: Track = None,
    as_json: Json = False,
) -> int:
    """Go on with a study, however it stopped. --trials, --time and --spend raise its budget."""
    from nas_cli.run import run
    from studies.search import start

    places = {"data": data, "costs": costs, "scores": scores}
    where = Where(workers, executor, per_gpu, gpu_memory)
    with open_store(db, files, durable=durable) as store:
        opened = start.resume(store, study, trials=trials, time=time, spend=spend, **places)
        return run(store, opened, where, as_json, beside=_beside(notify, track))


def _beside(notify: str | None, track: list[str] | None) -> Beside:
    from nas_cli.run import Beside

    return Beside(notify, tuple(track or ()))


def _print(plan: Planned, as_json: bool) -> int:
    """The configuration as a file for 'nas search FILE'; YAML reads JSON too."""
    import yaml

    from nas_cli import render
    from studies.setup.configuration import document

    found = document(plan.config, plan.spec)
    if as_json:
        render.document(found)
    else:
        render.emit(yaml.safe_dump(found, sort_keys=False).rstrip())
    return 0


def _planned(wanted: SearchConfig, db: str, files: Path | None, warm_start: str | None = None) -> Planned:
    """The search as it was asked for; the database is read only where other studies have a part in it."""
    from studies.search.start import planned

    if warm_start is None and wanted.evaluator.supernet is None:
        return planned(wanted)
    with open_store(db, files, reading=True) as store:
        return planned(wanted, store, warm_start)


def _run(plan: Planned, db: str, files: Path | None, durable: bool, as_json: bool, beside: Beside) -> int:
    from nas_cli.run import run
    from studies.search.start import start

    with open_store(db, files, create=True, durable=durable) as store:
        return run(store, start(store, plan), plan.config.where, as_json, beside=beside)


def _both(
    wanted: SearchConfig, then: str, db: str, files: Path | None, durable: bool, as_json: bool, beside: Beside
) -> int:
    """Train a supernet in one study, and search on it with another strategy in a second one. Called again, it goes on
    where it was."""
    from nas_cli.run import run
    from studies.search.start import on_supernet, planned, start, supernet_first

    plan = planned(supernet_first(wanted, then))
    with open_store(db, files, create=True, durable=durable) as store:
        opened = start(store, plan)
        code = run(store, opened, wanted.where, as_json, beside=beside, first=True)
        if code:
            return code
        second = start(store, planned(on_supernet(wanted, then, opened.study), store))
        return run(store, second, wanted.where, as_json, beside=beside)
