"""Figures as PNG and SVG, by Matplotlib: the same bytes for the same data."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import numpy

from reports import figure as f
from reports import mirrored
from reports.figure import PALETTE, Axis, Figure, Panel
from reports.mirrored import Mirrored

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

Format = Literal["png", "svg"]

STYLE: Mapping[str, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "savefig.dpi": 120,
    "svg.fonttype": "none",  # texts stay texts, which are found, read aloud and copied
    "svg.hashsalt": "nas",
    "text.parse_math": False,  # a dollar in a name is one
}
LARGE = 1e4  # numbers of an axis are written with a prefix of units from here on
STYLE_GRID = "#b0b0b0"  # as Matplotlib has it
MARKERS = {"circle": "o", "open": "o", "square": "s", "cross": "x", "diamond": "D", "star": "*"}


def render(figure: Figure | Mirrored, format: Format, scale: float = 1.0) -> bytes:
    """The file's content. `scale`: of a PNG's pixels, 120 to an inch at 1."""
    content = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if format == "svg" else {"Software": None}
    with _style(), _mirrored(figure) if isinstance(figure, Mirrored) else nullcontext(_drawing(figure)) as drawing:
        whole = "tight" if isinstance(figure, Mirrored) else None
        drawing.savefig(content, format=format, dpi=STYLE["savefig.dpi"] * scale, metadata=metadata, bbox_inches=whole)
    return content.getvalue()


@contextmanager
def _style() -> Iterator[None]:
    """This style alone, whatever the user's is. What the font lacks is a box, in SVG the reader's font's."""
    import matplotlib.style

    with matplotlib.style.context(["default", dict(STYLE)]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def _drawing(figure: Figure) -> Drawing:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    rows = math.ceil(len(figure.panels) / figure.columns)
    drawing = Drawing(figsize=figure.size, layout="constrained")
    FigureCanvasAgg(drawing)
    heights = [max(panel.height for panel in row) for row in _rows(figure)]
    grid = drawing.subplots(rows, figure.columns, squeeze=False, height_ratios=heights).ravel()
    for axes, panel in zip(grid, figure.panels, strict=False):
        _panel(axes, panel)
    for axes in grid[len(figure.panels) :]:
        axes.remove()
    drawing.suptitle(figure.title, fontsize=11)
    _caption(drawing, figure.caption, figure.size[0])
    return drawing


def _caption(drawing: Drawing, caption: str, width: float) -> None:
    lines = textwrap.fill(caption, round(width * 15))
    drawing.supxlabel(lines, fontsize=8, color="0.35")


def _rows(figure: Figure) -> Iterator[Sequence[Panel]]:
    for start in range(0, len(figure.panels), figure.columns):
        yield figure.panels[start : start + figure.columns]


def _panel(axes: Axes, panel: Panel) -> None:
    for mark in panel.marks:
        _DRAWN[type(mark)](axes, mark)
    if panel.title:
        axes.set_title(panel.title, fontsize=9)
    if any(isinstance(mark, f.Cells) for mark in panel.marks):
        axes.grid(False)
    _axis(panel.x, axes.xaxis, axes.set_xscale, axes.set_xlim)
    _axis(panel.y, axes.yaxis, axes.set_yscale, axes.set_ylim)
    if panel.x.names and max(map(len, panel.x.names)) > 3:
        axes.tick_params(axis="x", labelrotation=60)
    if panel.x.hidden and panel.y.hidden:
        axes.axis("off")
    if any(f.named(panel)):
        axes.legend()


def _axis(axis: Axis, drawn: Any, scale: Callable[[str], None], limit: Callable[[float, float], object]) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter

    drawn.set_label_text(axis.label)
    if axis.log:
        scale("log")
        drawn.set_major_formatter(lambda value, _: f"{value:g}")
        drawn.set_minor_formatter(NullFormatter())
    elif axis.names:
        drawn.set_ticks(range(len(axis.names)), axis.names, fontsize=7)
    elif axis.whole:
        drawn.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if axis.limits is not None:
        limit(*axis.limits)
    if not (axis.log or axis.names) and max(map(abs, drawn.get_view_interval())) >= LARGE:
        drawn.set_major_formatter(EngFormatter(sep=""))  # 60k, 2.5M
    drawn.set_visible(not axis.hidden)


def _line(axes: Axes, mark: f.Line) -> None:
    look: Any = {"drawstyle": "steps-post" if mark.steps else "default", "linestyle": "--" if mark.dashed else "-"}
    axes.plot(mark.x, mark.y, label=mark.name or None, color=PALETTE[mark.color], linewidth=mark.width, **look)


def _band(axes: Axes, mark: f.Band) -> None:
    look: Any = {"color": PALETTE[mark.color], "alpha": 0.2, "linewidth": 0, "step": "post" if mark.steps else None}
    axes.fill_between(mark.x, mark.low, mark.high, label=mark.name or None, **look)


def _points(axes: Axes, mark: f.Points) -> None:
    color = PALETTE[mark.color]
    if len(mark.errors):
        axes.errorbar(mark.x, mark.y, mark.errors, fmt="none", ecolor=color, elinewidth=1.0, capsize=2.5)
    face: Any = {"facecolors": "none", "edgecolors": color} if mark.marker == "open" else {"color": color}
    look: Any = {"s": mark.size**2, "marker": MARKERS[mark.marker], "linewidths": 0.8, "zorder": 2.5, **face}
    axes.scatter(mark.x, mark.y, label=mark.name or None, **look)


def _bars(axes: Axes, mark: f.Bars) -> None:
    if mark.lying:
        axes.barh(mark.x, mark.lengths, mark.width, label=mark.name or None, color=PALETTE[mark.color])
    else:
        axes.bar(mark.x, mark.lengths, mark.width, label=mark.name or None, color=PALETTE[mark.color])


def _cells(axes: Axes, mark: f.Cells) -> None:
    look: Any = {"aspect": "auto", "cmap": f.SCALE_NAME, "interpolation": "nearest"}
    drawn = axes.imshow(mark.values, vmin=mark.least, vmax=mark.most, **look)
    if mark.bar:
        axes.figure.colorbar(drawn, ax=axes, label=mark.name, pad=0.01)


def _segments(axes: Axes, mark: f.Segments) -> None:
    from matplotlib.collections import LineCollection

    ends = list(zip(zip(mark.x0, mark.y0, strict=True), zip(mark.x1, mark.y1, strict=True), strict=True))
    color = PALETTE[mark.color]
    if mark.arrows:
        for start, end in ends:
            arrow = {"arrowstyle": "-|>", "color": color, "linewidth": mark.width, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", end, start, arrowprops=arrow)
    axes.add_collection(LineCollection(ends, colors=color, linewidths=mark.width, label=mark.name or None))
    axes.autoscale_view()


def _labels(axes: Axes, mark: f.Labels) -> None:
    box = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": PALETTE[mark.color], "linewidth": 1.2}
    look: Any = {"ha": mark.align, "va": "center", "fontsize": mark.size, "bbox": box if mark.boxed else None}
    for x, y, text in zip(mark.x, mark.y, mark.texts, strict=True):
        axes.text(x, y, text, **look)
    axes.update_datalim(list(zip(mark.x, mark.y, strict=True)))
    axes.autoscale_view()


_DRAWN: Mapping[type, Callable[[Axes, Any], None]] = {
    f.Line: _line,
    f.Band: _band,
    f.Points: _points,
    f.Bars: _bars,
    f.Cells: _cells,
    f.Segments: _segments,
    f.Labels: _labels,
}


def _own_look(axes: Axes) -> None:
    """Paper and grid as in our own figures, instead of Optuna's."""
    for place in ("left", "center"):
        axes.set_title("", loc=place)
    axes.set_facecolor("white")
    axes.grid(color=STYLE_GRID, alpha=STYLE["grid.alpha"])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(True)
        axes.spines[side].set_color("black")


def _own_words(axes: Axes) -> None:
    """The ink of our own figures, and what axes and scales of colours are called here."""
    axes.tick_params(colors="black", labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_label_text(mirrored.WORDS.get(axis.get_label_text(), axis.get_label_text()), color="black", fontsize=9)


def _names_apart(drawing: Drawing) -> None:
    """Names of options in a size that fits between the axes; those of the last axis beside the scale of colours."""
    for each in drawing.axes:
        if each.get_label() == "<colorbar>":
            place = each.get_position()
            each.set_position((place.x0 + 0.06, place.y0, place.width, place.height))
        else:
            each.tick_params(axis="y", labelsize=7)


@contextmanager
def _mirrored(figure: Mirrored) -> Iterator[Drawing]:
    """Optuna's picture. It is made by `pyplot`, which is left as it was."""
    import matplotlib

    before = matplotlib.get_backend(auto_select=False)
    matplotlib.use("agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as pictures

    try:
        axes = numpy.ravel(mirrored.plotted(figure, pictures))
        drawing = axes[0].figure
        drawing.set_size_inches(*figure.size)
        drawing.suptitle("")
        for each in axes:
            _own_look(each)
            if len(axes) > 1:
                each.tick_params(axis="x", labelrotation=90)
                each.label_outer()
        for each in drawing.axes:
            _own_words(each)
        if figure.plot == "parallel_coordinate":
            _names_apart(drawing)
        box, (width, height) = drawing.get_tightbbox(), figure.size  # of what hangs out at the sides, too
        middle = (box.x0 + box.x1) / 2 / width
        drawing.suptitle(figure.title, fontsize=11, x=middle, y=box.y1 / height + 0.02, va="bottom")
        caption = textwrap.fill(figure.caption, round(width * 15))
        drawing.text(middle, box.y0 / height - 0.01, caption, ha="center", va="top", fontsize=8, color="0.35")
        yield drawing
        pyplot.close(drawing)
    finally:
        if before is not None:
            matplotlib.use(before)
