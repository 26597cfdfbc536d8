"""Figures as characters: four dots to a character, with their legends and the ends of their axes."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from nas_cli.render import clean, number
from reports import figure as f
from reports.figure import PALETTE, Axis, Figure, Panel, named

HEIGHT = 12  # lines of a panel
MARGIN = 9  # characters for the ends of the y axis
NAMES = 24  # of those, where positions have names
DOTS = " ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"  # by their bits: upper left, upper right, lower left, lower right
SHADES = " ░▒▓█"


def lines(figure: Figure, width: int, *, colors: bool) -> list[str]:
    """A figure in so many columns."""
    found = [clean(figure.title)]
    for panel in figure.panels:
        found += ["", *(_heat(panel, width) if _map(panel) else _drawn(panel, width, colors))]
    return [*found, "", *textwrap.wrap(clean(figure.caption), width)]


def _map(panel: Panel) -> f.Cells | None:
    return next((mark for mark in panel.marks if isinstance(mark, f.Cells)), None)


def _heat(panel: Panel, width: int) -> Iterator[str]:
    """A line per row of a heat map, a shade per column, or per as many as have no room."""
    mark = _map(panel)
    assert mark is not None
    if panel.title:
        yield clean(panel.title)
    names = [clean(name) for name in panel.y.names] or [str(row) for row in range(len(mark.values))]
    margin = min(max(map(len, names)), NAMES)
    room, span = width - margin - 3, (mark.most - mark.least) or 1.0
    for name, row in zip(names, mark.values, strict=True):
        count = min(len(row), room)
        shown = [row[round(place * (len(row) - 1) / max(count - 1, 1))] for place in range(count)]
        shades = (0.0 if math.isnan(value) else min(max((value - mark.least) / span, 0.0), 1.0) for value in shown)
        yield f"{name[:margin]:<{margin}} |{''.join(SHADES[round(shade * (len(SHADES) - 1))] for shade in shades)}|"
    yield f"{'':<{margin}}  {clean(panel.x.label)}; {mark.name} from {number(mark.least)} to {number(mark.most)}"


class _Canvas:
    """Dots on two axes, two by two to a character; `put` takes values."""

    def __init__(self, panel: Panel, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.x, self.y = _Scale(panel.x, _along(panel, 0), 2 * columns), _Scale(panel.y, _along(panel, 1), 2 * rows)
        self.bits = [[0] * columns for _ in range(rows)]
        self.color: list[list[int | None]] = [[None] * columns for _ in range(rows)]
        self.letters: list[list[str | None]] = [[None] * columns for _ in range(rows)]

    def put(self, x: float, y: float, color: int) -> None:
        if math.isfinite(x) and math.isfinite(y):
            self._set(self.x.place(x), self.y.place(y), color)

    def join(self, ends: Sequence[tuple[float, float]], color: int) -> None:
        """A straight line between two points."""
        if not all(math.isfinite(value) for end in ends for value in end):
            return
        (x0, y0), (x1, y1) = ((self.x.place(x), self.y.place(y)) for x, y in ends)
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for step in range(steps + 1):
            self._set(round(x0 + (x1 - x0) * step / steps), round(y0 + (y1 - y0) * step / steps), color)

    def write(self, x: float, y: float, text: str, align: str) -> None:
        row = self.rows - 1 - self.y.place(y) // 2
        shift = {"left": 0, "center": len(text) // 2, "right": len(text)}[align]
        start = min(max(self.x.place(x) // 2 - shift, 0), max(self.columns - len(text), 0))
        for place, letter in enumerate(text[: self.columns], start):
            self.letters[row][place] = letter

    def _set(self, column: int, height: int, color: int) -> None:
        row = 2 * self.rows - 1 - height
        self.bits[row // 2][column // 2] |= 1 << (2 * (row % 2) + column % 2)
        self.color[row // 2][column // 2] = color

    def line(self, row: int, colors: bool) -> str:
        found = ""
        for letter, bits, color in zip(self.letters[row], self.bits[row], self.color[row], strict=True):
            found += letter if letter is not None else _colored(DOTS[bits], color if colors else None)
        return found.rstrip()


class _Scale:
    """From the values of an axis to dots."""

    def __init__(self, axis: Axis, values: Iterable[float], dots: int) -> None:
        self.log, self.dots = axis.log, dots
        known = [value for value in values if math.isfinite(value) and (value > 0 or not axis.log)]
        self.low, self.high = axis.limits or (min(known, default=0.0), max(known, default=1.0))

    def place(self, value: float) -> int:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        share = (value - low) / (high - low) if high > low else 0.5
        return min(max(int(share * self.dots), 0), self.dots - 1)


def _along(panel: Panel, axis: int) -> Iterator[float]:
    """All values on the x axis (0) or the y axis (1)."""
    for mark in panel.marks:
        if isinstance(mark, f.Segments):
            yield from (mark.x0, mark.y0)[axis]
            yield from (mark.x1, mark.y1)[axis]
        elif isinstance(mark, f.Bars):
            yield from ((mark.x, [0.0, *mark.lengths])[axis != mark.lying])
        elif isinstance(mark, f.Band):
            yield from (mark.x if axis == 0 else [*mark.low, *mark.high])
        elif isinstance(mark, f.Line | f.Points | f.Labels):
            yield from (mark.x, mark.y)[axis]


def _line(canvas: _Canvas, mark: f.Line) -> None:
    points = list(zip(mark.x, mark.y, strict=True))
    for (x0, y0), (x1, y1) in pairwise(points):
        if mark.steps:
            canvas.join([(x0, y0), (x1, y0)], mark.color)
            canvas.join([(x1, y0), (x1, y1)], mark.color)
        else:
            canvas.join([(x0, y0), (x1, y1)], mark.color)


def _points(canvas: _Canvas, mark: f.Points) -> None:
    for x, y in zip(mark.x, mark.y, strict=True):
        canvas.put(x, y, mark.color)


def _bars(canvas: _Canvas, mark: f.Bars) -> None:
    for at, length in zip(mark.x, mark.lengths, strict=True):
        ends = [(0.0, at), (length, at)] if mark.lying else [(at, 0.0), (at, length)]
        canvas.join(ends, mark.color)


def _segments(canvas: _Canvas, mark: f.Segments) -> None:
    for x0, y0, x1, y1 in zip(mark.x0, mark.y0, mark.x1, mark.y1, strict=True):
        canvas.join([(x0, y0), (x1, y1)], mark.color)


def _labels(canvas: _Canvas, mark: f.Labels) -> None:
    for x, y, text in zip(mark.x, mark.y, mark.texts, strict=True):
        canvas.write(x, y, f"[{clean(text)}]" if mark.boxed else clean(text), mark.align)


_MARKS: Mapping[type, Callable[[_Canvas, Any], None]] = {
    f.Line: _line,
    f.Points: _points,
    f.Bars: _bars,
    f.Segments: _segments,
    f.Labels: _labels,
}


def _drawn(panel: Panel, width: int, colors: bool) -> Iterator[str]:
    """The canvas between its axes, and what its colours mean. Bands have no room."""
    if panel.title:
        yield clean(panel.title)
    margin = 0 if panel.y.hidden else MARGIN
    rows = max(round(HEIGHT * min(panel.height, 1.5)), len(panel.y.names))
    canvas = _Canvas(panel, width - margin - 2, rows)
    for mark in panel.marks:
        if type(mark) in _MARKS:
            _MARKS[type(mark)](canvas, mark)
    if panel.y.label and not panel.y.hidden:
        yield clean(panel.y.label)
    ends = {0: number(canvas.y.high), canvas.rows - 1: number(canvas.y.low)}
    for row in range(canvas.rows):
        edge = "" if panel.y.hidden else f"{ends.get(row, '')[:MARGIN]:>{MARGIN}} │"
        yield f"{edge}{canvas.line(row, colors)}"
    if not panel.x.hidden:
        low, high = number(canvas.x.low), number(canvas.x.high)
        yield f"{'':>{margin}} ╰{'─' * canvas.columns}"
        room = canvas.columns - len(low) - len(high)
        yield f"{'':>{margin}}  {low}{clean(panel.x.label)[: max(room - 2, 0)]:^{room}}{high}"
    legend = [_colored("■", color if colors else None) + f" {clean(name)}" for name, color in named(panel)]
    if legend:
        yield f"{'':>{margin}}  {'  '.join(legend)}"


def _colored(text: str, color: int | None) -> str:
    if color is None or text == " " or color == f.BLACK:
        return text
    return f"\x1b[38;2;{_rgb(PALETTE[color])}m{text}\x1b[0m"


def _rgb(color: str) -> str:
    return ";".join(str(int(color[at : at + 2], 16)) for at in (1, 3, 5))


def picture(png: bytes, width: int, *, colors: bool) -> list[str]:
    """A picture as halves of characters, in colours, or, without them, in shades."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    height = round(image.height * width / image.width / 2)
    if not colors:
        grey = image.convert("L").resize((width, height))
        shade = [SHADES[round((255 - value) / 255 * (len(SHADES) - 1))] for value in grey.tobytes()]
        return ["".join(shade[row * width : (row + 1) * width]).rstrip() for row in range(height)]
    small = image.resize((width, 2 * height)).tobytes()
    at = [small[3 * place : 3 * place + 3] for place in range(2 * height * width)]

    def half(row: int, column: int) -> str:
        above, below = (at[(2 * row + part) * width + column] for part in (0, 1))
        return f"\x1b[38;2;{';'.join(map(str, above))};48;2;{';'.join(map(str, below))}m▀"

    return ["".join(half(row, column) for column in range(width)) + "\x1b[0m" for row in range(height)]
