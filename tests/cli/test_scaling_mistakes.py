"""What does not fit where a study is worked on elsewhere: a line or two, the right exit code, the study intact."""

from __future__ import annotations

import json
import socket
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nas_core import distribution
from studies.search import start
from studies.setup.config import SearchConfig
from studies.store.store import Store
from tests.cli import test_bench as table
from tests.cli import test_worker as workers

Say = Callable[..., tuple[int, str, str]]
SMALL = ("--size", "channels=2,cells=1", "--epochs", "1", "-s", "split.limit=200", "--threads", "1", "--trials", "2")
SEARCH = ("search", "--study", "s", "--lag", "2", *SMALL)
TABULAR = ("search", "--study", "s", "--space", "dials.py:space", "--table", "dials.csv", "--trials", "2")
ELSEWHERE = "postgresql+psycopg://nas:secret@127.0.0.1:1/studies"

pytestmark = pytest.mark.filterwarnings("ignore:study '.' waits for workers")


@pytest.fixture
def unused() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def said(say: Say, *command: str, code: int) -> str:
    """What a command says that ends with this code: one or two lines, and nothing on stdout."""
    found, out, err = say(*command)
    assert (found, out) == (code, ""), err
    assert 1 <= len(err.splitlines()) <= 2, err
    assert "Traceback" not in err
    return err


def trials(say: Say) -> list[object]:
    return [(one["number"], one["metrics"]) for one in json.loads(say("trials", "s", "--json")[1])]


def test_a_study_that_could_not_begin_there_begins_here(
    folder: Path, say: Say, monkeypatch: pytest.MonkeyPatch, unused: int
) -> None:
    """No package, no cluster at an address, none by a name, an address that is none."""
    search = (*SEARCH, "--workers", "2", "--executor")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        assert "run: pip install 'nas-search[ray]'" in said(say, *search, "ray", code=5)
    for address in (f"127.0.0.1:{unused}", f"nowhere.invalid:{unused}"):
        assert f"no Ray cluster answers at {address}" in said(say, *search, f"ray:{address}", code=5)
    assert "write ray:HOST:PORT" in said(say, "resume", "s", "--executor", "ray:10.0.0.1", code=2)
    assert trials(say) == []
    code, _, err = say("resume", "s", "--executor", "inline")
    assert code == 0, err
    assert len(trials(say)) == 2


def test_a_database_that_cannot_be_reached(folder: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = (SEARCH, ("resume", "s"), ("worker", "s"), ("bench", "resume", "s"), ("ls",))
    for command in commands:
        err = said(say, *command, "--db", ELSEWHERE, code=5)
        assert "cannot reach the database postgresql+psycopg://nas:***@127.0.0.1:1/studies" in err
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for command in commands:
        assert "run: pip install 'psycopg[binary]'" in said(say, *command, "--db", ELSEWHERE, code=5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--per-gpu", "2", "--workers", "2"), "--per-gpu is for work on a GPU, and this is on cpu"),
        (("--gpu-memory", "2", "--workers", "2"), "--gpu-memory is for work on a GPU, and this is on cpu"),
        (("--per-gpu", "2", "--gpu-memory", "2"), "leave one of them out"),
        (("--per-gpu", "0"), "greater than or equal to 1 (got 0)"),
        (("--gpu-memory", "nan"), "a finite number (got nan)"),
        (("--per-gpu", "2", "--executor", "queue"), "workers of a queue share a GPU where several are started on it"),
        (("--executor", "queue:0"), "write queue:SECONDS"),
        (("--executor", "processes:7"), "--executor processes:7: 'processes' is given nothing after a colon"),
        (("--executor", "inline:"), "'inline' is given nothing after a colon"),
    ],
)
def test_what_is_asked_of_workers_and_does_not_fit(
    folder: Path, say: Say, options: tuple[str, ...], words: str
) -> None:
    assert words in said(say, *SEARCH, *options, code=2)
    if (folder / "nas.db").exists():
        assert trials(say) == []


@pytest.mark.usefixtures("forked_workers")
def test_more_workers_than_the_lag_is_said(folder: Path, say: Say) -> None:
    table.write(folder)
    code, _, err = say(*TABULAR, "--lag", "2", "--workers", "3", "--executor", "inline")
    assert (code, "leave out --workers 3" in err) == (2, True)
    code, _, err = say(*SEARCH, "--workers", "2", "--trials", "1")
    assert (code, "lag" in err) == (0, False)
    code, _, err = say("resume", "s", "--workers", "3", "--trials", "2")
    assert code == 0, err
    assert "the study's lag is 2, so no more than that of 3 workers are busy\n" in err


def test_a_worker_of_another_version(folder: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    workers.made()
    with workers.wanted() as queue, monkeypatch.context() as patch:
        patch.setattr(distribution, "version", lambda: "99.0")
        assert "and this is 99.0; install the same version everywhere" in said(say, "worker", "s", code=5)
        assert queue.attempts() == []


@pytest.mark.usefixtures("forked_workers")
def test_a_worker_without_the_data(folder: Path, say: Say) -> None:
    table.write(folder)
    asked = {"table": "dials.csv", "data": "made", "trials": 2}
    with Store("sqlite:///nas.db") as store:
        start.start(store, start.planned(SearchConfig(study="s", space="dials.py:space", **asked)))
    with workers.wanted() as queue:
        Path("dials.csv").rename("elsewhere.csv")
        err = said(say, "worker", "s", code=3)
        assert "dials.csv" in err.splitlines()[0]
        assert err.splitlines()[1].startswith("A worker needs the files and the data of its study: copy them here")
        assert err.splitlines()[1].endswith("(data elsewhere: --data)")
        assert queue.attempts() == []


@pytest.mark.usefixtures("forked_workers")
def test_a_device_of_another_type_than_the_studys(folder: Path, say: Say) -> None:
    workers.made()
    for device in ("cuda", "cuda:1", "tpu"):
        err = said(say, "worker", "s", "--device", device, "--idle", "0.1", code=2)
        assert err.startswith(f"nas: --device {device}: study 's' works on cpu, and results of another type of device")
    with workers.wanted() as queue:
        with sqlite3.connect("nas.db") as connection:
            connection.execute("UPDATE studies SET evaluator = json_set(evaluator, '$.device', 'cuda:99')")
        connection.close()
        there_is_none = "there is no device 'cuda:99' (CUDA devices found: "
        for command in (("worker", "s"), ("resume", "s"), ("resume", "s", "--executor", "processes")):
            err = said(say, *command, code=5)
            assert there_is_none in err
            assert "and the study works on one; go on where it is" in err
        assert queue.attempts() == []
