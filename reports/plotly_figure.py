"""Figures for pages, by Plotly: plain data for its script, and a page that holds both and needs no network."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from nas_core.errors import MachineError
from reports import figure as f
from reports import mirrored
from reports.figure import PALETTE, SCALE, Axis, Figure
from reports.mirrored import Mirrored

Json = dict[str, Any]

MARKERS = {
    "circle": "circle",
    "open": "circle-open",
    "square": "square",
    "cross": "x-thin-open",
    "diamond": "diamond",
    "star": "star",
}
DOTS = 96  # of an inch
INSTALL = "figures in pages need Plotly; install it by: pip install 'nas-search[plots]'"
HEAD, FOOT = 50, 90  # pixels above the panels for the title, and between rows for ticks, labels, heading and legend
COLORS = {"blue": f.BLUE, "red": f.VERMILION, "orange": f.PURPLE, "green": f.GREEN, "gray": f.GREY}
"""Of states in Optuna's timeline, by Optuna's names."""
WHOLE = 6  # numbers that count something and span less have a tick each
STANDOFF = 10  # pixels between what an axis is called and its numbers or names
LETTER = 6.5  # pixels of a letter of an axis, about
WIDTH = 800  # pixels that a page gives the panels of a figure, about
CONFIG = {"displaylogo": False, "responsive": True, "displayModeBar": "hover"}
"""How Plotly shows a figure."""

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body{{font-family:sans-serif;margin:1em auto;max-width:70em;padding:0 1em;background:#fff;color:#222}}
figure{{margin:0 0 2em}}figcaption{{color:#555;font-size:.85em}}</style>
<script>{script}</script></head><body>
{figures}
</body></html>
"""


def page(figures: Sequence[Figure | Mirrored], title: str) -> str:
    """An HTML page of figures. Raises MachineError where Plotly is not installed."""
    body = "\n".join(div(figure, f"figure-{number}") for number, figure in enumerate(figures, start=1))
    return PAGE.format(title=html.escape(title), script=script(), figures=body)


def script() -> str:
    """Plotly's program, as its package has it. Raises MachineError where that is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError:
        raise MachineError(INSTALL) from None
    return str(get_plotlyjs())


def div(figure: Figure | Mirrored, name: str) -> str:
    """A figure in a page that has the script; `name` is that of its element."""
    spec = json.dumps(data(figure), allow_nan=False).replace("<", "\\u003c")  # nothing ends the script
    return (
        f'<figure><div id="{name}" role="img" aria-label="{html.escape(figure.title)}"></div>'
        f"<figcaption>{html.escape(figure.caption)}</figcaption>\n"
        f"<script>(s=>Plotly.newPlot({json.dumps(name)},s.data,s.layout,{json.dumps(CONFIG)}))({spec})</script></figure>"
    )


def data(figure: Figure | Mirrored) -> Json:
    """What `Plotly.newPlot` takes, as JSON can hold it: `data` and `layout`. Raises MachineError for a figure of
    Optuna's where Plotly is not installed."""
    if isinstance(figure, Mirrored):
        return _mirrored(figure)
    rows = math.ceil(len(figure.panels) / figure.columns)
    traces: list[Json] = []
    notes: list[Json] = []
    layout: Json = {
        "title": {"text": _text(figure.title), "x": 0.5, "xanchor": "center"},
        "height": round(figure.size[1] * DOTS),
        "template": {"layout": {"colorway": [*PALETTE]}},
        "plot_bgcolor": "white",
        "margin": {"l": 70, "r": 20, "t": 2 * HEAD, "b": 60},
        "font": {"size": 12},
        "hovermode": "closest",
        "barmode": "group",
        "annotations": notes,
    }
    for number, (panel, (across, down)) in enumerate(zip(figure.panels, _domains(figure, rows), strict=True), start=1):
        suffix = "" if number == 1 else str(number)
        layout[f"xaxis{suffix}"] = {**_axis(panel.x, _span(panel, "x")), "domain": across, "anchor": f"y{suffix}"}
        layout[f"yaxis{suffix}"] = {**_axis(panel.y, _span(panel, "y")), "domain": down, "anchor": f"x{suffix}"}
        if any(isinstance(mark, f.Cells) for mark in panel.marks):
            layout[f"yaxis{suffix}"]["autorange"] = "reversed"
        alone = figure.columns == 1
        if panel.title:
            notes.append(_heading(panel.title, across, down, left=alone))
        legend = f"legend{suffix}"
        above = alone or (not panel.title and _fits([name for name, _ in f.named(panel)], across))
        layout[legend] = _legend(across, down, above=above, left=not panel.title)
        for mark in panel.marks:
            for trace in _TRACES[type(mark)](mark):
                if trace["type"] == "heatmap":
                    bar = trace["colorbar"]
                    trace["colorbar"] = {**bar, "x": across[1], "y": sum(down) / 2, "len": down[1] - down[0]}
                else:
                    trace["legend"] = legend
                    trace.setdefault("showlegend", bool(trace.get("name")))
                traces.append({**trace, "xaxis": f"x{suffix}", "yaxis": f"y{suffix}"})
            notes += _notes(mark, suffix)
    return {"data": traces, "layout": layout}


