"""The evaluator on shared weights: contract, independence of order, recalibration, refusals."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.errors import MachineError, NotFoundError, TrialError, UsageError, VerificationError
from nas_core.evaluation import Context, Report
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal
from nas_core.testing import evaluator as contract
from search_spaces.nasbench201.space import NasBench201, Size
from search_spaces.supernet.supernet import Supernet
from training.checkpoint import write_tensors
from training.data import load
from training.data.loading import Loading
from training.data.source import Source
from training.data.split import Split
from training.evaluators.supernet import SupernetEvaluator, load_supernet
from training.recalibration import recalibrate

SPACE = NasBench201()
SIZE = Size(channels=4, cells=1)
CELL = SPACE.from_text("|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|")


@cache
def digits() -> Source:
    return load("digits", Split(limit=300))


def trained() -> Supernet:
    """A supernet after a few steps of uniform sampling."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = Supernet(SPACE, digits().task, SIZE)
    data = digits().bind("cpu", Loading(batch_size=32))
    optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9)
    rng = generator("paths")
    for epoch in range(3):
        for batch in data.batches("train", epoch, 0):
            optimizer.zero_grad(set_to_none=True)
            data.loss(net(batch.inputs, net.mix_of(moves.sample(SPACE, rng))), batch).backward()
            optimizer.step()
    return net


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("supernet") / "weights.safetensors"
    write_tensors(path, trained().state_dict())
    return path


def evaluator(weights: Path, **options: Any) -> SupernetEvaluator:
    settings: dict[str, Any] = {"device": "cpu", "threads": 1, "precision": "float32", "recalibrate": 3, **options}
    return SupernetEvaluator(SPACE, digits(), SIZE, weights, **{"batch_size": 32, **settings})


def evaluate(found: SupernetEvaluator, arch: Architecture, folder: Path, seed: int = 1, **context: Any) -> Report:
    [report] = found.evaluate(Proposal(arch), None, Context(seed, folder, **context))
    return report


def test_contract(weights: Path) -> None:
    found = evaluator(weights)
    assert list(contract.check(found, SPACE, CELL)) == []
    assert (found.fidelity, found.deterministic, found.in_process) == (None, True, True)
    assert [(metric.name, metric.goal) for metric in found.metrics[:2]] == [
        ("supernet_accuracy", "max"),
        ("supernet_loss", "min"),
    ]
    assert not [metric.name for metric in found.metrics if metric.name.startswith("val_")]


def test_reports_depend_on_the_architecture_alone(weights: Path, tmp_path: Path) -> None:
    archs = [CELL, *(moves.sample(SPACE, generator("order", number)) for number in range(4))]
    found = evaluator(weights)
    before = {name: tensor.clone() for name, tensor in found.supernet.state_dict().items()}
    forth = [evaluate(found, arch, tmp_path, seed=number).metrics for number, arch in enumerate(archs)]
    back = [evaluate(found, arch, tmp_path, seed=7).metrics for arch in reversed(archs)]
    assert forth == back[::-1]
    assert forth == [evaluate(evaluator(weights), arch, tmp_path).metrics for arch in archs]
    assert len({metrics["supernet_loss"] for metrics in forth}) == len(archs)
    assert all(torch.equal(tensor, before[name]) for name, tensor in found.supernet.state_dict().items())


