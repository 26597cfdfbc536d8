"""Batches of nodes with neighbours that are drawn, by command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from studies.setup.assemble import build
from studies.store.store import Store

Say = Callable[..., tuple[int, str, str]]


def test_a_search_learns_from_samples(folder: Path, say: Say) -> None:
    words = ("--data", "karate", "--space", "auto-gnn", "--enqueue", "gcn,gat", "--trials", "2", "--threads", "1")
    said = ("--epochs", "2", "-s", "recipe.fan_out=[4,2]", "-s", "recipe.batch_size=2")
    code, _, err = say("search", "--study", "one", *words, *said)
    assert code == 0, err
    code, out, err = say("show", "one", "--json")
    assert code == 0, err
    recipe = json.loads(out)["evaluator"]["recipe"]
    assert (recipe["fan_out"], recipe["batch_size"]) == ([4, 2], 2)


@pytest.mark.parametrize(
    ("fan_out", "message"),
    [
        ("[3,0]", "fan_out [3, 0]: say for every hop how many neighbours are drawn"),
        ("[]", "fan_out []: say for every hop"),
        ("[-2]", "fan_out [-2]: say for every hop"),
        ("3", "fan_out: Input should be a valid tuple (got 3)"),
    ],
)
def test_wrong_fan_outs(fan_out: str, message: str, folder: Path, say: Say) -> None:
    words = ("--data", "karate", "--space", "auto-gnn", "--trials", "1", "-s", f"recipe.fan_out={fan_out}")
    code, _, err = say("search", *words, "--epochs", "1")
    assert code == 2, err
    assert message in err
    assert len(err.strip().splitlines()) <= 3


def test_a_supernet_learns_from_samples_too(folder: Path, say: Say) -> None:
    """Four training nodes, in batches of two."""
    small = ("--space", "gnas(layers=2)", "--size", "hidden=4", "--data", "karate", "--threads", "1")
    words = (*small, "--strategy", "spos", "-s", "strategy.epochs=1", "-s", "strategy.batch_size=2", "--epochs", "1")
    code, _, err = say("search", "--study", "one", *words, "-s", "recipe.fan_out=[2,1]")
    assert code == 0, err
    with Store("sqlite:///nas.db", create=False) as store:
        parts = build(store.study("one").spec).supernet
    assert parts is not None
    nodes = [len(batch.inputs[0]) for batch in parts.bind().batches("train", 0, 0)]
    assert len(nodes) == 2
    assert all(count < 34 for count in nodes)