def _domains(figure: Figure, rows: int) -> Iterator[tuple[list[float], list[float]]]:
    """Per panel the shares of the width and of the height that it takes."""
    columns = figure.columns
    letters = max((len(name) for panel in figure.panels for name in panel.y.names), default=0)
    gap = max(0.09, (LETTER * letters + HEAD) / WIDTH)
    heights = [max(panel.height for panel in figure.panels[row * columns : (row + 1) * columns]) for row in range(rows)]
    between = FOOT / (figure.size[1] * DOTS)
    room, total = 1 - between * (rows - 1), sum(heights)
    top = 1.0
    for row, height in enumerate(heights):
        low = max(top - room * height / total, 0.0)
        for column in range(min(columns, len(figure.panels) - row * columns)):
            width = (1 - gap * (columns - 1)) / columns
            left = column * (width + gap)
            yield [left, min(left + width, 1.0)], [low, top]
        top = low - between


def _span(panel: f.Panel, side: Literal["x", "y"]) -> float:
    """From the least to the most number on an axis that lines and points have."""
    marks = [mark for mark in panel.marks if isinstance(mark, f.Line | f.Points)]
    found = [value for mark in marks for value in (mark.x if side == "x" else mark.y) if math.isfinite(value)]
    return max(found) - min(found) if found else math.inf


def _axis(axis: Axis, span: float) -> Json:
    title = {"text": _text(axis.label), "standoff": STANDOFF}
    found: Json = {"title": title, "gridcolor": "#e5e5e5", "zeroline": False, "automargin": True}
    if axis.log:
        found["type"] = "log"
    if axis.names:
        found |= {"tickvals": [*range(len(axis.names))], "ticktext": [_text(name) for name in axis.names]}
    if axis.whole:
        found["tickformat"] = ",d"
        if span < WHOLE:
            found["dtick"] = 1
    if axis.limits is not None:
        found["range"] = [math.log10(limit) for limit in axis.limits] if axis.log else [*axis.limits]
    if axis.hidden:
        found["visible"] = False
    return found


def _heading(title: str, across: list[float], down: list[float], *, left: bool) -> Json:
    place = {"x": across[0] if left else sum(across) / 2, "xanchor": "left" if left else "center", "y": down[1]}
    return {"text": _text(title), "showarrow": False, **place, "xref": "paper", "yref": "paper", "yanchor": "bottom"}


def _fits(names: Sequence[str], across: list[float]) -> bool:
    """Whether names stand beside one another above a panel, each with a sample of its mark."""
    return sum(len(name) * LETTER + HEAD for name in names) <= (across[1] - across[0]) * WIDTH


def _legend(across: list[float], down: list[float], *, above: bool, left: bool) -> Json:
    """Above a panel, where it hides nothing, or in its corner."""
    if not above:
        corner = {"x": across[1], "xanchor": "right", "y": down[1], "yanchor": "top"}
        return {**corner, "bgcolor": "rgba(255,255,255,.8)"}
    side = {"x": across[0], "xanchor": "left"} if left else {"x": across[1], "xanchor": "right"}
    return {**side, "y": down[1], "yanchor": "bottom", "orientation": "h", "bgcolor": "rgba(0,0,0,0)"}


def _text(text: str) -> str:
    """Plotly reads texts as a kind of HTML."""
    return html.escape(text, quote=False).replace("\n", "<br>")


def _texts(texts: Sequence[str]) -> list[str]:
    return [_text(text) for text in texts]


def _numbers(values: Sequence[float]) -> list[float | None]:
    """As JSON can hold them."""
    return [float(value) if math.isfinite(value) else None for value in values]


def _line(mark: f.Line) -> Iterator[Json]:
    shape = "hv" if mark.steps else "linear"
    line = {
        "color": PALETTE[mark.color],
        "width": mark.width,
        "shape": shape,
        "dash": "dash" if mark.dashed else "solid",
    }
    yield {
        "type": "scatter",
        "mode": "lines",
        "x": _numbers(mark.x),
        "y": _numbers(mark.y),
        "name": _text(mark.name),
        "line": line,
    }


def _band(mark: f.Band) -> Iterator[Json]:
    line = {"width": 0, "shape": "hv" if mark.steps else "linear"}
    plain = {"type": "scatter", "mode": "lines", "x": _numbers(mark.x), "line": line, "hoverinfo": "skip"}
    red, green, blue = (int(PALETTE[mark.color][at : at + 2], 16) for at in (1, 3, 5))
    yield {**plain, "y": _numbers(mark.low), "showlegend": False}
    fill = {"fill": "tonexty", "fillcolor": f"rgba({red},{green},{blue},.2)"}
    yield {**plain, "y": _numbers(mark.high), "name": _text(mark.name), **fill}


