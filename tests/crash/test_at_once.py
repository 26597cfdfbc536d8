"""Several searches that begin at the same moment on a database that is not there yet, or on one that is older; and that
write into it together until they end."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from nas_cli.app import run as nas
from nas_core.strategy import State
from studies.store.store import Store
from tests.crash.sessions import SEARCH, TOY, stored, write_toy
from tests.zygote import Call, Zygote

Together = Callable[[Path, str, list[list[str]]], list[str]]


def fresh(folder: Path, url: str, commands: list[list[str]]) -> list[str]:
    """Run commands together, in interpreters of their own; what those that fail say."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NAS_")}
    environment |= {"NAS_DB": url, "NAS_FILES": str(folder / "files"), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "nas_cli", *command],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    ended = [(process.communicate(timeout=600)[1], process.returncode) for process in running]
    return [said for said, code in ended if code]


def forks(arguments: list[str]) -> int:
    """In a fork of a zygote: run the commands that one JSON text lists together, each in a fork of its own."""
    children = []
    for command in json.loads(arguments[0]):
        children.append(os.fork())
        if children[-1] == 0:
            os._exit(nas(command))
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


@pytest.fixture(scope="module")
def forked(zygote: Zygote) -> Together:
    """As `fresh`, but at the same moment indeed: in forks."""

    def together(folder: Path, url: str, commands: list[list[str]]) -> list[str]:
        said = folder / "said"
        given = {"NAS_DB": url, "NAS_FILES": str(folder / "files")}
        function, path = "tests.crash.test_at_once:forks", [str(Path(__file__).parents[2])]
        call = Call(function, [json.dumps(commands)], str(folder), str(said), environment=given, path=path)
        return [said.read_text()] if zygote.wait(zygote.start(call)) else []

    return together


def check_rounds(at_once: Together, folder: Path, make: Callable[[], str], rounds: int) -> None:
    """Four first searches at once, then four that leave their names to be chosen, on a new database each round."""
    for number in range(rounds):
        place = write_toy(folder / f"round{number}")
        url = make()
        search = [*SEARCH, "--trials", "3"]
        assert at_once(place, url, [[*search, "--study", f"s{n}"] for n in range(4)]) == []
        assert at_once(place, url, [search] * 4) == []
        with Store(url, place / "files", reading=True) as store:
            names = store.study_names()
            assert sorted(names) == ["s0", "s1", "s2", "s3", *(f"toy-pics-{n}" for n in range(1, 5))]
            for name in names:
                assert [run.finished for run in store.trials(store.study(name))] == [True] * 3
        shutil.rmtree(place)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[], str]:
    """Gives the URL of a new file."""
    numbers = iter(range(1000))
    return lambda: f"sqlite:///{tmp_path}/{next(numbers)}.db"


def test_first_searches_at_once(forked: Together, tmp_path: Path, file: Callable[[], str]) -> None:
    check_rounds(forked, tmp_path, file, 1)


def test_first_searches_at_once_on_a_server(forked: Together, tmp_path: Path, postgresql: Callable[[], str]) -> None:
    check_rounds(forked, tmp_path, postgresql, 1)


@pytest.mark.slow
def test_twenty_rounds_at_once(tmp_path: Path, file: Callable[[], str]) -> None:
    check_rounds(fresh, tmp_path, file, 20)


@pytest.mark.slow
def test_twenty_rounds_at_once_on_a_server(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    check_rounds(fresh, tmp_path, postgresql, 20)


def check_writers(at_once: Together, folder: Path, processes: int, trials: int) -> None:
    """Searches that write into one file together: each study is whole, and the one that a search alone makes."""
    place = write_toy(folder / "work")
    (place / "toy.py").write_text(TOY.replace("(8, 16, 32)", "tuple(range(1, 401))"))
    url = f"sqlite:///{place}/nas.db"
    search = ["search", "--space", "toy.py:space", "--evaluator", "paced.py:Paced", "-s", "evaluator.pause=0"]
    commands = [
        [*search, "--trials", str(trials), "--strategy", "random", "--lag", "2", "--study", f"s{n}", "--seed", str(n)]
        for n in range(processes)
    ]
    assert at_once(place, url, commands) == []
    with Store(url, place / "files", reading=True) as store:
        found = stored(store)
        assert store.query("SELECT count(*), count(DISTINCT study || ':' || number) FROM runs")[1] == [
            (sum(map(len, found.values())), sum(map(len, found.values())))
        ]
        for name in (f"s{n}" for n in range(processes)):
            runs = list(store.trials(store.study(name)))
            assert [run.number for run in runs] == list(range(len(runs)))
            evaluated = [run for run in runs if run.state == State.COMPLETE]
            assert len(evaluated) == trials
            assert all([report.step for report in store.curve(run)] == [1, 2, 3, 4] for run in evaluated)
    with closing(sqlite3.connect(place / "nas.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    last = processes - 1
    assert at_once(place, f"sqlite:///{place}/alone.db", [commands[last]]) == []
    with Store(f"sqlite:///{place}/alone.db", place / "files", reading=True) as store:
        assert stored(store) == {f"s{last}": found[f"s{last}"]}


def test_four_processes_that_write_into_one_file(forked: Together, tmp_path: Path) -> None:
    check_writers(forked, tmp_path, 4, 40)


@pytest.mark.slow
def test_sixteen_processes_that_write_into_one_file(tmp_path: Path) -> None:
    check_writers(fresh, tmp_path, 16, 500)
