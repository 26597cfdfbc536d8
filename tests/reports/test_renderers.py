"""Both renderers on one figure with every mark: files that open, and say what the figure says."""

from __future__ import annotations

import io
import json
import math
import xml.etree.ElementTree as xml
from html.parser import HTMLParser
from typing import get_args

import numpy
import pytest
from PIL import Image

from nas_core.errors import MachineError
from nas_core.strategy import State
from reports import figure as f
from reports import matplotlib_figure, plotly_figure
from reports.documents import document
from reports.mirrored import WORDS, Mirrored, MirroredTrial, Plot

ODD = "<script>alert('$x_1$ & \"\u00e9\u4e2d')</script>"
MARKS: list[f.Mark] = [
    f.Line([1, 2, 3], [1.0, math.nan, 3.0], "a line", f.GREEN, steps=True, dashed=True),
    f.Band([1, 2, 3], [0.5, 1, 2], [1.5, 2, 3], "a band"),
    f.Points([1, 2], [2.0, 1.0], [ODD, "two"], "points", f.ORANGE, "open", errors=[0.1, 0.2]),
    f.Points([1], [1.0], name="crosses", marker="cross"),
    f.Bars([1, 2], [3.0, 1.0], "bars", f.SKY),
    f.Segments([1, 1], [1, 2], [3, 3], [2, 2], "segments"),
    f.Segments([1], [1], [2], [3], arrows=True),
    f.Labels([1, 2], [3, 3], [ODD, "plain"], boxed=True),
]
CELLS = f.Cells([[0.0, 0.5], [math.nan, 1.0]], "weight")
FIGURE = f.Figure(
    "made",
    ODD,
    f"caption of {ODD}",
    [
        f.Panel(f.Axis("x", whole=True), f.Axis(ODD, limits=(0.0, 4.0)), MARKS, "first", 2.0),
        f.Panel(f.Axis(names=["a", "long name"]), f.Axis(names=["r", ODD]), [CELLS]),
        f.Panel(f.Axis("n", log=True), f.Axis(log=True, limits=(0.1, 10.0)), [f.Line([1, 10], [1, 10])]),
        f.Panel(f.Axis(hidden=True), f.Axis(hidden=True), [f.Bars([0, 1], [2.0, 1.0], lying=True)]),
    ],
    columns=2,
)


