"""Fixtures that every test may use."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgresql import NoServer, server

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in children: workers share the cores

# What a worker process imports for a search that trains, and what takes long to import.
WORKER = ("studies.executors.worker", "studies.bench.worker", "training.evaluators.train", "torch._dynamo")
WORKER += ("sklearn.datasets", "search_spaces.nasbench201.network", "training.data.bound", "training.data.digits")

pytest_plugins = ["pytester", "tests.plugins.cpu", "tests.plugins.lottery"]


@pytest.fixture(scope="session", autouse=True)
def brief_latencies() -> Iterator[None]:
    """Half a second for every network whose latency is measured would be much of what tests cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.latency.SECONDS", 0.05)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets and benchmark tables; a test that needs it skips where it is absent."""
    root = Path(os.environ.get("NAS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (root / "data" / "nb201.csv.gz").is_file():
        pytest.skip(f"needs the shared data sets and tables ({root / 'data'}, or set NAS_SHARED)")
    return root / "data"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Makes an empty PostgreSQL database and gives its URL; a test skips where no server can be started."""
    try:
        with server() as new_database:
            yield new_database
    except NoServer as error:
        pytest.skip(f"needs a PostgreSQL server: {error}")


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes are forks of a server that has imported what they need, not fresh interpreters: in other
    respects the same, and seconds cheaper. What begins in a fresh interpreter has a test without this in every file."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([*WORKER])
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: server)
