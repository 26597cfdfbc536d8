"""Long lists: a person sees the first trials and how to see more, a pipe gets all of them as they are read."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest

from nas_cli import render
from nas_cli.query import LOOKED_AT
from nas_core.architecture import Architecture
from nas_core.evaluation import Report
from nas_core.records import StopAt, Verdict
from nas_core.strategy import Proposal, State
from studies.store.store import Store
from studies.store.testing import SPEC

Said = Callable[..., tuple[int, str, str]]
TRIALS = LOOKED_AT + 7


@pytest.fixture
def long(folder: Path) -> Path:
    with Store("sqlite:///nas.db") as store:
        study = store.create_study("long", SPEC, StopAt())
        arch = Architecture("letters", {"a": 1})
        for number in range(TRIALS):
            verdict = Verdict(State.COMPLETE, None, (number / 100,), (-0.5,), 1.0)
            report = Report(1, {"score": number / 100})
            store.propose(study, number, Proposal(arch), "i", verdict, report=report)
    return folder


def terminal(*words: str) -> tuple[str, str]:
    """What a command prints on a terminal, and on stderr."""
    controller, end = pty.openpty()
    command = [sys.executable, "-m", "nas_cli", *words]
    done = subprocess.run(command, stdout=end, stderr=subprocess.PIPE, text=True, timeout=60, check=True)
    os.close(end)
    text = b""
    try:
        while chunk := os.read(controller, 65536):
            text += chunk
    except OSError:  # Linux: the other end is closed
        os.close(controller)
    return text.decode(), done.stderr


def test_a_person_sees_the_first_trials(long: Path) -> None:
    out, err = terminal("trials", "long")
    assert sum("long:" in line for line in out.splitlines()) == LOOKED_AT
    assert f"long:{LOOKED_AT - 1} " in out
    assert err == f"the first {LOOKED_AT} of {TRIALS} trials: see more by --limit, all of them by '| less'\n"
    out, err = terminal("trials", "long", "--sort", "-score", "--limit", str(TRIALS))
    assert (sum("long:" in line for line in out.splitlines()), err) == (TRIALS, "")


def test_a_pipe_gets_all_trials(long: Path, say: Said) -> None:
    code, out, err = say("trials", "long")
    assert (code, err, len(out.splitlines())) == (0, "", 1 + TRIALS)
    found = json.loads(say("trials", "long", "--json")[1])
    assert [trial["number"] for trial in found] == list(range(TRIALS))
    code, out, err = say("query", "SELECT number FROM trials ORDER BY number DESC", "--json")
    assert [row["number"] for row in json.loads(out)] == list(range(TRIALS))[::-1]


@pytest.mark.parametrize("form", ["table", "document"])
def test_what_is_printed_is_printed_as_it_comes(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = StringIO()

    def rows() -> Iterator[list[int]]:
        for number in range(1_000):
            assert stream.getvalue().count("\n") >= number - 210
            yield [number]

    monkeypatch.setattr(render, "write", stream.write)
    output = render.Output(stream)
    if form == "table":
        output.table(["number"], rows())
        assert stream.getvalue().split() == ["number", *map(str, range(1_000))]
    else:
        output.document(rows())
        assert json.loads(stream.getvalue()) == [[number] for number in range(1_000)]
