"""`split.folds`, and `nas train STUDY --folds`: every fold in turn."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nas
from nas_core.records import RETRAIN
from studies.store.store import Store

Say = Callable[..., tuple[int, str, str]]
NET = """
from torch import nn

def net(task):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, task.outputs))
"""


@pytest.fixture
def few(folder: Path) -> Path:
    """Sixty digits with a network for them."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.integers(0, 200, (60, 8, 8)).astype(np.uint8)
    images[:, 0, :] = 20 + 100 * labels[:, None]
    np.savez("few.npz", images=images, labels=labels)
    (folder / "net.py").write_text(NET)
    return folder


def test_every_fold_is_trained_and_what_is_reported_is_their_mean(few: Path, say: Say) -> None:
    asked = ["train", "net.py:net", "--data", "npz:few.npz", "--epochs", "2", "-s", "split.folds=3", "--folds"]
    code, out, err = say(*asked, "--seeds", "2", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["folds"] == 3
    assert [run["fold"] for run in found["runs"]] == [0, 0, 1, 1, 2, 2]
    means = [statistics.fmean(run["metrics"]["val_loss"] for run in found["runs"][at : at + 2]) for at in (0, 2, 4)]
    assert found["metrics"]["val_loss"]["mean"] == pytest.approx(statistics.fmean(means))
    assert found["metrics"]["val_loss"]["std"] == pytest.approx(statistics.stdev(means))
    with Store("sqlite:///nas.db") as store:
        trial = next(store.trials(store.study("net-npz-1")))
        runs = store.children(trial, RETRAIN)
    assert [run.recipe["split"] for run in runs if run.recipe] == [
        {"seed": 0, "limit": None, "folds": 3, "fold": fold} for fold in (0, 0, 1, 1, 2, 2)
    ]
    assert len({run.recipe["split_hash"] for run in runs if run.recipe}) == 3
    # What is there is not done again; as a table it has a row per fold.
    code, out, _ = say(*asked, "--seeds", "2")
    assert code == 0
    lines = out.splitlines()
    assert "3 folds, 2 trainings each with standard; mean ± standard deviation over the folds" in lines[0]
    assert [line.split()[0] for line in lines if line[:1].isdigit() or line.startswith(("mean", "±"))] == [
        *"012", "mean", "±",
    ]  # fmt: skip
    with Store("sqlite:///nas.db") as store:
        assert len(store.children(trial, RETRAIN)) == 6
    # One of them alone is the same training, and the command of a run says which one it was.
    from studies.jobs.commands import train

    (fold,) = [run for run in runs if run.number == 4]
    words = train("net-npz-1:0", fold.recipe or {}, 1)
    assert [word for word in words if "fold" in word] == ["split.folds=3", "split.fold=1"]
    code, out, _ = say(*asked[:-1], "-s", "split.fold=1", "--seeds", "2", "--json")
    assert code == 0
    assert [run["address"][-1] for run in json.loads(out)["runs"]] == ["3", "4"]


def test_a_search_on_a_fold_is_one_of_its_folds(folder: Path, say: Say) -> None:
    search = ["search", "--study", "a", "--trials", "1", "--size", "channels=2,cells=1", "--epochs", "1"]
    folds = ["-s", "split.folds=8", "-s", "split.fold=7", "-s", "split.limit=64"]
    code, _, err = say(*search, *folds, "--threads", "1")
    assert code == 0, err
    with Store("sqlite:///nas.db") as store:
        split = store.study("a").spec.evaluator.facts.split
    assert (split.folds, split.fold) == (8, 7)
    assert say("train", "a", "--folds", "-s", "split.fold=1")[2].startswith("nas: --folds trains on every fold in turn")


def test_the_best_trials_are_ranked_over_all_folds(folder: Path, say: Say) -> None:
    """Of each the trainings on every fold, whose mean it is ranked by; from Python a trial's come with their fold."""
    rng = np.random.default_rng(0)
    target = np.arange(48) % 2
    rows = "\n".join(f"{value + 3 * one:.3f},{one}" for value, one in zip(rng.normal(size=48), target, strict=True))
    (folder / "rows.csv").write_text("a,kind\n" + rows + "\n")
    search = ["search", "--study", "t", "--space", "mlp", "--data", "csv:rows.csv?target=kind", "--trials", "3"]
    code, _, err = say(*search, "--epochs", "1", "--threads", "1", "-s", "split.folds=3", "-s", "split.fold=0")
    assert code == 0, err
    asked = ["train", "t", "--top", "2", "--folds", "--epochs", "1", "--size", "search"]
    code, out, err = say(*asked, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["folds"], len(found["ranking"])) == (3, 2)
    with Store("sqlite:///nas.db") as store:
        study = store.study("t")
        for one in found["ranking"]:
            trial = next(each for each in store.trials(study) if one["trial"] == f"t:{each.number}")
            runs = store.children(trial, RETRAIN)
            assert [run.recipe["split"]["fold"] for run in runs if run.recipe] == [0, 1, 2]
            assert one["runs"] == [f"{one['trial']}/train-{run.number}" for run in runs]
            by = one["ranked_by"]
            assert one["metrics"][by]["mean"] == pytest.approx(statistics.fmean(run.metrics[by] for run in runs))
    code, out, err = say(*asked)
    assert code == 0, err
    assert "1 training each with standard on each of 3 folds, by mean" in out.splitlines()[0]
    number = int(found["ranking"][0]["trial"].partition(":")[2])
    (stored,) = nas.studies()
    again = stored.train(number, epochs=1, size="search", folds=True)
    assert [one["fold"] for one in again] == [0, 1, 2]
    assert [one["address"] for one in again] == found["ranking"][0]["runs"]
    (alone,) = stored.train(number, epochs=1, size="search", split={"fold": 2})
    assert alone["address"] == again[2]["address"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--folds"], "--folds: the study's data are not divided into folds; say how many, as in -s split.folds=10"),
        (["--folds", "-s", "split.folds=30"], "30 folds: class 0 has 20 samples, and every fold needs one"),
        (["--folds", "-s", "split.folds=2"], "split: folds: Input should be greater than or equal to 3 (got 2)"),
        (["-s", "split.folds=4", "-s", "split.fold=4"], "fold 4: 4 folds are numbered from 0 to 3"),
        (["-s", "split.fold=1"], "fold 1 of how many? give split.folds too"),
        (
            ["--folds", "-s", "split.folds=4", "-s", "split.test=0.5"],
            "split.test is a fraction, and folds are the parts",
        ),
        (["--folds", "--find-lr", "-s", "split.folds=4"], "--folds is for trainings; --find-lr tests one network"),
        (["--folds", "--epochs", "0"], "--epochs 0 trains nothing; leave out --folds"),
        (["-s", "split=4"], "split is 4; write split.KEY=VALUE"),
    ],
)
def test_bad_input(few: Path, say: Say, arguments: list[str], said: str) -> None:
    code, _, err = say("train", "net.py:net", "--data", "npz:few.npz", *arguments)
    assert code == 2, err
    assert said in err
    assert "Traceback" not in err


def test_folds_are_not_for_data_that_bring_their_parts(folder: Path, say: Say) -> None:
    (folder / "a.txt").write_text("a text of some words. " * 200)
    for data, said in (
        ("karate", "the data bring their own train and valid and test part; leave split.folds out"),
        ("text:a.txt?window=8", "a text has parts of its own making and no folds; leave split.folds out"),
        ("questions", "what is generated has parts of its own making and no folds"),
    ):
        (folder / "net.py").write_text(NET)
        code, _, err = say("train", "net.py:net", "--data", data, "-s", "split.folds=5", "--folds", "--epochs", "1")
        assert code == 2
        assert said in err
