"""`kill -9` at random moments of a compression, which then goes on: the same bits as uninterrupted.

The gate makes one kill, `-m slow` twenty for each method.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.crash.sessions import contents, kept
from tests.zygote import Call, Zygote

ROOT = Path(__file__).resolve().parents[2]
CAUGHT = 0.9  # of the uninterrupted run's length, in which a kill falls

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 6, 3, stride=2), nn.Linear(6, outputs)

    def forward(self, x):
        return self.head(self.second(self.norm(self.first(x)).relu()).relu().mean((2, 3)))


def net(task):
    return Net(task.outputs)
"""

METHODS = {
    "hesso": ["--method", "hesso", "--target", "macs<=0.6x", "--epochs", "8"],
    "hesso-cric": ["--method", "hesso-cric", "--target", "macs<=0.6x", "--epochs", "12"],
    "polarization": ["--method", "polarization", "--target", "macs<=0.6x", "--epochs", "8"],
    "dlrt": ["--method", "dlrt", "--epochs", "4"],
    "distillation": ["--method", "hesso", "--target", "macs<=0.6x", "--epochs", "6", "--distill"],
    "iterative": ["--method", "magnitude", "--target", "macs<=0.5x", "-s", "rounds=3", "--epochs", "2"],
}


@pytest.fixture(scope="module")
def trained(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained network, `net-digits-1`."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "my_net.py").write_text(NET)
    data = ["--data", "digits", "-s", "batch_size=128"]
    finish(zygote, ["train", "my_net.py:net", *data, "--epochs", "1"], folder)
    return folder


def start(zygote: Zygote, arguments: list[str], folder: Path) -> int:
    """The process, which leads a session."""
    call = Call("tests.crash.eager:run", arguments, str(folder), str(folder / "stderr"), path=[str(ROOT)])
    return zygote.start(call)


def finish(zygote: Zygote, arguments: list[str], folder: Path) -> None:
    assert zygote.wait(start(zygote, arguments, folder), 600) == 0, (folder / "stderr").read_text()


def left(folder: Path) -> dict[str, object]:
    """All that compressions have left, without durations: rows, changes, bits of tensors, and other files."""
    found: dict[str, object] = {**contents(folder / "nas.db", durations=False, hashes=False)}
    for path in sorted((folder / "nas-files" / "net-digits-1").rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.name != "lock":
            found[name] = kept(path)
    return found


def check_kills(zygote: Zygote, trained: Path, folder: Path, asked: list[str], kills: int) -> None:
    """Kill a compression up to `kills` times before it may end, again and again until it was killed so often."""
    command = ["compress", "net-digits-1", *asked]
    whole = Path(shutil.copytree(trained, folder / "whole"))
    begun = time.monotonic()
    finish(zygote, command, whole)
    length = time.monotonic() - begun
    expected = left(whole)
    assert "nas-files/net-digits-1/compress-3/weights.safetensors" in expected, list(expected)
    rng, killed, tried = random.Random(5), 0, 0
    while killed < kills:
        tried += 1
        place = Path(shutil.copytree(trained, folder / f"killed{tried}"))
        for _ in range(min(3, kills - killed)):
            process = start(zygote, command, place)
            time.sleep(rng.uniform(0, CAUGHT * length))
            alive = not zygote.has_ended()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
            zygote.wait(process)
            killed += alive
        finish(zygote, command, place)
        assert left(place) == expected


def test_a_killed_compression_goes_on(zygote: Zygote, trained: Path, tmp_path: Path) -> None:
    check_kills(zygote, trained, tmp_path, [*METHODS["hesso-cric"], "--epochs", "4"], kills=1)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_twenty_kills(zygote: Zygote, trained: Path, tmp_path: Path, method: str) -> None:
    check_kills(zygote, trained, tmp_path, METHODS[method], kills=20)
