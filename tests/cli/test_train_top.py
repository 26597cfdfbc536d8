"""`nas train STUDY --top K`: the best trials trained again and ranked by that."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from nas_core.records import RETRAIN
from studies.store.store import Store

Say = Callable[..., tuple[int, str, str]]
SMALL = ["--size", "channels=2,cells=1", "--epochs", "1"]
TOP = ["train", "a", *SMALL, "--recipe", "quick", "--top", "2", "--seeds", "2"]


@pytest.fixture
def searched(folder: Path, say: Say) -> Path:
    search = ["--study", "a", "--trials", "4", "-s", "split.limit=200", "--threads", "1", *SMALL]
    assert say("search", *search)[0] == 0
    return folder


def test_the_best_are_trained_and_ranked(searched: Path, say: Say) -> None:
    code, out, err = say(*TOP, "--json")
    assert code == 0, err
    found = json.loads(out)
    with Store("sqlite:///nas.db") as store:
        study = store.study("a")
        searched_values = {run.number: run.metrics["val_accuracy"] for run in store.trials(study, metrics=True)}
        best = sorted(searched_values, key=lambda number: (-searched_values[number], number))[:2]
        runs = {f"a:{number}": store.children(store.trial(study, number), RETRAIN) for number in best}
        assert sum(len(store.children(run, RETRAIN)) for run in store.trials(study)) == 4
    assert {one["trial"] for one in found["ranking"]} == runs.keys()
    means = [one["metrics"]["val_accuracy"]["mean"] for one in found["ranking"]]
    assert means == sorted(means, reverse=True)
    for place, one in enumerate(found["ranking"], 1):
        values = [run.metrics["test_accuracy"] for run in runs[one["trial"]]]
        assert one["rank"] == place
        assert one["ranked_by"] == "val_accuracy"
        assert one["search"] == {"val_accuracy": searched_values[int(one["trial"][2:])]}
        assert one["metrics"]["test_accuracy"]["mean"] == pytest.approx(statistics.fmean(values))
        assert one["metrics"]["test_accuracy"]["error"] == pytest.approx(statistics.stdev(values) / math.sqrt(2))
        assert one["runs"] == [f"{one['trial']}/train-1", f"{one['trial']}/train-2"]
    # What is there is not done again, and more seeds or more trials go on from it.
    assert json.loads(say(*TOP, "--json")[1]) == found
    code, out, _ = say(*TOP, "--top", "3", "--seeds", "1")
    assert code == 0
    assert out.splitlines()[0].startswith("a: its best 3 trials, 1 training each with quick, by mean val_accuracy")
    with Store("sqlite:///nas.db") as store:
        assert sum(len(store.children(run, RETRAIN)) for run in store.trials(store.study("a"))) == 5
    assert "has 4 different trials to rank, not 9" in say(*TOP, "--top", "9", "--seeds", "1")[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a:0", "--top", "2"], "--top ranks the trials of a study, and 'a:0' is none; write STUDY alone"),
        (["net.py:net", "--top", "2"], "and 'net.py:net' is none"),
        (["a", "--top", "2", "--find-lr"], "--top trains several trials; leave out --find-lr"),
        (["a", "--top", "0"], "Invalid value for '--top'"),
        (["b", "--top", "2"], "no study 'b'"),
    ],
)
def test_bad_input(searched: Path, say: Say, arguments: list[str], said: str) -> None:
    code, _, err = say("train", *arguments)
    assert code in (2, 3)
    assert said in err
    assert "Traceback" not in err
