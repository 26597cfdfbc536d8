"""Files that the disk has spoiled, torn, cut off or changed in a bit: noticed, never trusted, said in a line, and the
same study in the end."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nas_cli.app import run as nas
from tests.crash.running import Fork, children, finish, gone, until
from tests.crash.sessions import contents

Damage = Callable[[Path], object]
Start = Callable[..., Fork]

TRAIN = [
    *("search", "--study", "s", "--data", "digits", "-s", "split.limit=160", "--size", "channels=4,cells=1"),
    *(
        "--epochs",
        "8",
        "--trials",
        "2",
        "--strategy",
        "random",
        "--threads",
        "1",
        "--seed",
        "3",
        "-s",
        "checkpoint_seconds=0",
    ),
]

NET = """
from torch import nn


def net(task):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, task.outputs))
"""


def flip(path: Path) -> None:
    """One bit."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    """The end is missing."""
    path.write_bytes(path.read_bytes()[:-7])


def tear(path: Path) -> None:
    """Written to half, and zeros where the rest had been promised."""
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(len(content) - half))


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES: list[Damage] = [flip, cut, tear, empty]


@pytest.fixture(scope="module")
def searched(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that ended (`whole`), and one that was killed when its first candidate had two checkpoints."""
    folder = tmp_path_factory.mktemp("searched")
    whole, killed = folder / "whole", folder / "killed"
    whole.mkdir()
    killed.mkdir()
    finish(start, TRAIN, whole)
    process = start(TRAIN, killed)
    until(lambda: len(checkpoints(killed)) >= 2, process, killed)
    offspring = children(process)
    process.send_signal(9)
    process.wait()
    gone(offspring)
    for path in killed.rglob("*.tmp"):
        path.unlink()
    return folder


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("nas-files/s/trial-*/checkpoint-*.json"))


@pytest.mark.parametrize(
    ("damage", "suffix", "every"),
    [
        (flip, ".json", False),
        (cut, ".json", True),
        (tear, ".safetensors", False),
        (cut, ".safetensors", False),
        (flip, ".safetensors", True),
        (empty, ".safetensors", True),
    ],
)
def test_a_checkpoint(
    searched: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Damage,
    suffix: str,
    every: bool,
) -> None:
    """The search goes on from the one before, or begins the candidate again where none is left."""
    place = tmp_path / "place"
    shutil.copytree(searched / "killed", place)
    monkeypatch.chdir(place)
    found = checkpoints(Path())
    for path in found if every else found[-1:]:
        damage(path.with_suffix(suffix))
    assert nas(["resume", "s", "--executor", "inline"]) == 0
    said = capsys.readouterr().err
    assert f"nas: {found[-1].stem} in '" in said
    assert "is damaged" in said
    before = int(found[-2].stem.rpartition("-")[2])
    assert ("begins again" if every else f"going on from epoch {before}") in said
    assert "Traceback" not in said
    assert contents(Path("nas.db"), durations=False) == contents(searched / "whole" / "nas.db", durations=False)


def test_a_worker_says_it_too(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(searched / "killed", tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    flip(checkpoints(Path())[-1])
    # A fork of this process speaks where this test listens; a server of forks where the test that started it did.
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: fork)
    assert nas(["resume", "s"]) == 0
    assert "nas: checkpoint-00000" in capfd.readouterr().err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "place"
    folder.mkdir()
    (folder / "net.py").write_text(NET)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert nas(["train", "net.py:net", "--data", "digits", "--recipe", "quick", "--epochs", "1"]) == 0
    return folder


@pytest.mark.parametrize("damage", [*DAMAGES, os.remove])
def test_weights(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Damage,
) -> None:
    """What builds on them says whose they are, with code 7, and writes nothing."""
    place = tmp_path / "place"
    shutil.copytree(trained, place)
    monkeypatch.chdir(place)
    (weights,) = place.rglob("*.safetensors")
    damage(weights)
    capsys.readouterr()
    for command in (
        ["export", "net-digits-1:0", "--format", "safetensors", "--out", "out"],
        ["compress", "net-digits-1:0", "--method", "magnitude", "--target", "macs<=0.5x"],
        ["verify", "net-digits-1"],
    ):
        code = nas(command)
        out, err = capsys.readouterr()
        assert code == 7, (command, out, err)
        assert any(name in out + err for name in ("net-digits-1:0/train-1", weights.name))
        assert "Traceback" not in err
        assert not list(Path().glob("out/*"))