def _points(mark: f.Points) -> Iterator[Json]:
    symbol = {"symbol": MARKERS[mark.marker], "size": mark.size * 1.3, "color": PALETTE[mark.color]}
    if mark.marker == "cross":
        symbol["line"] = {"width": 1.2, "color": PALETTE[mark.color]}
    found = {
        "type": "scatter",
        "mode": "markers",
        "x": _numbers(mark.x),
        "y": _numbers(mark.y),
        "name": _text(mark.name),
        "marker": symbol,
    }
    if mark.texts:
        found |= {"hovertext": _texts(mark.texts), "hoverinfo": "text"}
    if mark.errors:
        found["error_y"] = {"type": "data", "array": _numbers(mark.errors), "thickness": 1}
    yield found


def _bars(mark: f.Bars) -> Iterator[Json]:
    at, long = ("y", "x") if mark.lying else ("x", "y")
    found = {"type": "bar", at: _numbers(mark.x), long: _numbers(mark.lengths), "name": _text(mark.name)}
    yield {
        **found,
        "orientation": "h" if mark.lying else "v",
        "width": mark.width,
        "marker": {"color": PALETTE[mark.color]},
    }


def _cells(mark: f.Cells) -> Iterator[Json]:
    scale = [[place / (len(SCALE) - 1), color] for place, color in enumerate(SCALE)]
    bar = {"title": {"text": _text(mark.name), "side": "right"}, "thickness": 12}
    values = [_numbers(row) for row in mark.values]
    yield {
        "type": "heatmap",
        "z": values,
        "zmin": mark.least,
        "zmax": mark.most,
        "colorscale": scale,
        "colorbar": bar,
        "showscale": mark.bar,
    }


def _segments(mark: f.Segments) -> Iterator[Json]:
    if mark.arrows:
        return  # they are notes
    x = [value for ends in zip(mark.x0, mark.x1, strict=True) for value in (*_numbers(ends), None)]
    y = [value for ends in zip(mark.y0, mark.y1, strict=True) for value in (*_numbers(ends), None)]
    line = {"color": PALETTE[mark.color], "width": mark.width}
    yield {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "name": _text(mark.name),
        "line": line,
        "hoverinfo": "skip",
    }


def _labels(mark: f.Labels) -> Iterator[Json]:
    """Invisible points, so that the axes hold what the notes are at."""
    none = {"mode": "markers", "marker": {"opacity": 0}, "hoverinfo": "skip"}
    yield {"type": "scatter", "x": _numbers(mark.x), "y": _numbers(mark.y), **none}


def _notes(mark: f.Mark, suffix: str) -> list[Json]:
    """Texts and arrows, which are part of the layout."""
    axes = {"xref": f"x{suffix}", "yref": f"y{suffix}"}
    if isinstance(mark, f.Segments) and mark.arrows:
        ends = zip(mark.x0, mark.y0, mark.x1, mark.y1, strict=True)
        look = {
            "text": "",
            "showarrow": True,
            "arrowhead": 2,
            "arrowwidth": mark.width,
            "arrowcolor": PALETTE[mark.color],
        }
        return [
            {**axes, **look, "x": x1, "y": y1, "ax": x0, "ay": y0, "axref": f"x{suffix}", "ayref": f"y{suffix}"}
            for x0, y0, x1, y1 in ends
        ]
    if not isinstance(mark, f.Labels):
        return []
    box = {"bordercolor": PALETTE[mark.color], "bgcolor": "white", "borderpad": 3} if mark.boxed else {}
    look = {"showarrow": False, "xanchor": mark.align, "font": {"size": mark.size * 1.3}, **box}
    points = zip(mark.x, mark.y, mark.texts, strict=True)
    return [{**axes, **look, "x": x, "y": y, "text": _text(text)} for x, y, text in points]


_TRACES: Mapping[type, Callable[[Any], Iterator[Json]]] = {
    f.Line: _line,
    f.Band: _band,
    f.Points: _points,
    f.Bars: _bars,
    f.Cells: _cells,
    f.Segments: _segments,
    f.Labels: _labels,
}


def _mirrored(figure: Mirrored) -> Json:
    script()  # says what to install
    from optuna import visualization

    drawn = mirrored.plotted(mirrored.escaped(figure), visualization)
    height = round(figure.size[1] * DOTS)
    drawn.update_layout(title={"text": _text(figure.title), "x": 0.5}, height=height, width=None, template="none")
    drawn.update_layout(colorway=[*PALETTE])
    for update, each in ((drawn.update_xaxes, drawn.select_xaxes), (drawn.update_yaxes, drawn.select_yaxes)):
        update(automargin=True)
        for axis in each():
            axis.title.text, axis.title.standoff = mirrored.WORDS.get(axis.title.text, axis.title.text), STANDOFF
    found: Json = json.loads(drawn.to_json())
    for trace in found["data"]:
        marker = trace.get("marker", {})
        if isinstance(marker.get("color"), str) and marker["color"] in COLORS:
            marker["color"] = PALETTE[COLORS[marker["color"]]]
        if (bar := marker.get("colorbar", {}).get("title", {}).get("text")) in mirrored.WORDS:
            marker["colorbar"]["title"]["text"] = mirrored.WORDS[bar]
    return {"data": found["data"], "layout": found["layout"]}
