"""`nas`: the commands, and the one place where they start. Heavy imports happen inside the commands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

import typer

from nas_cli import (
    ask,
    bench,
    catalog,
    compress,
    compressors,
    dashboard,
    doctor,
    export,
    extract,
    generate,
    infer,
    init,
    mirror,
    packages,
    plot,
    predict,
    predictors,
    query,
    report,
    score,
    search,
    skill,
    tidy,
    train,
    worker,
)
from nas_cli.command import Commands
from nas_cli.errors import guarded
from nas_cli.search_options import with_options
from nas_cli.told import Told
from nas_core.errors import UsageError
from nas_core.plain import is_text
from training.reading import reading

app = Commands(
    name="nas",
    help="Neural architecture search: search, resume, query, retrain, compress, export.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", envvar="NAS_DEBUG", help="Show tracebacks.")] = False,
) -> None:
    """Neural architecture search from the command line. `nas search` alone starts a search on embedded data."""


app.command()(init.init)
app.command()(with_options(search.search))
app.command()(search.resume)
app.command()(worker.worker)
app.command()(with_options(ask.ask, ask.OPTIONS))
app.command()(ask.tell)
for command in (query.ls, query.show, query.trials, query.best, query.front, query.query, query.verify):
    app.command()(command)
app.command()(plot.plot)
app.command()(report.report)
app.command()(mirror.mirror)
app.command()(dashboard.dashboard)
app.command()(score.score)
app.command()(predict.predict)
app.command()(generate.generate)
app.command()(train.train)
app.command()(compress.compress)
app.command()(export.export)
app.command()(infer.infer)
app.command()(extract.extract)
app.command()(tidy.rm)
app.command()(tidy.gc)
app.command()(doctor.doctor)
app.command()(skill.skill)
app.add_typer(bench.bench, name="bench")
app.add_typer(catalog.spaces, name="spaces")
app.add_typer(catalog.strategies, name="strategies")
app.add_typer(predictors.predictors, name="predictors")
app.add_typer(compressors.compressors, name="compressors")
app.add_typer(catalog.data, name="data")


@cache
def parser() -> Any:
    """Made once: reading the signatures of all commands takes longer than many a command."""
    return typer.main.get_command(app)


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    debug = "--debug" in arguments or bool(os.environ.get("NAS_DEBUG"))
    plain = [argument for argument in arguments if argument != "--debug"]

    def work() -> object:
        packages.check()
        for argument in plain:
            if not is_text(argument):
                raise UsageError(f"{argument!r} is no UTF-8 text; rename what is called so, or go to where it is")
        with Told() as told, reading(told):
            return parser()(args=plain, prog_name="nas", standalone_mode=False)

    return guarded(work, debug=debug)
