"""The space `moe` through the commands: what a study says of experts."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nas_cli.baselines_view import sized

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
