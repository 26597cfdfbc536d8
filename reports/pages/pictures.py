"""Figures inside a page that is one file: SVG whose paper, ink and grid follow the page's light and dark."""

from __future__ import annotations

import base64
import html
import re
from dataclasses import replace

from reports import matplotlib_figure
from reports.figure import Figure
from reports.mirrored import Mirrored

LARGEST = 250_000  # bytes of an SVG; a picture with more marks is one of pixels
DOTS = 1.6  # of those, in pixels of a PNG at 1
LARGER = 1.15  # than on paper is a figure at most

THEMED = {
    "#000000": "currentColor",
    "#ffffff": "var(--paper)",
    "#b0b0b0": "var(--grid)",
}
"""What the renderer calls black, white and grey, by what a page calls them."""

_COLOUR = re.compile("|".join(THEMED), re.IGNORECASE)
_OWN = re.compile(r'\b(id="|xlink:href="#|url\(#)')


def drawn(figure: Figure | Mirrored, name: str) -> str:
    """An element without scripts: `<svg>`, or `<img>` where that is much smaller. `name` tells its parts from those of
    other figures of the page. Title and caption are the page's own."""
    bare = replace(figure, title="", caption="")
    content = matplotlib_figure.render(bare, "svg").decode()
    said, widest = html.escape(figure.title), round(figure.size[0] * 96 * LARGER)
    if len(content) > LARGEST:
        pixels = base64.b64encode(matplotlib_figure.render(bare, "png", DOTS)).decode()
        return f'<img alt="{said}" style="max-width:{widest}px" src="data:image/png;base64,{pixels}">'
    svg = content[content.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    head, rest = svg[: svg.index(">") + 1], svg[svg.index(">") + 1 :]
    head = re.sub(r' (?:width|height|xmlns|version)="[^"]*"', "", head)
    head = head.replace("<svg", f'<svg role="img" aria-label="{said}" style="max-width:{widest}px"', 1)
    return _OWN.sub(lambda found: f"{found[0]}{name}-", head + _COLOUR.sub(_themed, rest)).strip()


def _themed(found: re.Match[str]) -> str:
    return THEMED[found[0].lower()]
