"""Addresses of trials and of their trainings, and which training a trial stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas_core.architecture import Architecture
from nas_core.errors import NotFoundError, UsageError
from nas_core.evaluation import Report
from nas_core.records import COMPRESS, RETRAIN, Run, StopAt, Verdict
from nas_core.strategy import Proposal, State
from nas_core.task import Task
from studies.address import Address, is_object, is_path, parse, parse_trial
from studies.analysis.trained import addressed_training
from studies.records import Study, StudySpec
from studies.store.store import Store
from training.testing.evaluators import on_digits


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s", Address("s")),
        ("b/random/0", Address("b/random/0")),
        ("s:17", Address("s", 17)),
        ("b/random/0:3/train-2", Address("b/random/0", 3, RETRAIN, 2)),
        ("s:3/compress-12", Address("s", 3, COMPRESS, 12)),
        ("s/supernet", Address("s", kind="supernet")),
        ("b/darts/0/supernet", Address("b/darts/0", kind="supernet")),
        ("supernet", Address("supernet")),
        ("s/generator-3", Address("s", kind="generator", number=3)),
        ("b/diffusion/0/generator-1", Address("b/diffusion/0", kind="generator", number=1)),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [":1", "s:", "s:x", "s:1/train-", "s:1/2", "s:1/train-1/2", "s:1/train-1 ", "s:-1", "s:1/compress", "s:1/supernet"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is no address; write STUDY, STUDY:NUMBER or STUDY:NUMBER/train-NUMBER"):
        parse(text)


def test_a_training_is_no_trial() -> None:
    with pytest.raises(UsageError, match="'s:1/train-2' is one training; a study or trial is needed here: s or s:1"):
        parse_trial("s:1/train-2")
    with pytest.raises(UsageError, match="'s/supernet' is a supernet; a study or trial is needed here: s"):
        parse_trial("s/supernet")


def test_a_path_of_the_name_is_pointed_out(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "export").mkdir()
    with pytest.raises(NotFoundError, match=r"no study 'export' in .*; the file or folder of that name is './export'"):
        store.study("export")
    with pytest.raises(NotFoundError, match=r"no study 'exprt' in [^;]*$"):
        store.study("exprt")


def test_what_a_text_means() -> None:
    assert [is_object(text) for text in ("net.py:net", "net.py:net(width=3)", "s:1", "net.py")] == [
        True,
        True,
        False,
        False,
    ]
    assert [is_path(text) for text in ("a.json", "./s", "../s", "/s", "~/s", "s", "s:1")] == [True] * 5 + [False] * 2
    assert not any(is_path(text) for text in ("./net.py:net", "/there/net.py:net(width=3)"))


def _train(store: Store, study: Study, trial: Run, value: float | None, split: str = "own") -> None:
    """A training with this validation loss, or one that is still going on."""
    number = len(store.children(trial, RETRAIN)) + 1
    waiting = Verdict(State.WAITING)
    store.propose(
        *(study, number, trial.proposal, trial.identity, waiting),
        kind=RETRAIN,
        parent=trial.id,
        recipe={"split_hash": split},
    )
    if value is not None:
        run = store.children(trial, RETRAIN)[-1]
        store.report(run.id, Report(1, {"val_loss": value}))
        store.finish(run.id, Verdict(State.COMPLETE))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(f"sqlite:///{tmp_path / 'nas.db'}")
    spec = StudySpec(
        space="x",
        space_name="x",
        space_version=1,
        space_hash=None,
        size={},
        strategy="random",
        strategy_config={},
        evaluator=on_digits(),
        task=Task(kind="image-classification", input_shape=(1, 8, 8), outputs=10),
        split_hash="own",
        objectives=("params:min", "val_loss:min"),
        constraints=(),
        seed=0,
        lag=1,
    )
    study = store.create_study("s", spec, StopAt(trials=1))
    store.propose(study, 0, Proposal(Architecture("x", {"a": 1})), "a", Verdict(State.COMPLETE, values=(0.0, 0.0)))
    return store


def test_a_trial_stands_for_its_best_training(store: Store) -> None:
    study = store.study("s")
    trial = store.trial(study, 0)
    with pytest.raises(NotFoundError, match="no trained weights yet; run 'nas train s:0'"):
        addressed_training(store, "s:0")
    for value, split in (
        (0.5, "own"),
        (0.2, "own"),
        (0.2, "own"),
        (float("nan"), "own"),
        (0.1, "other"),
        (None, "own"),
    ):
        _train(store, study, trial, value, split)
    # The earliest of equals; other data's values, and none, do not compare.
    assert addressed_training(store, "s:0")[2].number == 2
    assert addressed_training(store, "s:0/train-5")[2].number == 5
    with pytest.raises(UsageError, match="'s:0/train-6' is waiting, not complete"):
        addressed_training(store, "s:0/train-6")
    with pytest.raises(NotFoundError, match=r"no training 's:0/train-7' \(there are: s:0/train-1, s:0/train-2"):
        addressed_training(store, "s:0/train-7")
