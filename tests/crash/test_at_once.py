"""Several searches that begin at the same moment on a database that is not there yet, or on one that is older."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nas_cli.app import run as nas
from studies.store.store import Store
from tests.crash.sessions import SEARCH, write_toy
from tests.crash.test_every_write import PROGRAM
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
def forked() -> Iterator[Together]:
    """As `fresh`, but at the same moment indeed: in forks."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NAS_")}
    with Zygote(["nas_cli.app", "pytest", *PROGRAM], environment) as zygote:

        def together(folder: Path, url: str, commands: list[list[str]]) -> list[str]:
            said = folder / "said"
            given = {"NAS_DB": url, "NAS_FILES": str(folder / "files")}
            function, path = "tests.crash.test_at_once:forks", [str(Path(__file__).parents[2])]
            call = Call(function, [json.dumps(commands)], str(folder), str(said), environment=given, path=path)
            return [said.read_text()] if zygote.wait(zygote.start(call)) else []

        yield together


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
