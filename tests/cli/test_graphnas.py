"""GraphNAS by command: cells with their training, from a search to a program."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]
SHORT = ("--epochs", "1", "--threads", "1")


def test_a_cell_is_trained_as_it_decides(folder: Path, say: Say) -> None:
    words = ("--data", "karate", "--space", "graphnas-micro", "--enqueue", "gat,citeseer", "--trials", "2")
    code, _, err = say("search", "--study", "one", *words, *SHORT)
    assert code == 0, err
    code, out, err = say("trials", "one", "--json")
    assert code == 0, err
    assert [trial["state"] for trial in json.loads(out)] == ["complete"] * 2
    code, out, err = say("show", "one:1", "--json")
    assert code == 0, err
    assert {json.loads(out)["recipe"][name] for name in ("lr", "weight_decay")} == {0.005, 1e-05}


def test_what_the_architecture_chooses_is_no_size(folder: Path, say: Say) -> None:
    words = ("--data", "karate", "--space", "graphnas-micro", "--size", "hidden=8", "--trials", "1")
    code, _, err = say("search", "--study", "one", *words, *SHORT)
    assert code == 2, err
    assert "hidden is chosen by architectures of graphnas-micro" in err


@pytest.mark.slow
@pytest.mark.parametrize("space", ["graphnas", "graphnas-micro"])
@pytest.mark.parametrize("data", ["karate", "random-graphs?target=degrees&graphs=30"])
def test_to_programs(data: str, space: str, folder: Path, say: Say) -> None:
    """The fast tests of programs are in `tests/fidelity`."""
    words = ("--data", data, "--space", space, "--enqueue", "gat", "--trials", "1")
    code, _, err = say("search", "--study", "s", *words, *SHORT)
    assert code == 0, err
    code, _, err = say("train", "s:0", "--epochs", "1")
    assert code == 0, err
    code, _, err = say("export", "s:0", "--format", "pt2,onnx,python,safetensors,json")
    assert code == 0, err
