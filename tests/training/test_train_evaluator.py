"""The training evaluator: the contract suite, exactness, kept weights, devices."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas_core.architecture import Architecture
from nas_core.batch import PARTS
from nas_core.errors import MachineError, NotFoundError, TrialError, UsageError, VerificationError
from nas_core.evaluation import Context, Report
from nas_core.strategy import Proposal
from nas_core.testing import evaluator as contract
from search_spaces.nasbench201.space import NasBench201
from training.data import load
from training.data.source import Source
from training.data.split import Split
from training.devices import find_device
from training.evaluators.train import WEIGHTS, Train
from training.networks import build, load_trained
from training.recipe import recipe

SPACE = NasBench201()
SIZE = SPACE.Size(channels=4, cells=1)
CELL = SPACE.from_text("|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|")


@cache
def digits() -> Source:
    return load("digits", Split(limit=200))


def evaluator(epochs: int = 3, **options: Any) -> Train:
    made = recipe("quick", digits().task, epochs=epochs, batch_size=32, precision="float32")
    # No checkpoint in between, however slow the machine is, and one thread: what a file holds must not depend on time.
    settings: dict[str, Any] = {"device": "cpu", "threads": 1, "checkpoint_seconds": math.inf, **options}
    return Train(SPACE, digits(), SIZE, made, **settings)


def evaluate(train: Train, folder: Path, seed: int = 1, budget: float | None = None, **context: Any) -> list[Report]:
    return list(train.evaluate(Proposal(CELL), budget, Context(seed, folder, **context)))


@pytest.mark.parametrize("options", [{}, {"test": True, "keep_weights": True, "checkpoint_seconds": 0.0}])
def test_contract(options: dict[str, Any]) -> None:
    assert list(contract.check(evaluator(**options), SPACE, CELL)) == []


def test_reports_hold_what_is_declared(tmp_path: Path) -> None:
    train = evaluator(test=True)
    reports = evaluate(train, tmp_path)
    names = {metric.name for metric in train.metrics}
    assert reports[-1].metrics.keys() == names - {"latency_ms", "latency_iqr_ms"}
    assert reports[-1].metrics["params"] == sum(
        parameter.numel() for parameter in SPACE.build(CELL, digits().task, SIZE).parameters()
    )
    assert train.costs(CELL, ["latency_ms", "params"]).keys() == {"latency_ms", "params"}
    assert (train.in_process, train.deterministic, train.identity(CELL)) == (True, True, None)


def test_training_learns_and_the_seed_decides(tmp_path: Path) -> None:
    reports = evaluate(evaluator(epochs=6), tmp_path / "one")
    assert reports[-1].metrics["val_accuracy"] > 0.5
    again = evaluate(evaluator(epochs=6), tmp_path / "again")
    other = evaluate(evaluator(epochs=6), tmp_path / "other", seed=2)
    assert [report.metrics for report in again] == [report.metrics for report in reports]
    assert other[-1].metrics["val_loss"] != reports[-1].metrics["val_loss"]


def test_killed_and_resumed_is_the_same(tmp_path: Path) -> None:
    whole = evaluator(keep_weights=True, checkpoint_seconds=0.0)
    wanted = evaluate(whole, tmp_path / "whole")
    reports = whole.evaluate(Proposal(CELL), None, Context(1, tmp_path / "killed"))
    next(reports)
    reports.close()  # type: ignore[attr-defined]
    found = evaluate(evaluator(keep_weights=True), tmp_path / "killed")
    assert [report.metrics for report in found] == [report.metrics for report in wanted]
    assert (tmp_path / "killed" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_kept_weights_are_those_that_were_reported(tmp_path: Path) -> None:
    train = evaluator(keep_weights=True)
    final = evaluate(train, tmp_path)[-1]
    model = load_trained(SPACE, CELL, digits().task, SIZE, tmp_path / WEIGHTS)
    data = digits().bind("cpu")
    correct = count = 0.0
    with torch.no_grad():
        for batch in data.batches("valid", 0, 0):
            sums = data.metrics(model(*batch.inputs), batch)
            correct, count = correct + float(sums["accuracy"]), count + float(sums["count"])
    assert PARTS == ("train", "valid", "test")
    assert correct / count == pytest.approx(final.metrics["val_accuracy"])
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS}


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    evaluate(evaluator(epochs=1, keep_weights=True), tmp_path)
    path = tmp_path / WEIGHTS
    with pytest.raises(VerificationError, match="does not hold the weights of this network"):
        load_trained(SPACE, CELL, digits().task, SPACE.Size(channels=8, cells=1), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(VerificationError, match="does not hold the weights"):
        load_trained(SPACE, CELL, digits().task, SIZE, path)
    with pytest.raises(NotFoundError, match="there are no weights at"):
        load_trained(SPACE, CELL, digits().task, SIZE, tmp_path / "absent")


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(2)
    torch.manual_seed(1)
    one = build(SPACE, CELL, digits().task, SIZE, 5)
    assert torch.equal(torch.rand(2), wanted)
    two, other = build(SPACE, CELL, digits().task, SIZE, 5), build(SPACE, CELL, digits().task, SIZE, 6)
    weights = [next(model.parameters()) for model in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_budgets(tmp_path: Path) -> None:
    train = evaluator()
    assert train.fidelity.high == 3
    assert [report.step for report in evaluate(train, tmp_path / "two", budget=2.0)] == [1, 2]
    for budget in (0, 1.5, 4):
        with pytest.raises(UsageError, match="training takes 1 to 3 whole epochs"):
            evaluate(train, tmp_path, budget=budget)


def test_the_thread_count_is_put_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    reports = evaluator(threads=before + 1).evaluate(Proposal(CELL), None, Context(1, tmp_path))
    next(reports)
    assert torch.get_num_threads() == before + 1
    reports.close()  # type: ignore[attr-defined]
    assert torch.get_num_threads() == before


def test_what_does_not_fit_is_refused_before_anything_runs() -> None:
    karate = load("karate", Split())
    with pytest.raises(
        UsageError, match=r"space 'nasbench201' is for image-classification, but the data 'karate' is node"
    ):
        Train(SPACE, karate, SIZE, recipe("quick", karate.task))
    with pytest.raises(UsageError, match="threads 0"):
        evaluator(threads=0)
    with pytest.raises(UsageError, match="device 'gpu' is not known"):
        find_device("gpu")
    with pytest.raises(MachineError, match="there is no device 'cuda:99'"):
        find_device("cuda:99")


def test_a_network_that_cannot_be_built_fails_its_trial_only(tmp_path: Path) -> None:
    class Broken(NasBench201):
        def build(self, arch: Architecture, task: Any, size: Any) -> Any:
            raise ZeroDivisionError("no width left")

    train = Train(Broken(), digits(), SIZE, recipe("quick", digits().task), device="cpu")
    with pytest.raises(TrialError, match="exception: ZeroDivisionError: no width left"):
        evaluate(train, tmp_path)


def test_a_graph_of_words_is_trained_and_resumed_to_the_bit(tmp_path: Path) -> None:
    """Sparse products, attention and sums over neighbours, of a graph that is prepared anew in every process."""
    from search_spaces.nasbench_graph import NasBenchGraph
    from training.data.source import GraphSource, graph_source

    rng = np.random.default_rng(0)
    words, classes = (rng.random((60, 80)) < 0.05).astype(np.float32), np.arange(60) % 3
    edges = rng.integers(60, size=(2, 200))
    space = NasBenchGraph()

    def words_of() -> GraphSource:
        return graph_source("made", words, classes, edges, Split())

    size, plan = space.Size(hidden=8, dropout=0.5), recipe("quick", words_of().task, epochs=4, precision="float32")
    settings: dict[str, Any] = {"device": "cpu", "threads": 1, "keep_weights": True, "checkpoint_seconds": 0.0}
    for notation in ("0012:gat,gcn,sage,cheb", "0111:gin,arma,graph,gat"):
        proposal, folder = Proposal(space.from_text(notation)), tmp_path / notation.replace(":", "-")
        wanted = list(Train(space, words_of(), size, plan, **settings).evaluate(proposal, None, Context(1, folder)))
        killed = Context(1, folder / "killed")
        reports = Train(space, words_of(), size, plan, **settings).evaluate(proposal, None, killed)
        next(reports)
        next(reports)
        reports.close()  # type: ignore[attr-defined]
        found = list(Train(space, words_of(), size, plan, **settings).evaluate(proposal, None, killed))
        assert [report.metrics for report in found] == [report.metrics for report in wanted]
        assert (folder / "killed" / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
