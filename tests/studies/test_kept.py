"""What searches keep for one another: whole or absent, shared by processes, made once."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
import pytest

from nas_core import moves
from nas_core.errors import MachineError
from nas_core.kept import alone
from search_spaces.nasbench201 import NasBench201
from studies.kept import FOLDER, Kept

VALUE = {"steps": 3, "name": "π", "done": False, "nothing": None, "parts": [{"weights": numpy.eye(3)}, 0.1]}


PROCESS = """
import os, sys, time
from pathlib import Path
import numpy
from nas_core.kept import alone
from studies.kept import Kept

what, folder = sys.argv[1], Path(sys.argv[2])
kept = Kept(folder / "kept")
if what == "writes":
    for number in range(40):
        kept["key"] = {"numbers": numpy.full(20_000, number)}
with alone(kept, "key"):
    if what == "dies":
        print("inside", flush=True)
        time.sleep(60)
    if "key" not in kept:
        with (folder / "log").open("a") as log:
            log.write(f"{os.getpid()}\\n")
        time.sleep(0.2)
        kept["key"] = {"steps": 3}
"""


def process(what: str, folder: Path) -> subprocess.Popen[bytes]:
    """Another process: "makes" what is not kept yet, "writes" often, or holds the key until it "dies"."""
    return subprocess.Popen([sys.executable, "-c", PROCESS, what, str(folder)], stdout=subprocess.PIPE)


def test_values_come_back(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept")
    assert (len(kept), list(kept), kept.get("a")) == (0, [], None)
    kept["a/b c"] = VALUE
    kept["a"] = {"shape": numpy.zeros((0, 2), numpy.int64)}
    again = Kept(tmp_path / "kept")
    found = again["a/b c"]
    assert {name: found[name] for name in ("steps", "name", "done", "nothing")} == {
        "steps": 3, "name": "π", "done": False, "nothing": None,
    }  # fmt: skip
    numpy.testing.assert_array_equal(found["parts"][0]["weights"], numpy.eye(3))
    assert found["parts"][1] == 0.1
    assert (again["a"]["shape"].shape, again["a"]["shape"].dtype) == ((0, 2), numpy.int64)
    assert sorted(again) == ["a", "a/b c"]
    kept["a"] = {"now": 2}
    assert (again["a"], len(again)) == ({"now": 2}, 2)
    del again["a"]
    assert "a" not in kept
    with pytest.raises(KeyError):
        del kept["a"]
    with pytest.raises(TypeError, match="plain data and numpy arrays, got object"):
        kept["c"] = {"thing": object()}
    assert "c" not in kept


def test_a_damaged_file_is_absent(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept["a"] = VALUE
    (path,) = tmp_path.glob("*.kept")
    whole = path.read_bytes()
    for damaged in (
        b"", b"x", whole[:-1], whole[:40], whole[1:], whole[:-9] + b"\1" + whole[-8:],
        whole.replace(b"steps", b"stops"),
    ):  # fmt: skip
        path.write_bytes(damaged)
        assert (kept.get("a"), list(kept)) == (None, [])
    path.write_bytes(whole)
    assert kept["a"]["steps"] == 3
    path.rename(Kept(tmp_path)._path("b"))  # a file under another name is of no use
    assert kept.get("b") is None


def test_it_is_made_once_by_several_processes(tmp_path: Path) -> None:
    makers = [process("makes", tmp_path) for _ in range(2)]
    assert [maker.wait(60) for maker in makers] == [0, 0]
    assert len((tmp_path / "log").read_text().split()) == 1
    assert Kept(tmp_path / "kept")["key"] == {"steps": 3}


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    killed = process("dies", tmp_path)
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"inside\n"
    kept = Kept(tmp_path / "kept")
    handle = os.open(next((tmp_path / "kept").glob("*.lock")), os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)
    killed.kill()
    killed.wait(60)
    with kept.alone("key"), kept.alone("key"):  # again inside: no waiting for oneself
        kept["key"] = VALUE
    assert kept["key"]["steps"] == 3


def test_writers_and_readers_at_once(tmp_path: Path) -> None:
    """A reader sees one of the values, whole, whatever is being written."""
    kept = Kept(tmp_path / "kept")
    kept["key"] = {"numbers": numpy.full(20_000, -1)}
    writers = [process("writes", tmp_path) for _ in range(2)]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        numbers = kept["key"]["numbers"]
        assert len(numbers) == 20_000
        assert numbers.min() == numbers.max()
        seen.add(int(numbers[0]))
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(seen) > 1
    assert int(kept["key"]["numbers"][0]) == 39
    assert not list((tmp_path / "kept").glob("*.tmp"))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot write in"):
        Kept(tmp_path / "file" / "kept")["a"] = VALUE
    assert Kept(tmp_path / "file" / "kept").get("a") is None


def test_all_studies_of_a_database_share_it(bench: Any) -> None:
    with bench.store() as store:
        one, other = (bench.parts(bench.spec(seed=seed)).kept_in(store) for seed in (1, 2))
        one.setting.kept["trained"] = VALUE
        assert other.setting.kept["trained"]["steps"] == 3
        assert {path.parent for path in store.files.rglob("*.kept")} == {store.files / FOLDER}
    kept: dict[str, Any] = {}
    with alone(kept, "anything"):  # what one process alone has needs no lock
        kept["anything"] = VALUE


STRATEGY = """
import os, time
from nas_core.kept import alone
from strategies.random_search import RandomSearch

class Trained(RandomSearch):
    def ask(self, number, pending):
        kept = self._setting.kept
        with alone(kept, "network"):
            if "network" not in kept:
                time.sleep(0.1)
                with open("log.txt", "a") as log:
                    log.write(f"{os.getpid()}\\n")
                kept["network"] = {"trained": True}
        return super().ask(number, pending)
"""


def test_the_processes_of_a_bench_share_it(tmp_path: Path) -> None:
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
    done = subprocess.run(
        [sys.executable, "-m", "nas_cli", *command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "log.txt").read_text().split()) == 1
