"""A figure as plain data: panels with axes and a closed set of marks. Kinds make it (`reports/kinds/`), renderers draw
it (`matplotlib_figure.py`, `plotly_figure.py`).

Colours are positions in a palette that the renderers share; texts are as they are stored, and renderers escape them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A", "#000000")
"""Okabe and Ito's colours, which differ for the colour-blind too; grey in the place of yellow, which is too pale."""
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, GREY, BLACK = range(len(PALETTE))
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
"""For things beside one another; after the last the first comes again."""
SCALE_NAME = "viridis"
"""Of heat maps, as Matplotlib calls it; `SCALE` are its colours from the least to the most."""
SCALE = ("#440154", "#443983", "#31688e", "#21918c", "#35b779", "#90d743", "#fde725")

Numbers = Sequence[float]
Texts = Sequence[str]
Marker = Literal["circle", "open", "square", "cross", "diamond", "star"]
Align = Literal["left", "center", "right"]


@dataclass(frozen=True, slots=True)
class Line:
    """Points joined in their order; NaN interrupts. `steps`: a value stays until the next one."""

    x: Numbers
    y: Numbers
    name: str = ""
    color: int = BLUE
    steps: bool = False
    dashed: bool = False
    width: float = 1.6


@dataclass(frozen=True, slots=True)
class Band:
    """What lies between two lines."""

    x: Numbers
    low: Numbers
    high: Numbers
    name: str = ""
    color: int = BLUE
    steps: bool = False


@dataclass(frozen=True, slots=True)
class Points:
    """Points apart, each with the text that a pointer over it shows. `errors`: half the height of a bar at each."""

    x: Numbers
    y: Numbers
    texts: Texts = ()
    name: str = ""
    color: int = BLUE
    marker: Marker = "circle"
    size: float = 5.0
    errors: Numbers = ()


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars from 0 at the positions x, or, lying, at the heights x."""

    x: Numbers
    lengths: Numbers
    name: str = ""
    color: int = BLUE
    lying: bool = False
    width: float = 0.8


@dataclass(frozen=True, slots=True)
class Cells:
    """A heat map: `values[row][column]` at y = row and x = column, NaN is nothing; from `least` to `most`.

    `bar`: whether the scale of colours is beside it."""

    values: Sequence[Numbers]
    name: str = ""
    least: float = 0.0
    most: float = 1.0
    bar: bool = True


@dataclass(frozen=True, slots=True)
class Segments:
    """Straight lines from (x0, y0) to (x1, y1)."""

    x0: Numbers
    y0: Numbers
    x1: Numbers
    y1: Numbers
    name: str = ""
    color: int = GREY
    width: float = 1.0
    arrows: bool = False


@dataclass(frozen=True, slots=True)
class Labels:
    """Texts at points; `boxed`: each in a box of its colour."""

    x: Numbers
    y: Numbers
    texts: Texts
    color: int = BLACK
    align: Align = "center"
    boxed: bool = False
    size: float = 8.0


Mark = Line | Band | Points | Bars | Cells | Segments | Labels


@dataclass(frozen=True, slots=True)
class Axis:
    """`names` are those of the positions 0, 1, ...; `whole`: its numbers count something; `hidden`: it is not drawn."""

    label: str = ""
    log: bool = False
    names: Texts = ()
    limits: tuple[float, float] | None = None
    whole: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Marks on two axes. `height` is relative to the other panels; what has a name is in the legend."""

    x: Axis
    y: Axis
    marks: Sequence[Mark]
    title: str = ""
    height: float = 1.0


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels in rows of `columns`, with a title, and a caption that says what is drawn, and how much of it. `size`: in
    inches of 96 pixels."""

    kind: str
    title: str
    caption: str
    panels: Sequence[Panel]
    columns: int = 1
    size: tuple[float, float] = (8.0, 5.0)


def named(panel: Panel) -> Iterator[tuple[str, int]]:
    """The panel's legend: names of marks and their colours."""
    for mark in panel.marks:
        if not isinstance(mark, Labels | Cells) and mark.name:
            yield mark.name, mark.color


def series(place: int) -> int:
    """The colour of one of several things."""
    return SERIES[place % len(SERIES)]
