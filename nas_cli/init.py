"""`nas init`: a commented configuration file to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(file: Annotated[Path, typer.Argument(help="Where it is written.")] = Path("search.yaml")) -> None:
    """Write a configuration file for 'nas search FILE' with every key, what it means and its default, as comments."""
    from nas_cli.render import emit
    from nas_core.errors import UsageError
    from studies.setup.configuration import commented

    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(commented())
    except FileExistsError:
        raise UsageError(f"'{file}' exists; name another file, or move it away") from None
    except OSError as error:
        raise UsageError(f"'{file}' cannot be written: {error.strerror or error}") from None
    emit(str(file), "", "next:", f"  nas search {file}")
