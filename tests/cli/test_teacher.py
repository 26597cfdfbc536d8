"""`nas train --teacher`: trainings that learn from a trained network too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]
SMALL = ["--size", "channels=2,cells=1", "--epochs", "1"]


@pytest.fixture
def study(folder: Path, say: Say) -> None:
    """`a` with trials 0 and 1, of which 0 is trained."""
    search = ["--study", "a", "--trials", "2", "-s", "split.limit=200", "--threads", "1", *SMALL]
    assert say("search", *search)[0] == 0
    assert say("train", "a:0", *SMALL)[0] == 0


def trained(say: Say, *options: str) -> tuple[str, dict[str, float], str]:
    code, out, err = say("train", "a:1", *SMALL, *options, "--json")
    assert code == 0, err
    (run,) = json.loads(out)["runs"]
    return run["address"], run["metrics"], err


@pytest.mark.usefixtures("study")
def test_a_training_learns_from_a_teacher(folder: Path, say: Say) -> None:
    address, alone, _ = trained(say)
    taught_address, taught, err = trained(say, "--teacher", "a:0")
    assert (address, taught_address) == ("a:1/train-1", "a:1/train-2")
    assert "teacher: a:0/train-1" in err
    assert taught["val_loss"] != alone["val_loss"]
    # The same teacher by its full address is the same training; other settings are another one.
    assert trained(say, "--teacher", "a:0/train-1")[0] == "a:1/train-2"
    assert trained(say, "--teacher", "a:0", "-s", "distillation.alpha=0.5")[0] == "a:1/train-3"
    assert trained(say, "--teacher", "a:0", "-s", "recipe.distillation.features=1")[0] == "a:1/train-4"
    assert say("export", "a:0", "--out", "export", "--format", "safetensors", "--no-verify")[0] == 0
    _, exported, _ = trained(say, "--teacher", "export/a-0.json")
    assert exported == taught


@pytest.mark.usefixtures("study")
@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--teacher", "a:7"], 3, "no trial 7"),
        (["--teacher", "a:1"], 3, "a:1 has no trained weights yet"),
        (["--teacher", "b"], 3, "'b'"),
        (["--teacher", "gone.json"], 3, "there is no file 'gone.json'"),
        (["--teacher", "pyproject.txt"], 3, "pyproject.txt"),
        (["--teacher", "./a.onnx"], 2, "a teacher is an export's .json"),
        (["-s", "distillation.alpha=0.5"], 2, "distillation needs a teacher"),
        (["--teacher", "a:0", "-s", "distillation.alpha=2"], 2, "alpha"),
        (["--teacher", "a:0", "-s", "distillation.hintt=x"], 2, "hint"),
        (["--teacher", "a:0", "-s", "distillation.hint=stem"], 2, "hint is for features"),
        (["--teacher", "a:0", "-s", "distillation.features=1", "-s", "distillation.hint=stem"], 2, "both be maps"),
    ],
)
def test_what_is_no_teacher_is_said(say: Say, options: list[str], code: int, words: str) -> None:
    given, out, err = say("train", "a:1", *SMALL, *options)
    assert (given, out) == (code, "")
    assert words in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) <= 3
