"""`--metric`, a loss of one's own and `-s recipe.KEY` through the real command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]
SMALL = ["--size", "channels=2,cells=1"]
FAST = ["-s", "split.limit=200", *SMALL, "--threads", "1"]
MINE = """
from torch.nn import functional
def f1(outputs, targets):
    from sklearn.metrics import f1_score
    return f1_score(targets, outputs.argmax(1), average="macro")
def twice(outputs, targets):
    return 2 * functional.cross_entropy(outputs, targets)
"""


@pytest.fixture
def searched(folder: Path, say: Say) -> list[dict[str, float]]:
    """The trials of a study `a` with a metric of its own as objective, a loss of its own, the best epoch kept."""
    (folder / "mine.py").write_text(MINE)
    (folder / "search.yaml").write_text(
        "metrics: [mine.py:f1]\nobjectives: [val_f1]\nrecipe: {name: quick, loss: mine.py:twice, keep: best}\n"
    )
    code, _, err = say("search", "search.yaml", "--study", "a", "--epochs", "3", "--trials", "2", *FAST, "--json")
    assert code == 0, err
    curve: list[dict[str, float]] = json.loads(say("show", "a:0", "--json")[1])["curve"]
    return curve


def test_an_own_metric_is_an_objective_and_ends_as_a_test_figure(say: Say, searched: list[dict[str, float]]) -> None:
    shown = json.loads(say("show", "a:0", "--json")[1])
    assert shown["metrics"]["val_f1"] == max(row["val_f1"] for row in searched)
    code, out, err = say("train", "a:0", "--epochs", "1", "--metric", "roc_auc", *SMALL, "--json")
    assert code == 0, err
    trained = json.loads(out)["runs"][0]["metrics"]
    assert {"test_f1", "test_roc_auc", "val_f1", "val_roc_auc"} <= trained.keys()
    assert "val_f1" in say("trials", "a", "--json")[1]


@pytest.mark.usefixtures("searched")
def test_a_file_that_has_changed_is_refused(folder: Path, say: Say) -> None:
    (folder / "mine.py").write_text(MINE + "\n")
    code, _, err = say("resume", "a", "--trials", "3")
    assert (code, err.count("\n")) == (2, 1)
    assert "the file of 'mine.py:f1' has changed since the study was made" in err
    assert say("train", "a:0", "--epochs", "1", *SMALL)[0] == 2
    assert say("train", "a:0", "--epochs", "1", *SMALL, "--metric", "mine.py:f1")[0] == 0
    (folder / "mine.py").write_text(MINE)
    assert say("resume", "a", "--trials", "3")[0] == 0


@pytest.mark.usefixtures("searched")
def test_a_setting_means_the_same_with_and_without_its_prefix(say: Say) -> None:
    def lines(*settings: str) -> tuple[int, str]:
        code, out, err = say("train", "a:0", "--epochs", "1", *SMALL, *settings, "--json")
        return code, json.loads(out)["runs"][0]["address"] if code == 0 else err

    assert lines("-s", "lr=0.02", "-s", "augment.crop=2") == (0, "a:0/train-1")
    assert lines("-s", "recipe.lr=0.02", "-s", "recipe.augment.crop=2") == (0, "a:0/train-1")
    assert lines("-s", "recipe.lr=0.03", "-s", "augment.crop=2") == (0, "a:0/train-2")
    assert lines("-s", "recipe.name=quick", "-s", "recipe.lr=0.04") == (0, "a:0/train-3")
    assert lines("--recipe", "quick", "-s", "lr=0.04") == (0, "a:0/train-3")
    code, err = lines("-s", "recipe.lr=0.02", "-s", "lr=0.03")
    assert (code, err) == (2, "nas: -s gives recipe.lr twice: 0.03 and 0.02\n")
    code, err = lines("-s", "recipe.leraning=1")
    assert (code, "unknown key 'leraning'" in err) == (2, True)


def test_metrics_are_of_trainings(folder: Path, say: Say) -> None:
    code, _, err = say("search", "--table", "none.csv", "--metric", "f1")
    assert (code, "--metric f1 is for candidates that are trained" in err) == (2, True)
    code, _, err = say("search", "--metric", "f2", "--trials", "1")
    assert (code, "did you mean 'f1'" in err) == (2, True)
