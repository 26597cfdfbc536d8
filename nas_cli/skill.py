"""`nas skill`: one short page of what the commands do, for those who drive them without a manual at hand."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from nas_core import errors

DESCRIPTION = (
    "Searches neural network architectures from the command line (evolution, reinforcement learning, one-shot,"
    " zero-cost proxies; images, tables, texts, graphs), trains, compresses and exports what it finds. Use it to find a"
    " better network for a data set under limits, or to compare search methods."
)
SESSION = (
    ("nas data check digits", "is the data as it should be?"),
    ("nas search --study first --data digits --trials 20 --constraint params<=2e5 --json", "search within a limit"),
    ("nas resume first --trials 40", "go on, also after a crash"),
    ("nas best first --json", "the best trial, and what it is better than"),
    ("nas train first --seeds 3", "train it in full; the test part is scored"),
    ("nas compress first --method magnitude --target macs<=0.65x", "make it smaller"),
    ("nas export first --format onnx --out export", "files that run without nas"),
    ("nas infer export photograph.png --json", "what the exported network says of a file"),
)
FACTS = (
    "Data goes to stdout, progress and warnings to stderr. Where stdout is no terminal, listings are tab-separated"
    " values; `--json` prints one JSON document.",
    "A trial is STUDY:N, a training of it STUDY:N/train-K; STUDY alone is its best trial.",
    "Everything is stored before it is shown, in `--db URL` or $NAS_DB (default: nas.db here). After a crash or a kill,"
    " `nas resume STUDY` goes on with the same search.",
    "`nas COMMAND --help` explains every option; a wrong value is answered with what to write instead.",
    "`nas init search.yaml` writes a commented configuration with every key; `-s KEY=VALUE` sets one.",
)


def skill(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option(help="File to write it to, such as SKILL.md [default: stdout].")] = None,
) -> None:
    """Print a short page of what all commands do, for agents and scripts."""
    from nas_cli.render import emit
    from nas_core.errors import UsageError

    text = page(context.find_root())
    if out is None:
        emit(text)
        return
    try:
        out.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{out}' cannot be written: {error.strerror or error}") from None
    emit(str(out))


def page(root: Any) -> str:
    """In Markdown, with a head as the folders of such pages have it; `root` is the context of the program."""
    session = [f"{_quoted(command)}  # {what}" for command, what in SESSION]
    head = ["---", "name: nas", f"description: {DESCRIPTION}", "---", "", "# nas", ""]
    parts = [
        *head,
        *(f"- {fact}" for fact in FACTS),
        *("", "## A session", "", "```sh", *session, "```", "", "## Commands", ""),
        *(f"- {line}" for line in _commands(root.command, root)),
        *("", "## Exit codes", "", _codes()),
    ]
    return "\n".join(parts)


def _quoted(command: str) -> str:
    return shlex.join(shlex.split(command))


def _commands(command: Any, context: Any) -> Iterator[str]:
    """A line for each command that does something: how it is called, what it does, its options."""
    inner = getattr(command, "commands", None)
    if inner is not None:
        for name, child in inner.items():
            if not child.hidden:
                yield from _commands(child, type(context)(child, parent=context, info_name=name))
        return
    arguments = [piece for each in command.params for piece in each.get_usage_pieces(context)]
    options = [max(each.opts, key=len) for each in command.params if each.param_type_name == "option"]
    called = " ".join([context.command_path, *arguments])
    does = " ".join((command.help or "").partition("\n\n")[0].split())
    yield f"`{called}`: {does}" + (f" Options: {' '.join(options)}" if options else "")


def _codes() -> str:
    kinds: dict[int, type] = {}
    for kind in filter(_is_error, vars(errors).values()):
        kinds.setdefault(kind.exit_code, kind)  # the first is the general one
    said = [f"{code}: {(kinds[code].__doc__ or '').partition(chr(10))[0]}" for code in sorted(kinds)]
    return " ".join(["0: done.", *said, "130: interrupted; `nas resume` goes on."])


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, errors.NasError)
