"""Strategies that know nothing of layers search spaces of them, by candidates that are really trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]

SETTINGS = {
    "regularized-evolution": "population=8,sample=3",
    "bananas": "initial=8,mutants=10,centres=1,uniform=5,local=3",
    "reinforce": "units=8,batch=3",
}
SEARCH = (
    *(
        "search",
        "--study",
        "s",
        "--data",
        "digits",
        "-s",
        "split.limit=80",
        "--size",
        "host=vgg,width=6,depth=1,stages=1",
    ),
    *("-s", "recipe.batch_size=16", "-s", "recipe.lr=0.05", "-s", "recipe.precision=float32"),
    *("--epochs", "1", "--device", "cpu", "--threads", "1"),
)


def searched(say: Say, strategy: str, space: str, trials: int) -> None:
    """Half of the trials, then the others by `nas resume`; what is unsound is turned down for nothing."""
    settings = [word for setting in SETTINGS[strategy].split(",") for word in ("-s", f"strategy.{setting}")]
    search = (*SEARCH, "--space", space, "--strategy", strategy, *settings)
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


@pytest.mark.parametrize("space", ["evonorm", "activation"])
def test_a_few_trained_layers(say: Say, folder: Path, space: str) -> None:
    searched(say, "regularized-evolution", space, 4)


@pytest.mark.slow
@pytest.mark.parametrize("space", ["evonorm", "activation"])
@pytest.mark.parametrize("strategy", SETTINGS)
def test_thirty_trained_layers(say: Say, folder: Path, strategy: str, space: str) -> None:
    searched(say, strategy, space, 30)