def test_recalibration_is_what_makes_shared_weights_work(weights: Path, tmp_path: Path) -> None:
    """The network with the supernet's own statistics, evaluated by hand, is worse than with its own."""
    found = evaluator(weights)
    report = evaluate(found, CELL, tmp_path).metrics
    network, metrics = found.inherit(CELL)
    assert metrics == {name: report[name] for name in ("supernet_accuracy", "supernet_loss")}
    data = digits().bind("cpu", Loading(batch_size=32))

    def loss(model: nn.Module) -> float:
        sums = [data.metrics(model(*batch.inputs), batch) for batch in data.batches("valid", 0, 0)]
        return float(sum(one["loss"] for one in sums)) / float(sum(one["count"] for one in sums))

    with torch.no_grad():
        assert loss(network) == pytest.approx(metrics["supernet_loss"], rel=1e-5)
        stale = load_supernet(SPACE, digits().task, SIZE, weights).extract(CELL)
        assert loss(stale) > metrics["supernet_loss"]
        # The same by hand: cumulative statistics of the first three batches in training mode.
        by_hand = stale.train()
        norms = [module for module in by_hand.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        for number, batch in enumerate(data.batches("train", 0, 0)):
            if number < 3:
                by_hand(*batch.inputs)
        assert loss(by_hand.eval()) == pytest.approx(metrics["supernet_loss"], rel=1e-5)


def test_static_costs_are_those_of_the_network_that_is_built(weights: Path, tmp_path: Path) -> None:
    found = evaluator(weights)
    built = SPACE.build(CELL, digits().task, SIZE)
    assert evaluate(found, CELL, tmp_path).metrics["params"] == sum(one.numel() for one in built.parameters())
    assert found.costs(CELL, ["params", "macs", "supernet_loss"]).keys() == {"params", "macs"}


def test_recalibration_averages_batches_without_dropout_and_keeps_settings() -> None:
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(2, momentum=0.3), nn.InstanceNorm2d(2)).train()
    batches = [torch.randn(6, 2, 3, 3) * (1 + number) for number in range(4)]
    recalibrate(net, net, batches)  # type: ignore[arg-type]
    norm: Any = net[1]
    assert torch.allclose(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0), atol=1e-6)
    assert torch.allclose(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in batches]).mean(0), rtol=1e-5)
    assert (norm.momentum, int(norm.num_batches_tracked), net.training, norm.training) == (0.3, 4, False, False)


def test_a_network_without_batch_normalisation_is_not_run() -> None:
    def never(batch: Tensor) -> Tensor:
        raise AssertionError("there is nothing to recalibrate")

    recalibrate(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), never, [torch.zeros(1)])  # type: ignore[arg-type,list-item]


def test_bf16_is_close_to_float32(weights: Path, tmp_path: Path) -> None:
    exact = evaluate(evaluator(weights), CELL, tmp_path).metrics
    coarse = evaluate(evaluator(weights, precision="bf16"), CELL, tmp_path).metrics
    assert coarse["supernet_loss"] == pytest.approx(exact["supernet_loss"], rel=0.05)
    assert coarse["supernet_loss"] != exact["supernet_loss"]


def test_weights_that_are_not_there_damaged_or_of_another_supernet(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no weights of a supernet at"):
        evaluator(tmp_path / "absent")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(VerificationError, match="does not hold the weights of this supernet"):
        evaluator(damaged)
    with pytest.raises(VerificationError, match="does not hold the weights of this supernet"):
        SupernetEvaluator(SPACE, digits(), Size(channels=8, cells=1), weights, device="cpu")


def test_wrong_settings_are_refused(weights: Path) -> None:
    class Flat(SearchSpace):
        name = "flat"
        choices = (Choice("a", (1, 2)),)
        tasks = SPACE.tasks

    with pytest.raises(UsageError, match="not relaxable"):
        SupernetEvaluator(Flat(), digits(), Size(), weights)  # type: ignore[abstract]
    with pytest.raises(UsageError, match=r"but the data .* is node-classification"):
        SupernetEvaluator(SPACE, load("karate"), SIZE, weights)
    for options in ({"threads": 0}, {"recalibrate": 0}, {"batch_size": 1}, {"device": "gpu"}):
        with pytest.raises(UsageError):
            evaluator(weights, **options)
    if not torch.cuda.is_available():
        with pytest.raises(MachineError):
            evaluator(weights, device="cuda")


def test_failures_of_a_candidate(weights: Path, tmp_path: Path) -> None:
    found = evaluator(weights)
    with pytest.raises(TrialError, match="time-limit"):
        evaluate(found, CELL, tmp_path, deadline=0.0)
    with pytest.raises(UsageError, match="budget 3"):
        list(found.evaluate(Proposal(CELL), 3, Context(1, tmp_path)))
    with torch.no_grad():
        found.supernet.network.classifier.bias[0] = math.nan
    with pytest.raises(TrialError, match="nan-loss"):
        evaluate(found, CELL, tmp_path)
