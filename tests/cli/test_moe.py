"""The space `moe` through the commands: what a study says of experts."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nas_cli.baselines_view import sized
from nas_cli.experts_view import remarks

Say = Callable[..., tuple[int, str, str]]

DATA = "csv:t.csv?target=y"
SEARCH = ("search", "--study", "s", "--space", "moe", "--data", DATA, "--epochs", "1", "--threads", "1", "--seed", "1")


@pytest.fixture
def table(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    with Path("t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "c", "y"])
        for row in rng.normal(size=(120, 3)):
            writer.writerow([*(f"{value:.4f}" for value in row), f"{row[0] * row[1] + row[2]:.4f}"])
    return folder


def test_both_dense_networks_stand_beside_the_best(say: Say, table: Path) -> None:
    known = ("--enqueue", "sparsely-gated", "--baselines", "dense,dense-total,smear")
    code, _, err = say(*SEARCH, "--trials", "1", "--size", "width=32", *known)
    assert code == 0, err
    document = json.loads(say("best", "s", "--json")[1])
    metrics = document["metrics"]
    dense, total, smear = (one["metrics"] for one in document["baselines"])
    assert dense["params"] == dense["active_params"] == pytest.approx(metrics["active_params"], rel=0.02)
    assert total["params"] == total["active_params"] == pytest.approx(metrics["params"], rel=0.02)
    sizes = document["baselines"][2]["compared"][0]["sizes"]
    assert sizes == {name: smear[name] / metrics[name] for name in ("active_params", "params")}
    page = say("best", "s")[1]
    assert "dense of equal active parameters: val_rmse" in page
    assert "dense-total of equal total parameters: val_rmse" in page


@pytest.mark.parametrize(
    ("active", "every", "text"),
    [
        (1.0, 0.25, " of equal active parameters"),
        (4.0, 0.99, " of equal total parameters"),
        (1.01, 1.0, " of equal active and total parameters"),
        (0.5, 1.5, " of 0.5x the active, 1.5x the total parameters"),
    ],
)
def test_how_large_a_baseline_is(active: float, every: float, text: str) -> None:
    assert sized({"active_params": active, "params": every}) == text
    assert sized({}) == ""


def test_active_parameters_are_a_constraint(say: Say, table: Path) -> None:
    code, _, err = say(*SEARCH, "--trials", "1", "--size", "width=8", "--constraint", "active_params<=1500")
    assert code == 0, err
    assert json.loads(say("best", "s", "--json")[1])["metrics"]["active_params"] <= 1500


def test_what_layers_of_experts_do_is_reported_and_warned_of(say: Say, table: Path) -> None:
    crowded = ("--space", "moe(routers=(switch,))", "--enqueue", "switch", "--baselines", "dense")
    code, _, err = say(*SEARCH, *crowded, "--trials", "1", "--size", "width=8", "-s", "recipe.batch_size=16")
    assert code == 0, err
    document = json.loads(say("show", "s:0", "--json")[1])
    metrics = document["metrics"]
    for name in ("train_load_ratio", "train_dead_share", "train_dropped_share"):
        assert 0 <= metrics[name] <= metrics[f"{name}_max"]
    assert 0 < metrics["train_router_entropy"] <= 1
    assert metrics["train_load_ratio"] >= 1
    assert not [name for name in json.loads(say("show", "s", "--json")[1])["baselines"][0]["metrics"] if "load" in name]
    page = say("show", "s:0")[1]
    texts = list(remarks(metrics))
    assert ("dead experts: " in page) == (metrics["train_dead_share"] > 0)
    assert all(f"warning: {text}" in page for text in texts)
    assert metrics["train_dropped_share_max"] > 0.05  # 16 rows over 8 experts
    assert "the capacity drops " in page


def test_remarks_have_the_figures() -> None:
    assert list(remarks({"val_rmse": 1.0})) == []
    assert list(remarks({"train_dropped_share": 0.05, "train_dropped_share_max": 0.05})) == []
    (dropped,) = remarks({"train_dropped_share": 0.04, "train_dropped_share_max": 0.123})
    assert dropped.startswith("the capacity drops 4.0% of what routers choose, 12.3% in the worst layer; raise it")
    (dead,) = remarks({"train_dead_share": 0.25, "train_dead_share_max": 0.5})
    assert dead.startswith("dead experts: 25.0% get no token of a batch, 50.0% in the worst layer")
