"""`nas train --weights`: trainings that start from given weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nas_core.errors import UsageError, VerificationError
from training.start import start_from

Say = Callable[..., tuple[int, str, str]]
SMALL = ["--size", "channels=2,cells=1", "--epochs", "1"]
STILL = ["-s", "lr=1e-9"]  # nothing is learned, so that what was given is what is left


@pytest.fixture
def trained(folder: Path, say: Say) -> Path:
    """The weights of `a:0/train-1`."""
    search = ["--study", "a", "--trials", "1", "-s", "split.limit=200", "--threads", "1", *SMALL]
    assert say("search", *search)[0] == 0
    assert say("train", "a:0", *SMALL)[0] == 0
    return next((folder / "nas-files").rglob("retrain-*/weights.safetensors"))


def weights(folder: Path, say: Say, *options: str) -> tuple[str, str, dict[str, torch.Tensor]]:
    code, out, err = say("train", "a:0", *SMALL, *STILL, *options, "--json")
    assert code == 0, err
    run = json.loads(out)["runs"][0]["address"]
    newest = max(
        (folder / "nas-files").rglob("retrain-*/weights.safetensors"), key=lambda path: path.stat().st_mtime_ns
    )
    said = next((line for line in err.splitlines() if line.startswith("weights: ")), "")
    return run, said, safetensors.torch.load_file(newest)


def test_trainings_start_from_weights(folder: Path, say: Say, trained: Path) -> None:
    given = safetensors.torch.load_file(trained)
    run, said, left = weights(folder, say, "--weights", "a:0/train-1")
    assert (run, said) == (
        "a:0/train-2",
        f"weights: {len(given)} of {len(given)} tensors, 100.0% of the values, from a:0/train-1",
    )
    assert all(torch.allclose(left[name], given[name], atol=1e-6) for name in given if name.endswith("weight"))
    # Other weights, or none, are another training; the same ones are the same, also those of the trial's best training.
    _, _, fresh = weights(folder, say)
    assert not torch.allclose(fresh["classifier.weight"], given["classifier.weight"], atol=1e-3)
    assert weights(folder, say, "--weights", "a:0/train-1")[0] == "a:0/train-2"
    (folder / "given.safetensors").write_bytes(trained.read_bytes())
    assert weights(folder, say, "--weights", "given.safetensors")[0] == "a:0/train-4"
    code, out, _ = say("train", "a:0", *SMALL, "--weights", "given.safetensors", "--find-lr", "--json")
    assert code in (0, 1)  # a network of this size may not learn
    assert code or "--weights given.safetensors" in json.loads(out)["next"]


def test_what_does_not_fit_stays_fresh(folder: Path, say: Say, trained: Path) -> None:
    given = safetensors.torch.load_file(trained)
    del given["classifier.weight"]
    given["norm.weight"] = torch.zeros(3)
    safetensors.torch.save_file(given, folder / "some.safetensors")
    _, said, left = weights(folder, say, "--weights", "some.safetensors")
    assert f"weights: {len(given) - 1} of {len(given) + 1} tensors, " in said
    assert said.endswith("(fresh: norm.weight, classifier.weight)")
    assert torch.allclose(left["stem.0.weight"], given["stem.0.weight"], atol=1e-6)
    assert torch.allclose(left["norm.weight"], torch.ones(8), atol=1e-6)


@pytest.mark.usefixtures("trained")
def test_weights_that_are_none(folder: Path, say: Say) -> None:
    safetensors.torch.save_file({"other": torch.zeros(2)}, folder / "other.safetensors")
    (folder / "text.safetensors").write_text("no tensors")
    (folder / "weights.pt").write_bytes(b"")
    for given, code, message in (
        ("other.safetensors", 2, "no tensor of 'other.safetensors' has the name and the shape of one of this network"),
        ("text.safetensors", 2, "'text.safetensors' is no safetensors file"),
        ("absent.safetensors", 3, "there are no weights at 'absent.safetensors'"),
        ("weights.pt", 2, "cannot be read as tensors alone"),
        ("a:0/train-9", 3, "there is no training 'a:0/train-9'"),
        ("b:0/train-1", 3, "no study 'b'"),
    ):
        found, _, err = say("train", "a:0", *SMALL, "--weights", given)
        assert (found, message in err, err.count("\n")) == (code, True, 1), err


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    network = torch.nn.Linear(2, 2)
    safetensors.torch.save_file(network.state_dict(), path)
    start = start_from(path, "w.safetensors")
    assert str(start.take(network)) == "2 of 2 tensors, 100.0% of the values, from w.safetensors"
    with pytest.raises(UsageError, match="no tensor of"):
        start.take(torch.nn.Conv2d(1, 1, 3, bias=False))
    safetensors.torch.save_file({"weight": torch.zeros(2, 2)}, path)
    with pytest.raises(VerificationError, match="have changed since the training began"):
        start.take(network)