class Read(HTMLParser):
    """Tags, texts and scripts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags:
            self.texts.setdefault(self.tags[-1][0], []).append(data)


def test_every_mark_is_among_them() -> None:
    assert {type(mark) for mark in [*MARKS, CELLS]} == set(get_args(f.Mark))
    assert matplotlib_figure._DRAWN.keys() == plotly_figure._TRACES.keys() == set(get_args(f.Mark))


def test_a_png_has_its_size_and_is_not_blank() -> None:
    image = Image.open(io.BytesIO(matplotlib_figure.render(FIGURE, "png")))
    assert image.size == (960, 600)
    colors = {tuple(color) for color in numpy.asarray(image.convert("RGB")).reshape(-1, 3)}
    for color in (f.GREEN, f.ORANGE, f.SKY):
        wanted = tuple(int(f.PALETTE[color][at : at + 2], 16) for at in (1, 3, 5))
        assert wanted in colors
    assert Image.open(io.BytesIO(matplotlib_figure.render(FIGURE, "png", scale=0.5))).size == (480, 300)


def test_an_svg_is_the_same_every_time_and_holds_names_as_texts() -> None:
    content = matplotlib_figure.render(FIGURE, "svg")
    assert content == matplotlib_figure.render(FIGURE, "svg")
    assert b"<dc:date>" not in content
    root = xml.fromstring(content)
    texts = {"".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {ODD, "first", "a line", "bars"} <= texts
    assert not [node for node in root.iter() if node.tag.endswith("script")]


def test_the_users_own_style_changes_nothing() -> None:
    import matplotlib

    plain = matplotlib_figure.render(FIGURE, "svg")
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "lines.linewidth": 9}):
        assert matplotlib_figure.render(FIGURE, "svg") == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_a_page_holds_all_that_it_needs_and_names_as_texts() -> None:
    pytest.importorskip("plotly")
    page = plotly_figure.page([FIGURE, mirror("rank", ["a", ODD])], ODD)
    read = Read()
    read.feed(page)
    assert [tag for tag, attrs in read.tags if "src" in attrs or "href" in attrs] == []
    assert [tag for tag, _ in read.tags].count("script") == 3  # Plotly's, and one per figure
    own = [text for text in read.texts["script"] if "Plotly.newPlot(" in text and len(text) < 100_000]
    assert len(own) == 2
    assert not any("<" in text for text in own)
    assert "".join(read.texts["title"]).strip() == ODD
    assert "".join(read.texts["figcaption"]).split("\n") == [FIGURE.caption, "a caption", ""]
    for name, title in (("figure-1", ODD), ("figure-2", "a title")):
        assert ("div", {"id": name, "role": "img", "aria-label": title}) in read.tags


def test_plotlys_data_is_the_figures() -> None:
    data = plotly_figure.data(FIGURE)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    traces = {trace["name"]: trace for trace in data["data"] if trace.get("name")}
    assert traces["a line"]["y"] == [1.0, None, 3.0]
    assert traces["a line"]["line"] == {"color": f.PALETTE[f.GREEN], "width": 1.6, "shape": "hv", "dash": "dash"}
    assert traces["points"]["error_y"]["array"] == [0.1, 0.2]
    (heat,) = [trace for trace in data["data"] if trace["type"] == "heatmap"]
    assert (heat["z"], heat["xaxis"], heat["yaxis"]) == ([[0.0, 0.5], [None, 1.0]], "x2", "y2")
    layout = data["layout"]
    assert layout["yaxis3"]["range"] == [-1.0, 1.0]
    assert layout["xaxis4"]["visible"] is False
    assert "<script" not in json.dumps(data)  # what Plotly reads as HTML
    shown = [note["text"] for note in layout["annotations"]]
    assert shown.count("plain") == 1
    assert sum(note["showarrow"] for note in layout["annotations"]) == 1
    places = [(layout[f"xaxis{n}"]["domain"], layout[f"yaxis{n}"]["domain"]) for n in ("", "2", "3", "4")]
    assert [heat["showscale"], layout["legend"]["yanchor"]] == [True, "top"]  # so many names fit above no half
    for number, (across, down) in enumerate(places):
        assert 0 <= across[0] < across[1] <= 1
        assert 0 <= down[0] < down[1] <= 1
        for other_across, other_down in places[:number]:  # none covers another
            assert across[0] >= other_across[1] or down[1] <= other_down[0]


def test_what_is_alone_in_its_row_has_its_legend_above_it() -> None:
    lines = [f.Line([0, 1], [0, 1], "a line")]
    panels = [f.Panel(f.Axis("n", whole=True), f.Axis("y"), lines, title) for title in ("", "second")]
    layout = plotly_figure.data(f.Figure("made", "a title", "", panels))["layout"]
    for legend, axis in (("legend", "yaxis"), ("legend2", "yaxis2")):
        assert (layout[legend]["y"], layout[legend]["yanchor"]) == (layout[axis]["domain"][1], "bottom")
    assert [layout["legend"]["xanchor"], layout["legend2"]["xanchor"]] == ["left", "right"]
    (heading,) = layout["annotations"]
    assert (heading["text"], heading["xanchor"]) == ("second", "left")
    assert layout["xaxis"]["dtick"] == 1  # no tick between two whole numbers
    halves = plotly_figure.data(f.Figure("made", "a title", "", panels, columns=2))["layout"]
    assert [halves["legend"]["yanchor"], halves["legend2"]["yanchor"]] == ["bottom", "top"]  # the second has a heading


def test_plotly_itself_takes_the_data() -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    data = plotly_figure.data(FIGURE)
    assert len(graph_objects.Figure(data).data) == len(data["data"])  # raises for what it does not know


def test_without_plotly_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(MachineError, match=r"pip install 'nas-search\[plots\]'"):
        plotly_figure.page([FIGURE], "made")


def test_the_data_of_a_figure_names_its_marks() -> None:
    found = document(FIGURE)
    assert [mark["mark"] for mark in found["panels"][0]["marks"]][:3] == ["line", "band", "points"]
    assert found["panels"][1]["marks"][0]["values"][0] == [0.0, 0.5]


def mirror(plot: str, params: list[str] | None) -> Mirrored:
    trials = [
        MirroredTrial(n, State.FAILED if n == 4 else State.COMPLETE, None if n == 4 else n % 5 + 0.1 * n, n != 3,
                      {"a": n % 3, ODD: "pq"[n % 2]}, 100.0 + n, 101.5 + n)
        for n in range(12)
    ]  # fmt: skip
    options = {"a": [0, 1, 2], ODD: ["p", "q"]}
    return Mirrored("made", "a title", "a caption", plot, "score", "min", trials, options, params)  # type: ignore[arg-type]


@pytest.mark.parametrize("plot", get_args(Plot))
def test_optunas_pictures_open(plot: str) -> None:
    import matplotlib

    matplotlib.use("svg")
    before = dict(matplotlib.rcParams)
    figure = mirror(plot, None if plot in ("edf", "timeline") else ["a", ODD])
    image = numpy.asarray(Image.open(io.BytesIO(matplotlib_figure.render(figure, "png"))).convert("RGB"))
    assert min(image.shape[:2]) > 300
    assert len(numpy.unique(image.reshape(-1, 3), axis=0)) > 10
    texts = {"".join(node.itertext()) for node in xml.fromstring(matplotlib_figure.render(figure, "svg")).iter()}
    assert {"a title", "a caption"} <= texts
    assert not texts & {*WORDS, "'p'"}  # said in our words, and options as they are called
    assert dict(matplotlib.rcParams) == before
    pytest.importorskip("plotly")
    data = plotly_figure.data(figure)
    assert data["data"]
    assert "<script" not in json.dumps(data)
    titles = {axis["title"].get("text") for name, axis in data["layout"].items() if name[1:5] == "axis"}
    assert not titles & WORDS.keys()
    assert "'p'" not in json.dumps(data["data"])
    assert data["layout"].get("width") is None  # that of the page
