"""A disk that fills up below a command, or refuses a file that grows beyond a limit: one or two lines, code 5, nothing
that was said is lost, and with room again the same command ends as if nothing had been.

What each single write does then is in `test_every_write.py`.
"""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nas_core.records import COMPRESS
from nas_core.strategy import State
from studies.store.store import Store
from tests.crash.random_kills import CHAINED, SEARCH
from tests.crash.sessions import contents, stored

Say = Callable[..., tuple[int, str, str]]

SIZE = 4_000_000  # bytes of a small disk

NET = """
from torch import nn


def net(task):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 400), nn.ReLU(), nn.Linear(400, task.outputs))
"""


class Disk:
    """A small file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._filler = folder, folder / "filler"

    def leave(self, room: int) -> None:
        """Fill it but for so many bytes."""
        self._filler.unlink(missing_ok=True)
        found = os.statvfs(self.folder)
        with self._filler.open("wb") as file:
            file.write(b"x" * (found.f_bavail * found.f_bsize - room))

    def empty(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"needs a file system of its own: {mounted.stderr.strip()[:200]}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def search(say: Say) -> list[str]:
    Path("chained.py").write_text(CHAINED)
    return [*SEARCH, "-s", "evaluator.pause=0"]


def check_refused(answer: tuple[int, str, str], *words: str) -> None:
    """An error of the machine, in a line or two after the progress."""
    code, _, err = answer
    assert code == 5, err
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith("nas: ")
    assert any(word in line for word in words), err


@pytest.mark.parametrize("room", [60_000, 250_000])  # before the first trial is stored, and in the search
def test_of_the_database(say: Say, search: list[str], disk: Disk, room: int) -> None:
    assert say(*search, "--db", "whole.db", "--files", "whole")[0] == 0
    place = ["--db", f"sqlite:///{disk.folder}/nas.db", "--files", "files"]
    disk.leave(room)
    for _ in range(4):  # more often than a candidate may end its process: it was nobody's fault
        check_refused(say(*search, *place), "the disk is full", "SQLITE_IOERR")
    if room > 100_000:
        with Store(place[1], reading=True) as store:
            assert 0 < store.run_count(store.study("s")) < 10
        assert say("trials", "s", *place[:2])[0] == 0
    disk.empty()
    assert say(*search, *place)[0] == 0
    assert contents(disk.folder / "nas.db", durations=False) == contents(Path("whole.db"), durations=False)


@pytest.mark.parametrize("size", [10_000, 100_000])
def test_of_a_database_that_may_not_grow(say: Say, search: list[str], size: int) -> None:
    assert say(*search, "--db", "whole.db", "--files", "whole")[0] == 0
    with no_file_beyond(size):
        for _ in range(4):
            check_refused(say(*search), "or is full")
    assert say(*search)[0] == 0
    assert contents(Path("nas.db"), durations=False) == contents(Path("whole.db"), durations=False)


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_of_a_checkpoint(
    say: Say, search: list[str], disk: Disk, workers: tuple[str, ...], forked_workers: None
) -> None:
    """Not a failure of the candidate: it goes on from its checkpoint when there is room."""
    large = CHAINED.replace("torch.tensor([step])", "torch.full((20_000,), step)")  # 160 kB
    Path("chained.py").write_text(large)
    search += ["--trials", "6"]
    assert say(*search, "--db", "whole.db", "--files", "whole")[0] == 0
    disk.leave(200_000)
    place = ["--files", str(disk.folder / "files")]
    for _ in range(1 if workers else 4):
        check_refused(say(*search, *place, *workers), "disk full: cannot write")
    with Store("sqlite:///nas.db", disk.folder / "files", reading=True) as store:
        assert {run.tries for run in store.trials(store.study("s"))} == {0}
    assert not list(disk.folder.rglob("*.tmp"))
    disk.empty()
    assert say(*search, *place, *workers)[0] == 0
    with Store("sqlite:///nas.db", reading=True) as here, Store("sqlite:///whole.db", reading=True) as whole:
        assert stored(here) == stored(whole)


def test_of_weights_and_of_an_export(say: Say, disk: Disk) -> None:
    Path("net.py").write_text(NET)
    train = ["train", "net.py:net", "--data", "digits", "--recipe", "quick", "--epochs", "1"]
    place = ["--files", str(disk.folder / "files")]
    disk.leave(40_000)
    check_refused(say(*train, *place), "disk full: cannot write")
    assert not list(disk.folder.rglob("*.safetensors"))
    disk.empty()
    assert say(*train, *place)[0] == 0
    export = ["export", "net-digits-1:0", "--format", "safetensors", "--no-verify", "--out", str(disk.folder / "out")]
    disk.leave(40_000)
    check_refused(say(*export, *place), "disk full: cannot write", "No space left")
    assert not [path for path in disk.folder.glob("out/**/*") if path.is_file()]
    disk.empty()
    assert say(*export, *place)[0] == 0
    assert say("verify", "net-digits-1", *place)[0] == 0


def test_of_a_compressed_network(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """That its name cannot be written is not the network's failure: the compression goes on when there is room."""
    Path("net.py").write_text(NET)
    assert say("train", "net.py:net", "--data", "digits", "--recipe", "quick", "--epochs", "1")[0] == 0
    compress = ["compress", "net-digits-1", "--method", "svd", "-s", "energy=0.5", "--epochs", "0"]
    replace = os.replace

    def full(written: Path, path: Path) -> None:
        if Path(path).name == "compressed.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(written, path)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        check_refused(say(*compress), "disk full: cannot write")
    assert say(*compress)[0] == 0
    with Store("sqlite:///nas.db", reading=True) as store:
        assert [run.state for run in store.runs(store.study("net-digits-1"), COMPRESS)] == [State.COMPLETE]
    assert say("verify", "net-digits-1")[0] == 0
