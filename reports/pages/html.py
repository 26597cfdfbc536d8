"""A page as one HTML file that needs nothing beside it. What it says is escaped in one place: the template."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from reports.pages.blocks import Block, Page, Picture
from reports.texts import shown

if TYPE_CHECKING:
    import jinja2


def written(page: Page, made: str) -> str:
    """The file. `made` says by what it was made, and when."""
    from markupsafe import Markup

    from reports.pages.pictures import drawn

    names: dict[int, str] = {}

    def picture(block: Picture) -> Markup:
        name = names.setdefault(id(block), f"p{len(names)}")
        return Markup(drawn(block.figure, name))

    return str(environment().get_template("report.html").render(page=page, made=made, picture=picture))


@cache
def environment() -> jinja2.Environment:
    """The templates of this package; what they are given is escaped unless it is markup."""
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.PackageLoader("reports.pages"),
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
