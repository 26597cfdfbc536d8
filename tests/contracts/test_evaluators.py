"""Every evaluator keeps the contract; a new one is tested by being listed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import search_spaces
from nas_core import moves, refs
from nas_core.evaluation import Evaluator
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.testing.evaluator import check
from training.data import load
from training.data.split import Split
from training.evaluators import kinds
from training.evaluators.settings import Problem, Request

Factory = Callable[[SearchSpace, Path], Evaluator]

EXAMPLE = f"{Path(__file__).resolve().parents[2] / 'examples' / 'my_space.py'}:space"
OWN = EXAMPLE.partition("my_space")[0] + "my_evaluator.py"
ROW = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"

LIMITS = {"digits": Split(limit=120), "karate": Split()}
SIZES = {"nasbench201": {"channels": 2, "cells": 1}, "nasbench_graph": {"hidden": 8}}


def table(space: SearchSpace, folder: Path) -> Evaluator:
    """A table of two rows, read by the shipped mapping of NAS-Bench-201."""
    from training.evaluators.table import Table

    lines = (
        "arch,c10_valid_e12,c10_valid,c10_test_e12,c10_test,params,macs,c10_epoch_s",
        f"{ROW},71.5,90.25,71.0,91.5,400000,50000000.5,8.5",
        f"{ROW.replace('3x3~0|+', '1x1~0|+')},61.5,80.25,61.0,81.5,300000,40000000,7.5",
    )
    (folder / "nb201.csv").write_text("\n".join(lines), encoding="utf-8")
    return Table(space, folder / "nb201.csv", "cifar10")


def train(data: str, epochs: int, **options: Any) -> Factory:
    """A short training on embedded data."""

    def make(space: SearchSpace, folder: Path) -> Evaluator:
        from training.evaluators.train import Train
        from training.recipe import recipe

        source = load(data, LIMITS[data])
        chosen = recipe("quick", source.task, epochs=epochs)
        size = space.Size.preset("search", **SIZES.get(space.name, {}))
        return Train(space, source, size, chosen, device="cpu", threads=1, **options)

    return make


def supernet(data: str) -> Factory:
    """The evaluator on an untrained supernet."""

    def make(space: SearchSpace, folder: Path) -> Evaluator:
        from search_spaces.supernet.supernet import Supernet
        from training.checkpoint import write_tensors
        from training.evaluators.supernet import SupernetEvaluator

        source, size = load(data, LIMITS[data]), space.Size.preset("search", **SIZES[space.name])
        write_tensors(folder / "supernet", Supernet(space, source.task, size).state_dict())
        return SupernetEvaluator(space, source, size, folder / "supernet", device="cpu", threads=1)

    return make


def compressed(space: SearchSpace, folder: Path) -> Evaluator:
    """A short training, then one of what a method has left."""
    inner = {"split": {"limit": 60}, "epochs": 1, "device": "cpu", "threads": 1, "checkpoint_seconds": 0.0}
    method = {"compress": "svd", "compress_to": ("params<=0.9x",), "compress_epochs": 1}
    asked = kinds.options({"kind": "compressed", **method, "inner": {"kind": "train", **inner}})
    return asked.settle(Request(Problem(space, space.Size.preset("search")), space.name, None)).evaluator


def hosts(*wrapped: str) -> Factory:
    """Short trainings in two networks, with screens or without."""

    def make(space: SearchSpace, folder: Path) -> Evaluator:
        inner = {"split": {"limit": 80}, "epochs": 2, "device": "cpu", "threads": 1, "checkpoint_seconds": 0.0}
        screened = {"kind": "screened", "screens": wrapped, "inner": inner} if wrapped else inner
        asked = kinds.options({"kind": "hosts", "hosts": "mobilenet,vgg", "inner": screened})
        size = space.Size.preset("search", width=4, depth=1, stages=1)
        return asked.settle(Request(Problem(space, size), space.name, None)).evaluator

    return make


def own(space: SearchSpace, folder: Path) -> Evaluator:
    """The example of a user's own."""
    asked = {"kind": f"{OWN}:RandomFeatures", "split": {"limit": 120}}
    size = space.Size.preset("search", **SIZES[space.name])
    return kinds.options(asked).settle(Request(Problem(space, size), space.name, None)).evaluator


# name: (factory, space)
EVALUATORS: dict[str, tuple[Factory, str]] = {
    "table": (table, "nasbench201"),
    "train images": (train("digits", 2, checkpoint_seconds=0.0), EXAMPLE),
    "train images, hardly a checkpoint": (train("digits", 2, checkpoint_seconds=1e6), EXAMPLE),
    "compressed": (compressed, EXAMPLE),
    "several hosts": (hosts(), "evonorm"),
    "several hosts with screens": (hosts("finite", "blind"), "evonorm"),
    "a user's own": (own, "nasbench201"),
    "shared weights": (supernet("digits"), "nasbench201"),
    "shared weights of a graph": (supernet("karate"), "nasbench_graph"),
    "train a graph": (train("karate", 2, checkpoint_seconds=0.0), "nasbench_graph"),
    "retrain a graph": (train("karate", 2, checkpoint_seconds=0.0, test=True, keep_weights=True), "nasbench_graph"),
}


@pytest.mark.parametrize("name", EVALUATORS)
def test_evaluator_contract(name: str, tmp_path: Path) -> None:
    factory, reference = EVALUATORS[name]
    space = refs.load(reference, search_spaces.BUILTIN, search_spaces.GROUP, "space").object
    arch = moves.sample(space, generator("evaluator", 1))
    if name == "table":
        arch = space.from_text(ROW)
    elif reference == "evonorm":  # of which few are sound
        arch = space.named["evonorm-b0"]
    assert list(check(factory(space, tmp_path), space, arch)) == []
