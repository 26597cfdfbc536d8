"""Tables on narrow terminals and in pipes."""

from __future__ import annotations

import io
import math
import re

import pytest

from nas_cli import render

HEADS = ["study", "space", "strategy", "data", "evaluated", "best", "failures", "created"]
ROWS = [
    ["a", "toy.py:space", "random", "pics (table)", "3/3", "val_accuracy 0.64", "0", "2026-11-29 08:50:34"],
    ["digits-1", "nasbench201", "regularized-evolution", "digits", "17/20", "val_accuracy 0.89326", "2", "2026-11-29"],
]
SPARE = ["created", "failures", "data"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, columns: int) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        render.table(HEADS, ROWS, right=["evaluated"], spare=SPARE)
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()


def test_a_narrow_terminal_keeps_words_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(monkeypatch, Terminal(), 80)
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == [head for head in HEADS if head not in SPARE]
    text = "\n".join(lines)
    assert all(word in text for word in ("toy.py:space", "val_accuracy 0.89326", "nasbench201", "17/20"))
    assert capsys.readouterr().err.startswith("too narrow for created, failures, data: ")


def test_a_wide_terminal_shows_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(monkeypatch, Terminal(), 160)
    assert lines[0].split() == HEADS
    assert len(lines) == 2 + len(ROWS)
    assert capsys.readouterr().err == ""


def test_in_a_pipe_a_row_is_a_line_of_tab_separated_values(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, io.StringIO(), 20)
    assert [line.split("\t") for line in lines] == [HEADS, *ROWS]


CELLS: list[render.Cell] = [0.1 + 0.2, 1531546.0, 12, None, "two\twords", math.nan, render.Rounded(1 / 3, "0.33")]


@pytest.mark.parametrize(
    ("stream", "shown"),
    [
        (io.StringIO, "0.30000000000000004\t1531546\t12\t\ttwo words\tnan\t0.3333333333333333"),
        (Terminal, "0.3 1,531,546 12 two words nan 0.33"),
    ],
)
def test_numbers_are_whole_for_programs_and_rounded_for_people(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], shown: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    printed = stream()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", printed)
        render.table([str(place) for place in range(len(CELLS))], [CELLS])
    row = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue()).splitlines()[-1]
    assert (row if "\t" in row else " ".join(row.split())) == shown
