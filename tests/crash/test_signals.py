"""SIGINT, SIGTERM and SIGHUP, to all processes of a group as a terminal, a scheduler or a service sends them: a command
stops in good order, says how to go on, ends with the code that a shell gives that signal, and goes on as if nothing
had been."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from nas_cli.app import run as nas
from studies.executors.processes import Process
from studies.executors.worker import STOPPING
from tests.crash.running import Fork, children, ended, finish, fresh, gone, rows_stored, said, until
from tests.crash.sessions import PACED_SEARCH, TOY_BENCH, contents, tries, write_toy
from tests.zygote import Zygote

Start = Callable[..., Fork]

WORKERS = ["--workers", "2"]


def nohup(arguments: Sequence[str]) -> int:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return nas(list(arguments))


def stop(process: Fork, number: signal.Signals, folder: Path) -> str:
    """Send a signal to all of a group; what the command says then."""
    offspring = children(process)
    os.killpg(process.pid, number)
    code, text = ended(process, folder)
    assert code == 128 + number, text
    gone(offspring)
    assert "stopping after the next checkpoint" in text
    assert "Traceback" not in text
    return text


def check_search(start: Start, place: Path, number: signal.Signals, workers: list[str]) -> None:
    whole, stopped = write_toy(place / "whole"), write_toy(place / "stopped")
    search = [*PACED_SEARCH, "--trials", "10", "--lag", "2"]
    finish(start, search, whole)
    process = start([*search, *workers], stopped)
    until(lambda: rows_stored(stopped / "nas.db") >= 4, process, stopped)
    stop(process, number, stopped)
    assert "nas resume s" in (stopped / "stdout").read_text()
    assert 4 <= rows_stored(stopped / "nas.db") < rows_stored(whole / "nas.db")
    assert set(tries(stopped / "nas.db")) == {0}  # it was nobody's fault
    finish(start, ["resume", "s", *workers], stopped)
    assert contents(stopped / "nas.db", durations=False) == contents(whole / "nas.db", durations=False)


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, []), (signal.SIGHUP, WORKERS)])
def test_a_search(start: Start, tmp_path: Path, number: signal.Signals, workers: list[str]) -> None:
    check_search(start, tmp_path, number, workers)


@pytest.mark.slow
@pytest.mark.parametrize("number", STOPPING)
@pytest.mark.parametrize("workers", [[], WORKERS])
def test_a_search_by_fresh_interpreters(
    zygote: Zygote, tmp_path: Path, number: signal.Signals, workers: list[str]
) -> None:
    check_search(partial(Fork, zygote), tmp_path, number, workers)


@pytest.mark.slow
@pytest.mark.parametrize("number", STOPPING)
def test_a_bench(zygote: Zygote, tmp_path: Path, number: signal.Signals) -> None:
    place = write_toy(tmp_path / "work")
    run = partial(Fork, zygote)
    process = run([*TOY_BENCH, "--queries", "12", "--seeds", "40", "--jobs", "2"], place)
    until(lambda: rows_stored(place / "nas.db") >= 20, process, place)
    assert "go on: nas bench resume b" in stop(process, number, place)
    finish(run, ["bench", "resume", "b", "--jobs", "1"], place)


@pytest.mark.parametrize("number", [signal.SIGHUP, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_training(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef net(task):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, task.outputs))\n"
    )
    train = ["train", "net.py:net", "--data", "digits", "--recipe", "quick", "--epochs", "20000"]
    process = start(train, tmp_path)
    until(lambda: "epoch " in said(tmp_path), process, tmp_path)
    assert "interrupted; go on with: nas train net-digits-1:0" in stop(process, number, tmp_path)
    assert list((tmp_path / "nas-files").rglob("checkpoint-*.json"))


def test_a_second_signal_stops_at_once(start: Start, tmp_path: Path) -> None:
    """In the middle of a step, which it would otherwise wait for."""
    place = write_toy(tmp_path / "work")
    process = start([*PACED_SEARCH, "--trials", "10", "-s", "evaluator.pause=600"], place)
    until(lambda: rows_stored(place / "nas.db") >= 1, process, place)
    process.send_signal(signal.SIGTERM)
    until(lambda: "stopping after" in said(place), process, place)
    for _ in range(3):  # from a terminal that closes
        process.send_signal(signal.SIGHUP)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert "nas resume s" in (place / "stdout").read_text()


def test_a_terminal_that_closes_does_not_stop_what_nohup_started(start: Start, tmp_path: Path) -> None:
    place = write_toy(tmp_path / "work")
    process = start([*PACED_SEARCH, "--trials", "6"], place, function="tests.crash.test_signals:nohup")
    until(lambda: rows_stored(place / "nas.db") >= 2, process, place)
    os.killpg(process.pid, signal.SIGHUP)
    assert ended(process, place)[0] == 0
    assert rows_stored(place / "nas.db") >= 6


def test_what_a_candidate_starts_can_be_stopped(start: Start, tmp_path: Path) -> None:
    """A worker hears of no signal, but the processes of a user's code do."""
    place = write_toy(tmp_path / "work")
    code = (place / "paced.py").read_text()
    (place / "paced.py").write_text(
        code.replace(
            "        for step in",
            "        import subprocess\n"
            "        sleeper = subprocess.Popen(['sleep', '600'])\n"
            "        sleeper.terminate()\n"
            "        assert sleeper.wait(60) == -15\n"
            "        for step in",
        )
    )
    finish(start, [*PACED_SEARCH, "--trials", "3", *WORKERS], place)
    assert set(tries(place / "nas.db")) == {0}


@pytest.mark.slow
def test_a_signal_before_anything_is_stored(tmp_path: Path) -> None:
    """While it imports: the default of the system, and nothing is left half-made."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        place = write_toy(tmp_path / number.name)
        process = fresh([*PACED_SEARCH, "--trials", "3"], place)
        process.send_signal(number)
        assert process.wait(60) == -number
        finish(fresh, [*PACED_SEARCH, "--trials", "3"], place)


def test_worker_processes_begin_where_no_signal_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what comes before they can say that they do not want to hear of it."""
    masks = []

    class Child:
        def __init__(self, **_: object) -> None: ...

        def kill(self) -> None: ...

        def start(self) -> None:
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    spawn = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Child)
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: spawn)
    Process("", None, None)
    assert masks[0].issuperset(STOPPING)
    assert not masks[0] & signal.pthread_sigmask(signal.SIG_BLOCK, ())
