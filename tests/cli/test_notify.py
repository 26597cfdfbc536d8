"""`--notify`: what a command of the user's own is told of a search."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nas_cli.notify import BEST, Message, Notifier
from tests.cli.test_own_evaluator import FILE, SEARCH

Say = Callable[..., tuple[int, str, str]]
TELL = """echo "$NAS_EVENT|$NAS_STUDY|$NAS_TRIAL|$NAS_MESSAGE" >> told.txt"""


@pytest.fixture(autouse=True)
def mine(folder: Path) -> None:
    (folder / "mine.py").write_text(FILE)


def told(folder: Path) -> list[list[str]]:
    lines = [line.split("|") for line in (folder / "told.txt").read_text().splitlines()]
    (folder / "told.txt").unlink()
    return lines


def test_bests_failures_and_the_end(folder: Path, say: Say) -> None:
    code, out, err = say(*SEARCH, "--study", "a", "--trials", "8", "--notify", TELL, "--json")
    assert code == 0, err
    found = told(folder)
    trials = json.loads(say("trials", "a", "--json")[1])
    failed = {str(trial["number"]) for trial in trials if trial["state"] == "failed"}
    assert failed
    assert {line[2] for line in found if line[0] == "failed"} <= failed
    assert [line for line in found if line[0] == BEST][-1][2] == str(json.loads(out)["best"]["number"])
    assert found[-1] == ["end", "a", "", "a: all trials are done"]
    # What was best before is no news.
    assert say("resume", "a", "--trials", "9", "--notify", TELL)[0] == 0
    after = json.loads(say("best", "a", "--json")[1])["number"]
    assert [line[2] for line in told(folder) if line[0] == BEST] == ([str(after)] if after >= 8 else [])


def test_a_command_that_fails_is_named_once(say: Say) -> None:
    code, _, err = say(*SEARCH, "--study", "a", "--trials", "3", "--notify", "no-such-command-here")
    assert code == 0
    assert err.count("--notify") == 1
    assert "warning: --notify: 'no-such-command-here' ended with exit code 127: " in err


def test_a_command_that_does_not_end_is_killed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Notifier("echo $$ > pid; sleep 100 & sleep 100", "a", seconds=1.0) as notifier:
        notifier.tell(Message(BEST, "a", "trial 0 is the best", 0))
    assert "did not end within 1 s" in capsys.readouterr().err
    group = int((folder / "pid").read_text())
    for _ in range(50):  # until init has reaped what was killed
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("what the command has started is still running")


def test_events_of_one_kind_are_told_together_while_another_command_runs(folder: Path) -> None:
    with Notifier("while [ ! -e go ]; do sleep 0.05; done; " + TELL, "a") as notifier:
        notifier.tell(Message("failed", "a", "trial 0 failed", 0))
        while notifier._pending:  # until the first command runs
            time.sleep(0.01)
        for number in (1, 2, 3):
            notifier.tell(Message(BEST, "a", f"trial {number} is the best", number))
        (folder / "go").touch()
    assert told(folder) == [
        ["failed", "a", "0", "a: trial 0 failed"],
        ["best", "a", "3", "a: trial 3 is the best (2 more before)"],
    ]


def test_an_error_is_the_end(folder: Path) -> None:
    with pytest.raises(RuntimeError), Notifier(TELL, "a"):
        raise RuntimeError("$(touch x); the disk is full")
    # What is told is a value, never a part of the command.
    assert told(folder) == [["end", "a", "", "a: stopped: $(touch x); the disk is full"]]
    assert not (folder / "x").exists()


def test_what_is_not_taken(say: Say) -> None:
    assert say(*SEARCH, "--study", "a", "--notify", " ")[0] == 2
    assert "--notify" in say(*SEARCH, "--print-config", "--notify", TELL)[2]
