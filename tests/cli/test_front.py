"""`nas front --reference`: the hypervolume of a study's front."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nas_core import moves
from nas_core.evaluation import Report
from nas_core.records import StopAt, Verdict
from nas_core.seeds import generator
from nas_core.strategy import Proposal, State
from nas_core.task import Task
from search_spaces.nasbench201.space import NasBench201
from studies.records import StudySpec
from studies.store.store import Store
from training.testing.evaluators import on_digits

CELLS = NasBench201()
Said = Callable[..., tuple[int, str, str]]

POINTS = [(0.5, 10.0), (0.75, 30.0), (0.625, 40.0), (0.875, 50.0)]
"""Accuracy and latency; the third is dominated by the second."""


def study(name: str, objectives: tuple[str, ...], points: list[tuple[float, ...]]) -> None:
    spec = StudySpec(
        space="nasbench201", space_name=CELLS.name, space_version=CELLS.version, space_hash=None,
        size={"channels": 4, "cells": 1}, strategy="random", strategy_config={},
        evaluator=on_digits(),
        task=Task(kind="image-classification", input_shape=(1, 8, 8), outputs=10), split_hash="0123456789abcdef",
        objectives=objectives, constraints=(), seed=3, lag=1,
    )  # fmt: skip
    signs = [1 if objective.endswith(":max") else -1 for objective in objectives]
    with Store("sqlite:///nas.db", create=True) as store:
        made = store.create_study(name, spec, StopAt(trials=10))
        for number, point in enumerate(points):
            arch = moves.sample(CELLS, generator(number))
            values = tuple(sign * value for sign, value in zip(signs, point, strict=True))
            metrics = dict(zip([objective.rpartition(":")[0] for objective in objectives], point, strict=True))
            verdict = Verdict(State.COMPLETE, None, values, (), 1.0)
            store.propose(
                made, number, Proposal(arch), arch.key, verdict, asked_after=number, report=Report(1, metrics)
            )


@pytest.fixture
def two(folder: Path) -> None:
    study("two", ("val_accuracy:max", "latency_ms.raspi4:min"), [tuple(point) for point in POINTS])


@pytest.mark.usefixtures("two")
def test_the_hypervolume_stands_below_the_table(say: Said) -> None:
    # Columns of the staircase by accuracy: 0.25..0.5 below 10 ms, ..0.75 below 30 ms, ..0.875 below 50 ms.
    volume = 0.25 * 40 + 0.25 * 20
    code, out, err = say("front", "two", "--reference", "val_accuracy=0.25,latency_ms.raspi4=50")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[1:4]] == ["two:3", "two:1", "two:0"]
    assert out.splitlines()[4:] == ["", f"hypervolume: {volume:g} (reference: val_accuracy 0.25, latency_ms.raspi4 50)"]
    assert "hypervolume" not in say("front", "two")[1]


@pytest.mark.usefixtures("two")
def test_the_hypervolume_in_json(say: Said) -> None:
    code, out, err = say("front", "two", "--json", "--reference", " latency_ms.raspi4 = 70 , val_accuracy = 0.5")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["reference"] == {"latency_ms.raspi4": 70, "val_accuracy": 0.5}
    assert found["hypervolume"] == pytest.approx(0.25 * 40 + 0.125 * 20)
    assert found["study"] == "two"
    assert found["front"] == json.loads(say("front", "two", "--json")[1])


@pytest.mark.usefixtures("two")
def test_a_front_below_the_reference_has_no_volume(say: Said) -> None:
    found = json.loads(say("front", "two", "--json", "--reference", "val_accuracy=0.9,latency_ms.raspi4=5")[1])
    assert found["hypervolume"] == 0
    assert len(found["front"]) == 3


def test_one_objective(say: Said) -> None:
    study("one", ("val_accuracy:max",), [(0.5,), (0.75,)])
    assert json.loads(say("front", "one", "--json", "--reference", "val_accuracy=0.5")[1])["hypervolume"] == 0.25


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("val_acuracy=0.5,latency_ms.raspi4=9", "unknown objective of the study 'val_acuracy'; did you mean 'val_acc"),
        ("params=5,val_accuracy=0.5,latency_ms.raspi4=9", "unknown objective of the study 'params'"),
        ("val_accuracy=0.5", "gives no latency_ms.raspi4; give every objective of the study a value"),
        ("val_accuracy=0.5,val_accuracy=0.6,latency_ms.raspi4=9", "gives val_accuracy twice"),
        ("val_accuracy=much,latency_ms.raspi4=9", "'val_accuracy=much' gives no number; write val_accuracy=NUMBER,lat"),
        ("val_accuracy=nan,latency_ms.raspi4=9", "gives no number"),
        ("val_accuracy,latency_ms.raspi4=9", "gives no number"),
        ("", "gives no number; write val_accuracy=NUMBER,latency_ms.raspi4=NUMBER"),
    ],
)
def test_a_wrong_reference_is_explained(say: Said, reference: str, message: str) -> None:
    code, out, err = say("front", "two", "--reference", reference)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) <= 2


def test_an_equal_function_that_costs_less_is_on_the_front(say: Said) -> None:
    """A cell that differs in dead edges alone is one function with a price of its own."""
    study("priced", ("val_accuracy:max", "latency_ms.raspi4:min"), [(0.5, 20.0)])
    with Store("sqlite:///nas.db") as store:
        found = store.study("priced")
        arch = moves.sample(CELLS, generator(77))
        store.propose(
            found, 1, Proposal(arch), "same", Verdict(State.REUSED, "same as trial 0", (0.5, -10.0)), reuses=0,
            report=Report(1, {"val_accuracy": 0.5, "latency_ms.raspi4": 10.0}),
        )  # fmt: skip
    assert [row["number"] for row in json.loads(say("front", "priced", "--json")[1])] == [1]
    assert json.loads(say("best", "priced", "--json")[1])["number"] == 0
