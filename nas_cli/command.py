"""What all commands have in common: their stdout holds data alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

from nas_cli.output import diverted


class Command(TyperCommand):
    """A command during which user code cannot print into the data."""

    def invoke(self, ctx: Any) -> Any:
        with diverted():
            return super().invoke(ctx)


class Commands(typer.Typer):
    """A group of such commands."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        return super().command(name, **{"cls": Command, **options})
