"""What searches keep for one another: whole or absent, shared by processes, made once."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
import pytest

from nas_cli.app import run as nas
from nas_core import moves
from nas_core.cache import alone
from nas_core.errors import MachineError, Notice
from search_spaces.nasbench201.space import NasBench201
from studies.store.file_cache import FOLDER, FileCache

VALUE = {"steps": 3, "name": "π", "done": False, "nothing": None, "parts": [{"weights": numpy.eye(3)}, 0.1]}


PROCESS = """
import os, sys, time
from pathlib import Path
import numpy
from nas_core.cache import alone
from studies.store.file_cache import FileCache

what, folder = sys.argv[1], Path(sys.argv[2])
cache = FileCache(folder / "kept")
if what == "writes":
    for number in range(20):
        cache["key"] = {"numbers": numpy.full(20_000, number)}
with alone(cache, "key"):
    if what == "dies":
        print("inside", flush=True)
        time.sleep(60)
    if "key" not in cache:
        with (folder / "log").open("a") as log:
            log.write(f"{os.getpid()}\\n")
        time.sleep(0.2)
        cache["key"] = {"steps": 3}
"""


def process(what: str, folder: Path) -> subprocess.Popen[bytes]:
    """Another process: "makes" what is not kept yet, "writes" often, or holds the key until it "dies"."""
    return subprocess.Popen([sys.executable, "-c", PROCESS, what, str(folder)], stdout=subprocess.PIPE)


def test_values_come_back(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "kept")
    assert (len(cache), list(cache), cache.get("a")) == (0, [], None)
    cache["a/b c"] = VALUE
    cache["a"] = {"shape": numpy.zeros((0, 2), numpy.int64)}
    again = FileCache(tmp_path / "kept")
    found = again["a/b c"]
    assert {name: found[name] for name in ("steps", "name", "done", "nothing")} == {
        "steps": 3, "name": "π", "done": False, "nothing": None,
    }  # fmt: skip
    numpy.testing.assert_array_equal(found["parts"][0]["weights"], numpy.eye(3))
    assert found["parts"][1] == 0.1
    assert (again["a"]["shape"].shape, again["a"]["shape"].dtype) == ((0, 2), numpy.int64)
    assert sorted(again) == ["a", "a/b c"]
    cache["a"] = {"now": 2}
    assert (again["a"], len(again)) == ({"now": 2}, 2)
    del again["a"]
    assert "a" not in cache
    with pytest.raises(KeyError):
        del cache["a"]
    with pytest.raises(TypeError, match="plain data and numpy arrays, got object"):
        cache["c"] = {"thing": object()}
    assert "c" not in cache


def test_a_damaged_file_is_absent(tmp_path: Path) -> None:
    cache = FileCache(tmp_path)
    cache["a"] = VALUE
    (path,) = tmp_path.glob("*.kept")
    whole = path.read_bytes()
    for damaged in (
        b"", b"x", whole[:-1], whole[:40], whole[1:], whole[:-9] + b"\1" + whole[-8:],
        whole.replace(b"steps", b"stops"),
    ):  # fmt: skip
        path.write_bytes(damaged)
        with pytest.warns(Notice, match="is damaged; what it held is made again"):
            assert (cache.get("a"), list(cache)) == (None, [])
    path.write_bytes(whole)
    assert cache["a"]["steps"] == 3
    path.rename(FileCache(tmp_path)._path("b"))  # a file under another name is of no use
    assert cache.get("b") is None


def test_it_is_made_once_by_several_processes(tmp_path: Path) -> None:
    makers = [process("makes", tmp_path) for _ in range(2)]
    assert [maker.wait(60) for maker in makers] == [0, 0]
    assert len((tmp_path / "log").read_text().split()) == 1
    assert FileCache(tmp_path / "kept")["key"] == {"steps": 3}


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    killed = process("dies", tmp_path)
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"inside\n"
    cache = FileCache(tmp_path / "kept")
    handle = os.open(next((tmp_path / "kept").glob("*.lock")), os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)
    killed.kill()
    killed.wait(60)
    with cache.alone("key"), cache.alone("key"):  # again inside: no waiting for oneself
        cache["key"] = VALUE
    assert cache["key"]["steps"] == 3


def test_writers_and_readers_at_once(tmp_path: Path) -> None:
    """A reader sees one of the values, whole, whatever is being written."""
    cache = FileCache(tmp_path / "kept")
    cache["key"] = {"numbers": numpy.full(20_000, -1)}
    writers = [process("writes", tmp_path) for _ in range(2)]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        numbers = cache["key"]["numbers"]
        assert len(numbers) == 20_000
        assert numbers.min() == numbers.max()
        seen.add(int(numbers[0]))
        time.sleep(0.0005)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(seen) > 1
    assert int(cache["key"]["numbers"][0]) == 19
    assert not list((tmp_path / "kept").glob("*.tmp"))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot write in"):
        FileCache(tmp_path / "file" / "kept")["a"] = VALUE
    assert FileCache(tmp_path / "file" / "kept").get("a") is None


def test_all_studies_of_a_database_share_it(bench: Any) -> None:
    with bench.store() as store:
        one, other = (bench.parts(bench.spec(seed=seed)).cached_in(store) for seed in (1, 2))
        one.setting.cache["trained"] = VALUE
        assert other.setting.cache["trained"]["steps"] == 3
        assert {path.parent for path in store.files.rglob("*.kept")} == {store.files / FOLDER}
    cache: dict[str, Any] = {}
    with alone(cache, "anything"):  # what one process alone has needs no lock
        cache["anything"] = VALUE


STRATEGY = """
import os, time
from nas_core.cache import alone
from strategies.basic.random_search import RandomSearch

class Trained(RandomSearch):
    def ask(self, number, pending):
        cache = self._setting.cache
        with alone(cache, "network"):
            if "network" not in cache:
                time.sleep(0.1)
                with open("log.txt", "a") as log:
                    log.write(f"{os.getpid()}\\n")
                cache["network"] = {"trained": True}
        return super().ask(number, pending)
"""


@pytest.mark.usefixtures("forked_workers")
def test_the_processes_of_a_bench_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space = NasBench201()
    table = "".join(f"{space.to_text(arch)},0.5\n" for arch in islice(moves.enumerate_all(space), 64))
    (tmp_path / "cells.csv").write_text("arch,valid\n" + table)
    (tmp_path / "cells.yaml").write_text(
        "space: nasbench201\nmatch: architecture\nrow: {text: arch}\ndata:\n  made:\n"
        "    task: {kind: image-classification, input_shape: [3, 32, 32], outputs: 10}\n"
        "    metrics: {val_accuracy: {column: valid}}\n"
    )
    (tmp_path / "own.py").write_text(STRATEGY)
    command = ["bench", "strategies", "--table", "cells.csv", "--strategies", "own.py:Trained,random"]
    options = ["--queries", "3", "--seeds", "3", "--jobs", "2", "--name", "b"]
    assert nas([*command, *options]) == 0
    assert len((tmp_path / "log.txt").read_text().split()) == 1
