"""`nas init`: a commented configuration file, or an example, to begin with."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

DISTRIBUTION, FOLDER = "nas-search", "examples"


def init(
    file: Annotated[
        Path | None,
        typer.Argument(help="Where it is written: search.yaml, or the example's own name.", show_default=False),
    ] = None,
    example: Annotated[
        str | None, typer.Option(help="Write this example instead, such as my_space; an unknown name lists them.")
    ] = None,
) -> None:
    """Write a configuration file for 'nas search FILE' with every key, what it means and its default, as comments."""
    from nas_cli.render import emit
    from nas_core.errors import UsageError
    from studies.setup.configuration import commented

    if example is None:
        file, content = file or Path("search.yaml"), commented()
    else:
        source = _example(example)
        # What it says of itself is said of a file in a folder of examples.
        file, content = file or Path(source.name), source.read_text(encoding="utf-8").replace(f"{FOLDER}/", "")
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(content)
    except FileExistsError:
        raise UsageError(f"'{file}' exists; name another file, or move it away") from None
    except OSError as error:
        raise UsageError(f"'{file}' cannot be written: {error.strerror or error}") from None
    emit(
        str(file),
        "",
        "next:",
        f"  nas search {file}" if example is None else f"  read {file}: its head says how to use it",
    )


def _example(name: str) -> Path:
    """The file of an example, by its name with or without an ending. Raises UsageError for an unknown one."""
    from nas_core.errors import unknown

    found = {path.stem: path for path in examples()}
    stem = Path(name).stem
    if stem not in found:
        raise unknown("example", name, sorted(found))
    return found[stem]


def examples() -> list[Path]:
    """The files of all examples: those that were installed, in a checkout those of the checkout."""
    checkout = Path(__file__).resolve().parents[1] / FOLDER
    if checkout.is_dir():
        return sorted(path for path in checkout.iterdir() if path.is_file())
    listed = metadata.files(DISTRIBUTION) or []
    return sorted(Path(str(file.locate())) for file in listed if file.parent.name == FOLDER and "share" in file.parts)
