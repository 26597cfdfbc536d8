"""`nas ask` and `nas tell`: a trainer of the user's own evaluates what a strategy proposes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas_cli import complete
from nas_cli.options import DEFAULT_DB, Db, Files, Json, open_store

if TYPE_CHECKING:
    from studies.search.start import Opened
    from studies.store.store import Store


OPTIONS = tuple(
    name
    for names in (
        "space size final_size strategy data objective constraint",
        "epochs early_stop seed lag trials device",
    )
    for name in names.split()
)
"""What a study whose results are told can be asked for, by the names in `studies.setup.options`."""


def ask(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Its name.", autocompletion=complete.studies)],
    metric: Annotated[list[str] | None, typer.Option(help="METRIC:max or METRIC:min that is told too.")] = None,
    setting: Annotated[list[str] | None, typer.Option("-s", help="KEY=VALUE, e.g. strategy.population=20.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Show so many of the open trials at most.")] = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
    as_json: Json = False,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Show the trials that wait for a result, which is said by 'nas tell'; the first time options make the study."""
    from nas_cli import render
    from studies.documents import View, asked_document
    from studies.search import asking

    making = metric or setting or any(value not in (None, []) for name, value in options.items() if name != "trials")
    with open_store(db, files, create=bool(making)) as store:
        if making:
            opened = _made(store, {**options, "metric": metric, "study": study}, setting or [])
        else:
            opened = _known(store, study, options["trials"])
        jobs, ending = asking.ask(store, opened)
        view = View.of(opened.study)
    found = [asked_document(view, job) for job in jobs[:count]]
    if as_json:
        render.document(found)
    elif found:
        rows = [
            [
                one["address"],
                one["step"],
                "" if one["continues"] is None else f"{study}:{one['continues']}",
                one["key"],
                one["notation"] or ", ".join(f"{name}={value}" for name, value in one["architecture"].items()),
            ]
            for one in found
        ]
        render.table(["trial", "steps", "continues", "key", "architecture"], rows, right=["steps"])
    if not found:
        print(f"study {study}: {ending}", file=sys.stderr)
    return 0


def tell(
    address: Annotated[str, typer.Argument(metavar="STUDY:N", help="A trial.", autocompletion=complete.studies)],
    metrics: Annotated[list[str] | None, typer.Argument(metavar="METRIC=VALUE...", help="What it came to.")] = None,
    failed: Annotated[str | None, typer.Option(metavar="REASON", help="It has failed, and why.")] = None,
    step: Annotated[float | None, typer.Option(help="The metrics are those of a step before the last.")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="That the evaluation took.")] = 0.0,
    db: Db = DEFAULT_DB,
    files: Files = None,
    as_json: Json = False,
) -> None:
    """Say what came of a trial that 'nas ask' has shown."""
    from nas_cli import render
    from nas_core.errors import UsageError
    from studies.address import parse_trial
    from studies.documents import View, trial_document
    from studies.search import asking, start

    name, number = parse_trial(address)
    if number is None:
        raise UsageError(f"'{address}' is no trial; write {address}:NUMBER, as 'nas ask {address}' shows it")
    told = _assigned(metrics or [])
    if failed is not None and (told or step is not None):
        raise UsageError(f"--failed and {next(iter(told), '--step')}: a trial that has failed has no metrics")
    with open_store(db, files) as store:
        opened = start.resume(store, name)
        if failed is not None:
            run = asking.fail(store, opened, number, failed)
        elif step is not None:
            run = asking.report(store, opened, number, step, told)
        else:
            run = asking.tell(store, opened, number, told, seconds)
        found = trial_document(View.of(opened.study), run)
    if as_json:
        render.document(found)
        return
    values = ", ".join(f"{metric} {render.number(value)}" for metric, value in found["values"].items())
    render.emit(f"{found['address']}: {': '.join(filter(None, (found['state'], values or found['reason'])))}")


def _made(store: Store, options: Mapping[str, Any], settings: list[str]) -> Opened:
    from studies.search import start
    from studies.setup.configuration import asked_by, gather

    wanted = gather(None, settings, asked_by({**options, "evaluator": "told"}))
    return start.start(store, start.planned(wanted))


def _known(store: Store, study: str, trials: int | None) -> Opened:
    from nas_core.errors import NotFoundError
    from studies.search import start

    try:
        return start.resume(store, study, trials=trials)
    except NotFoundError as error:
        raise NotFoundError(f"{error}\nTo make one: nas ask {study} --space NAME --objective METRIC:max") from None


def _assigned(texts: list[str]) -> dict[str, str]:
    """Raises UsageError for what is no `METRIC=VALUE`, or said twice."""
    from nas_core.errors import UsageError

    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise UsageError(f"'{text}' is no METRIC=VALUE, as in val_accuracy=0.93")
        if name in found:
            raise UsageError(f"metric '{name}' is said twice: {found[name]} and {value}")
        found[name] = value
    return found
