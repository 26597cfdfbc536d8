"""A page as one HTML file that needs nothing beside it. What it says is escaped in one place: the template."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from reports.pages.blocks import Block, Page, Picture
from reports.texts import Cell, shown

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup


def written(page: Page, made: str) -> str:
    """The file. `made` says by what it was made, and when."""
    return str(environment().get_template("report.html").render(page=page, made=made, ways=Alone()))


class Alone:
    """How blocks are shown in a file of its own: pictures are in it, and no cell leads anywhere."""

    def __init__(self) -> None:
        self._drawn = 0

    def picture(self, block: Picture) -> Markup:
        from markupsafe import Markup

        from reports.pages.pictures import drawn

        self._drawn += 1
        return Markup(drawn(block.figure, f"p{self._drawn}"))

    def link(self, cell: Cell) -> None:
        return None


@cache
def environment() -> jinja2.Environment:
    """The templates of this package; what they are given is escaped unless it is markup."""
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in ("reports.pages", "reports.dashboard")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    given: dict[str, Any] = {"shown": shown, "kind_of": kind_of}
    found.globals |= given
    return found


def kind_of(block: Block) -> str:
    """The name of a block's macro."""
    return type(block).__name__.lower()
