"""Auto-GNN by command: from a search to a program."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]
SHORT = ("--epochs", "1", "--threads", "1")


def test_the_references_and_a_child(folder: Path, say: Say) -> None:
    words = ("--data", "karate", "--space", "auto-gnn", "--enqueue", "gcn,gat", "--trials", "3")
    code, _, err = say("search", "--study", "one", *words, "--strategy", "agnn-rl", *SHORT)
    assert code == 0, err
    code, out, err = say("trials", "one", "--json")
    assert code == 0, err
    assert {trial["state"] for trial in json.loads(out)} == {"complete"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "space"), [("karate", "auto-gnn"), ("random-graphs?target=degrees&graphs=30", "auto-gnn(layers=3)")]
)
def test_to_programs(data: str, space: str, folder: Path, say: Say) -> None:
    """The fast test of programs is in `tests/fidelity/test_auto_gnn.py`."""
    code, _, err = say(
        "search", "--study", "s", "--data", data, "--space", space, "--enqueue", "gat", "--trials", "1", *SHORT
    )
    assert code == 0, err
    code, _, err = say("train", "s:0", "--epochs", "1")
    assert code == 0, err
    code, _, err = say("export", "s:0", "--format", "pt2,onnx,python,safetensors,json")
    assert code == 0, err


def test_children_share_weights_and_the_search_goes_on(folder: Path, say: Say) -> None:
    """Whoever is homogeneous with an earlier trial begins with its weights; two sessions store what one does."""
    settings = ("sharing=true", "warm_up=1", "founders=3", "units=8")
    given = [part for setting in settings for part in ("-s", f"strategy.{setting}")]
    words = ("--data", "karate", "--space", "auto-gnn", "--enqueue", "gcn,gat", "--strategy", "agnn-rl", *given)
    words += ("--epochs", "2", "--threads", "1")
    code, _, err = say("search", "--study", "whole", *words, "--trials", "12")
    assert code == 0, err
    code, _, err = say("search", "--study", "parts", *words, "--trials", "7")
    assert code == 0, err
    code, _, err = say("resume", "parts", "--trials", "12")
    assert code == 0, err
    told = []
    for study in ("whole", "parts"):
        code, out, err = say("trials", study, "--json")
        assert code == 0, err
        keep = ("number", "state", "metrics", "transfer", "budget", "choices")
        told.append([{name: trial.get(name) for name in keep} for trial in json.loads(out)])
    assert told[0] == told[1]
    begun = [trial for trial in told[0] if trial["transfer"] is not None and trial["state"] == "complete"]
    assert begun
    assert all(0 < trial["metrics"]["transferred"] <= 1 for trial in begun)
