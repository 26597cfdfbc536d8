"""Strategies that know nothing of layers or experts search spaces of them, by candidates that are really trained."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]

SETTINGS = {
    "regularized-evolution": "population=8,sample=3",
    "bananas": "initial=8,mutants=10,centres=1,uniform=5,local=3",
    "reinforce": "units=8,batch=3",
}
HOSTED = ("--data", "digits", "-s", "split.limit=80", "--size", "host=vgg,width=6,depth=1,stages=1")
DATA = {
    "evonorm": HOSTED,
    "activation": HOSTED,
    "moe": ("--data", "csv:rows.csv?target=y", "--size", "width=8"),
}
SEARCH = (
    *("search", "--study", "s"),
    *("-s", "recipe.batch_size=16", "-s", "recipe.lr=0.05", "-s", "recipe.precision=float32"),
    *("--epochs", "1", "--device", "cpu", "--threads", "1"),
)


def searched(say: Say, strategy: str, space: str, trials: int) -> None:
    """Half of the trials, then the others by `nas resume`; what is unsound is turned down for nothing."""
    settings = [word for setting in SETTINGS[strategy].split(",") for word in ("-s", f"strategy.{setting}")]
    search = (*SEARCH, *DATA[space], "--space", space, "--strategy", strategy, *settings)
    assert say(*search, "--trials", str(trials // 2))[0] == 0
    code, _, err = say("resume", "s", "--trials", str(trials))
    assert code == 0, err
    found = [trial for trial in json.loads(say("trials", "s", "--json")[1]) if trial["state"] in ("complete", "failed")]
    assert len(found) == trials
    assert all(trial["reason"].startswith("nan-loss") for trial in found if trial["state"] == "failed")
    trained = [trial for trial in found if trial["state"] == "complete"]
    assert len(trained) > 0.8 * trials
    assert len({trial["metrics"]["val_loss"] for trial in trained}) > trials / 2
    assert len({json.dumps(trial["architecture"], sort_keys=True) for trial in found}) == trials
    assert say("verify", "s")[0] == 0


@pytest.fixture
def rows(folder: Path) -> Path:
    """A folder with a small table whose column y is a function of the others."""
    drawn = random.Random(0)
    made = [[drawn.gauss(0, 1) for _ in range(3)] for _ in range(120)]
    lines = ["a,b,c,y", *(f"{a:.4f},{b:.4f},{c:.4f},{a * b + c:.4f}" for a, b, c in made)]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("space", DATA)
def test_a_few_trained_networks(say: Say, rows: Path, space: str) -> None:
    searched(say, "regularized-evolution", space, 4)


@pytest.mark.slow
@pytest.mark.parametrize("space", DATA)
@pytest.mark.parametrize("strategy", SETTINGS)
def test_thirty_trained_networks(say: Say, rows: Path, strategy: str, space: str) -> None:
    searched(say, strategy, space, 30)
