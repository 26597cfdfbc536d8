"""`nas plot`: files, data, pictures and blocks in the terminal, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import os
import pty
import re
import sys
import threading
import tty
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from PIL import Image

from nas_cli import blocks, complete, inline
from nas_core.architecture import Architecture
from nas_core.records import StopAt, Verdict
from nas_core.strategy import Proposal, State
from reports import figure as f
from reports.kinds import KINDS
from studies.store.store import Store
from studies.store.testing import SPEC

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def stored(folder: Path) -> None:
    spec = SPEC.model_copy(update={"objectives": ("score:max", "ms:min"), "constraints": ()})
    with Store("sqlite:///nas.db", create=True) as store:
        for name in ("s", "empty"):
            study = store.create_study(name, spec, StopAt())
            for number in range(12 if name == "s" else 0):
                arch = Architecture("letters", {"a": number % 3})
                verdict = Verdict(State.COMPLETE, None, (number % 5 / 10, -float(number)))
                store.propose(study, number, Proposal(arch), f"i{number}", verdict)


def test_one_figure_is_one_file(say: Say, folder: Path) -> None:
    assert say("plot", "s", "--kind", "history", "--out", "h.png") == (0, "figure: h.png\n", "")
    assert Image.open(folder / "h.png").size == (960, 780)
    assert say("plot", "s", "--kind", "front", "--out", "h.SVG")[0] == 0
    assert (folder / "h.SVG").read_text().startswith("<?xml")


def test_several_are_a_file_each_or_one_page(say: Say, folder: Path) -> None:
    code, out, err = say("plot", "s", "--kind", "history,front,history", "--out", "h.svg")
    assert (code, out, err) == (0, "figure: h-history.svg\nfigure: h-front.svg\n", "")
    pytest.importorskip("plotly")
    code, out, err = say("plot", "s", "--kind", "history,front", "--out", "h.html")
    assert (code, out, err) == (0, "figure: h.html\n", "")
    assert len(re.findall(r'<div id="figure-\d', (folder / "h.html").read_text())) == 2
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]


def test_json_is_the_data(say: Say) -> None:
    code, out, err = say("plot", "s", "--json")
    (found,) = json.loads(out)
    assert (code, err, found["kind"]) == (0, "", "front")  # what shows most of two objectives
    front = [mark for mark in found["panels"][0]["marks"] if mark["name"] == "front"]
    assert sorted(zip(front[0]["x"], front[0]["y"], strict=True)) == [(0.0, 0), (0.1, 1), (0.2, 2), (0.3, 3), (0.4, 4)]


def test_all_that_there_can_be(say: Say, folder: Path) -> None:
    code, out, _ = say("plot", "s", "--kind", "all", "--out", "all.svg")
    assert code == 0
    names = {line.removeprefix("figure: all-").removesuffix(".svg") for line in out.splitlines()}
    assert {"history", "front", "importance", "timeline"} <= names <= KINDS.keys()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["s", "--kind", "histroy"], 2, "unknown kind of figure 'histroy'; did you mean 'history'?"),
        (["s", "--kind", ","], 2, "--kind ',' names none; it could be: history, front"),
        (["s", "--out", "x.pdf"], 2, "--out 'x.pdf': figures are .png, .svg or .html"),
        (["s", "--out", "no/x.png"], 2, "there is no folder 'no'"),
        (["s", "--out", "x.png", "--json"], 2, "leave one of them out"),
        (["nobody"], 3, "no study 'nobody'"),
        (["./s.json"], 2, "'./s.json' is a file; name a study"),
        (["s:99"], 3, "has no trial 99"),
        (["s/supernet"], 2, "'s/supernet' is drawn with its study; write s"),
        (["empty"], 3, "study 'empty' has no measured trial yet"),
        (["s", "--kind", "importance", "--db", "none.db"], 3, "none.db"),
    ],
)
def test_mistakes_are_a_line(say: Say, words: list[str], code: int, said: str) -> None:
    found, out, err = say("plot", *words)
    assert (found, out) == (code, "")
    assert said in err
    assert len(err.splitlines()) <= 2


def test_in_a_pipe_blocks_without_colours(say: Say) -> None:
    code, out, err = say("plot", "s", "--kind", "history")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    lines = out.splitlines()
    assert lines[0] == "s: history"
    assert any(set(line) & set(blocks.DOTS.strip()) for line in lines)
    assert "■ trials  ■ best so far" in out
    assert "All 12 measured trials drawn; higher is better." in out


def test_optunas_pictures_are_shades(say: Say) -> None:
    code, out, err = say("plot", "s", "--kind", "edf")
    assert (code, err) == (0, "")
    assert set(out) <= {*blocks.SHADES, "\n"}
    assert len(set(out)) > 2


def test_blocks_put_dots_where_the_values_are() -> None:
    axes = f.Axis("x", limits=(0, 10)), f.Axis("y", limits=(0, 10))
    panel = f.Panel(*axes, [f.Points([0, 10], [0, 10], name="both")])
    lines = [line.partition("│")[2] for line in blocks.lines(f.Figure("k", "t", "c", [panel]), 40, colors=False)]
    rows = [line for line in lines if line]
    assert rows[0].rstrip() == " " * 28 + "▝"  # 40 columns without the margin and the edge
    assert rows[-1].rstrip() == "▖"
    assert len(rows) == 2  # rstripped rows between are empty


def test_blocks_of_every_mark() -> None:
    marks: list[f.Mark] = [
        f.Line([1, 2, 3], [1.0, float("nan"), 3.0], steps=True),
        f.Bars([1, 2], [3.0, 1.0], "bars"),
        f.Bars([1, 2], [3.0, 1.0], lying=True),
        f.Band([1, 2], [1, 1], [2, 2]),
        f.Segments([1], [1], [3], [3]),
        f.Labels([2], [2], ["a\x1b[31mname"], boxed=True),
    ]
    cells = f.Panel(f.Axis("epoch"), f.Axis(names=["one", "two"]), [f.Cells([[0.0, 1.0], [0.5, float("nan")]], "w")])
    panels = [f.Panel(f.Axis("x"), f.Axis("y", log=True), marks, "title"), cells]
    lines = blocks.lines(f.Figure("k", "t", "c", panels), 60, colors=True)
    text = "\n".join(lines)
    assert "[a?[31mname]" in text  # no control character of a name
    assert "one | █|" in lines
    assert "two |▒ |" in lines


PNG = io.BytesIO()
Image.fromarray(numpy.random.default_rng(0).choice([0, 255], (20, 31, 3)).astype("uint8")).save(PNG, "png")


@pytest.mark.parametrize(
    ("variables", "able"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm", "TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "foot", "TMUX": "1"}, None),
        ({"TERM": "xterm"}, None),
        ({}, None),
    ],
)
def test_what_a_terminal_can_is_in_its_variables(variables: dict[str, str], able: str | None) -> None:
    assert inline.protocol(variables) == able


def test_kittys_messages_hold_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "CHUNK", 64)
    messages = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", inline.kitty(PNG.getvalue()))
    assert [keys for keys, _ in messages] == ["a=T,f=100,m=1", *["m=1"] * (len(messages) - 2), "m=0"]
    assert base64.b64decode("".join(part for _, part in messages)) == PNG.getvalue()
    assert all(len(part) <= 64 for _, part in messages)


def test_iterms_message_holds_the_picture() -> None:
    found = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+):(.*)\a\n", inline.iterm(PNG.getvalue()))
    assert found is not None
    assert (int(found[1]), base64.b64decode(found[2])) == (len(PNG.getvalue()), PNG.getvalue())


def test_sixels_are_the_pixels() -> None:
    """Read back by a reader of its own."""
    text = inline.sixel(PNG.getvalue())
    head = re.fullmatch(r'\x1bP0;1q"1;1;31;20(.*)\x1b\\\n', text, re.S)[1]  # type: ignore[index]
    palette: dict[int, tuple[int, ...]] = {}
    while found := re.match(r"#(\d+);2;(\d+);(\d+);(\d+)", head):
        palette[int(found[1])] = tuple(round(int(part) * 2.55) for part in found.groups()[1:])
        head = head[found.end() :]
    image = numpy.zeros((24, 31, 3), dtype=int)
    for band, line in enumerate(head.split("-")):
        for row in line.split("$"):
            color, column = int(re.match(r"#(\d+)", row)[1]), 0  # type: ignore[index]
            for count, letter in re.findall(r"!(\d+)(.)", row.partition("!")[1] + row.partition("!")[2]):
                for bit in range(6):
                    if (ord(letter) - 63) >> bit & 1:
                        image[6 * band + bit, column : column + int(count)] = palette[color]
                column += int(count)
            assert column == 31
    assert (image[:20] == numpy.asarray(Image.open(PNG).convert("RGB"))).all()


@pytest.mark.parametrize(("answer", "able"), [(b"\x1b[?62;4;22c", True), (b"\x1b[?62;14;22c", False), (b"", False)])
def test_a_terminal_is_asked(answer: bytes, able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, its = pty.openpty()
    tty.setraw(ours)

    def terminal() -> None:
        asked = b""
        while not asked.endswith(b"\x1b[c"):
            asked += os.read(ours, 16)
        os.write(ours, answer)

    thread = threading.Thread(target=terminal)
    thread.start()
    with os.fdopen(os.dup(its), "w") as out, os.fdopen(its) as given:
        monkeypatch.setattr(sys, "stdin", given)
        monkeypatch.setattr(inline, "data", lambda: out)
        monkeypatch.setattr(inline, "write", lambda text: (out.write(text), out.flush()))
        assert inline.protocol({"TERM": "xterm-256color"}) == (inline.SIXEL if able else None)
    thread.join()
    os.close(ours)


def test_the_shell_offers_the_kinds() -> None:
    assert complete.figures(None, "hi") == ["history"]  # type: ignore[arg-type]
