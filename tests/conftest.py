"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.browser import Browser, NoBrowser, started
from tests.postgresql import NoServer, server
from tests.zygote import Call, Zygote, every_module

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in children: workers share the cores

# What a worker process imports for a search that trains, and what takes long to import.
WORKER = ("studies.executors.worker", "studies.bench.worker", "training.evaluators.train", "torch._dynamo")
WORKER += ("sklearn.datasets", "search_spaces.nasbench201.network", "training.data.bound", "training.data.digits")

# What takes long to import, beside the program, for commands and checks that are forks. Not onnxruntime: it starts a
# thread, which no fork has.
IMPORTED = (
    *("torch._dynamo", "torch_geometric.nn", "sklearn.ensemble", "sklearn.datasets", "matplotlib.pyplot"),
    *("sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql.psycopg", "pytest"),
    "torch.export._trace",  # what the first tracing imports, for seconds
)

pytest_plugins = ["pytester", "tests.plugins.cpu", "tests.plugins.lottery"]


def pytest_collection() -> None:
    gc.disable()  # what is imported and collected lives until the end


def pytest_collection_finish() -> None:
    """From now on garbage is looked for in what is new, and seldom in what has lived for long."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 50)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def brief_latencies() -> Iterator[None]:
    """Half a second for every network whose latency is measured would be much of what tests cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.latency.SECONDS", 0.05)
        yield


@pytest.fixture(scope="session", autouse=True)
def brief_conversions() -> Iterator[None]:
    """What ONNX has for the operators of torch is read from its sources once, not in every export: 0.4 s of two."""
    if "torch" not in sys.modules:  # no test that is run here exports
        yield
        return
    from torch.onnx._internal._lazy_import import onnxscript_apis as found_late

    with pytest.MonkeyPatch.context() as patch:
        read = cache(lambda: type(found_late).__getattr__(found_late, "get_torchlib_ops")())
        patch.setitem(vars(found_late), "get_torchlib_ops", read)
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


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless browser that reaches this machine alone; a test skips where there is none."""
    try:
        with started() as found:
            yield found
    except NoBrowser as error:
        pytest.skip(f"needs a browser: {error}")


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes are forks of a server that has imported what they need, not fresh interpreters: in other
    respects the same, and seconds cheaper. Those of
    `tests/cli/test_data.py` and of the documents begin in fresh interpreters."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([*WORKER])
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: server)


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Has imported the program, and what that imports late, once for all tests of a process; no `NAS_` is set in it."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NAS_")}
    with Zygote([*every_module(), *IMPORTED], plain) as started:
        yield started


@pytest.fixture
def forked_checks(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are verified in forks of a process that has imported what that needs, not in fresh interpreters; those of
    the module fixtures of `test_export` and `test_deployed` are verified in fresh ones."""
    streams = {name: tmp_path_factory.mktemp("check") / name for name in ("stdin", "stdout", "stderr")}

    def run(command: list[str], input: str, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[:2] == [sys.executable, "-P"]
        for name, stream in streams.items():
            stream.write_text(input if name == "stdin" else "")
        files = {name: str(stream) for name, stream in streams.items()}
        path = env["PYTHONPATH"].split(os.pathsep)
        call = Call("__main__:program", command[2:], os.getcwd(), environment=env, path=path, **files)
        code = zygote.wait(zygote.start(call))
        assert code is not None
        return subprocess.CompletedProcess(command, code, streams["stdout"].read_text(), streams["stderr"].read_text())

    monkeypatch.setattr("training.export.verify.subprocess", SimpleNamespace(run=run))
