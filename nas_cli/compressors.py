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
    from nas_cli import describe, render
    from nas_core import refs

    found = describe.each(refs.names(package.BUILTIN, package.GROUP), _facts)
    if as_json:
        render.document(found)
        return
    rows = [
        [
            fact["name"],
            ", ".join(fact.get("needs", ())),
            ", ".join(fact.get("settings", ())),
            describe.what(fact),
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
    first = describe.settings_page(fields)
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
