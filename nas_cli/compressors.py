"""What there is to make networks smaller with: `nas compressors list|show|check`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nas_cli import complete
from nas_cli.command import Commands
from nas_cli.options import Json

compressors = Commands(help="Compression methods.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[
    str,
    typer.Argument(
        metavar="METHOD", help="A name, FILE.py:CLASS or PACKAGE.MODULE:CLASS.", autocompletion=complete.compressors
    ),
]


@compressors.command("list")
def list_compressors(as_json: Json = False) -> None:
    """List them: built in and from packages."""
    import compressors as package
    from nas_cli import render
    from nas_core import refs
    from nas_core.errors import NasError

    found: list[dict[str, Any]] = []
    for name in refs.names(package.BUILTIN, package.GROUP):
        try:
            found.append({"name": name, **_facts(name)})
        except (NasError, ImportError) as error:  # an installed package may be broken; the others are listed
            found.append({"name": name, "trouble": str(error)})
    if as_json:
        render.document(found)
        return
    rows = [
        [
            fact["name"],
            ", ".join(fact.get("needs", ())),
            ", ".join(fact.get("settings", ())),
            fact.get("what") or f"cannot be loaded: {fact['trouble']}",
        ]
        for fact in found
    ]
    render.table(["method", "needs", "settings", "what"], rows)


@compressors.command("show")
def show_compressor(method: Name, as_json: Json = False) -> None:
    """Show what it does, its paper, and its settings."""
    import shlex

    from compressors.compressor import NEEDS
    from compressors.methods import method as loaded
    from nas_cli import describe, render

    found = loaded(method)
    fields = describe.fields(found.Config)
    if as_json:
        render.document({"name": method, **_facts(method), "what": describe.text(found), "settings": fields})
        return
    render.emit(describe.text(found), "")
    render.pairs({"needs": ", ".join(f"{name} ({NEEDS[name]})" for name in found.needs) or "nothing"})
    render.emit("")
    if not fields:
        render.emit("it has no settings")
    else:
        rows = [[f["name"], "required" if f["required"] else str(f["default"]), f["type"], f["what"]] for f in fields]
        render.table(["setting", "default", "values", "what"], rows, right=["default"])
    first = next((field for field in fields if not field["required"]), None)
    setting = f" -s {first['name']}={first['default']}" if first else ""
    render.emit("", f"compress by: nas compress STUDY:NUMBER --method {shlex.quote(method)}{setting}")


@compressors.command("check")
def check_compressor(method: Name, as_json: Json = False) -> None:
    """Run the contract suite on small networks; say what to fix."""
    from compressors import testing
    from compressors.methods import method as loaded
    from nas_cli import describe
    from nas_cli.catalog import report

    with describe.foreign_code("compression method", method):
        report("compression method", method, testing.check(loaded(method)), as_json)


def _facts(name: str) -> dict[str, Any]:
    from compressors.methods import method
    from nas_cli import describe

    found = method(name)
    return {
        "needs": list(found.needs),
        "settings": [field["name"] for field in describe.fields(found.Config)],
        "what": describe.line(found),
    }
