"""`nas train --workers`: several trainings at a time in processes of their own, which end as they do one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch

from nas_core.records import RETRAIN
from nas_core.strategy import State
from studies.store.store import Store

Say = Callable[..., tuple[int, str, str]]
SMALL = ["--size", "channels=2,cells=1", "--epochs", "1"]


@pytest.fixture
def searched(folder: Path, say: Say) -> Path:
    search = ["--study", "a", "--trials", "1", "-s", "split.limit=200", "--threads", "1", *SMALL]
    assert say("search", *search)[0] == 0
    return folder


def weights(folder: Path, run: int) -> bytes:
    return (folder / "nas-files" / "a" / f"retrain-{run}" / "weights.safetensors").read_bytes()


@pytest.mark.usefixtures("forked_workers")
def test_two_at_a_time_are_the_same_as_one_by_one(searched: Path, say: Say) -> None:
    asked = ["train", "a:0", *SMALL, "--seeds", "2", "--json"]
    code, out, err = say(*asked, "--workers", "2")
    assert code == 0, err
    together = json.loads(out)
    with Store("sqlite:///nas.db") as store:
        trial = store.trial(store.study("a"), 0)
        runs = store.children(trial, RETRAIN)
        assert [(run.state, run.tries, run.attempt) for run in runs] == [(State.COMPLETE, 0, 1)] * 2
    assert json.loads(say(*asked)[1])["runs"] == together["runs"]  # nothing is done again
    code, out, _ = say(*asked, "-s", "lr_end=0")  # other settings by name, the same training
    alone = json.loads(out)
    assert [run["address"] for run in alone["runs"]] == ["a:0/train-3", "a:0/train-4"]
    assert [run["metrics"] for run in alone["runs"]] == [run["metrics"] for run in together["runs"]]
    for first, second in ((runs[0].id, runs[1].id + 1), (runs[1].id, runs[1].id + 2)):
        one, other = safetensors.torch.load(weights(searched, first)), safetensors.torch.load(weights(searched, second))
        assert all(bool((one[name] == other[name]).all()) for name in one)


def test_workers_are_for_trainings(searched: Path, say: Say) -> None:
    code, _, err = say("train", "a:0", *SMALL, "--find-lr", "--workers", "2")
    assert (code, "--workers 2 is for trainings" in err) == (2, True)
    assert say("train", "a:0", *SMALL, "--workers", "0")[0] == 2
