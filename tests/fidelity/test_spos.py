"""SPOS: shared storage, steps that touch one path alone, uniform paths."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from nas_core.architecture import Architecture
from nas_core.evaluation import Objective
from nas_core.one_shot import Compute
from nas_core.space import SearchSpace
from nas_core.strategy import Setting
from search_spaces.nasbench201.space import EDGES, OPERATIONS, NasBench201, Size
from search_spaces.supernet.picker import MixedOp
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.spos import Spos
from training.data import load
from training.data.loading import Loading
from training.data.split import Split

SPACE = NasBench201()
DATA = load("digits", Split(limit=160))


def make() -> Supernet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Supernet(SPACE, DATA.task, Size(channels=2, cells=1))


def started(**config: Any) -> Spos:
    strategy = Spos(Setting(SPACE, 3, (Objective("accuracy", "max"),)), Spos.Config(**{"epochs": 3, **config}))
    strategy.start(make, DATA.bind("cpu", Loading(batch_size=32)), Compute())
    return strategy


def cell(*operations: str) -> Architecture:
    return Architecture(SPACE.name, dict(zip(EDGES, operations, strict=True)))


def run_by(supernet: Supernet, arch: Architecture) -> set[str]:
    """The names of the parameters that a pass of the architecture reads."""
    batch = next(DATA.bind("cpu", Loading(batch_size=32)).batches("train", 0, 0))
    supernet.zero_grad(set_to_none=True)
    supernet(batch.inputs, supernet.mix_of(arch)).sum().backward()
    read = {name for name, parameter in supernet.named_parameters() if parameter.grad is not None}
    supernet.zero_grad(set_to_none=True)
    return read


def test_architectures_that_share_an_operation_on_an_edge_share_its_storage() -> None:
    strategy = started()
    conv1, conv3, skip = "nor_conv_1x1", "nor_conv_3x3", "skip_connect"
    one, other = cell(conv3, skip, skip, conv1, skip, skip), cell(conv3, conv1, skip, skip, conv3, skip)
    parameters = dict(strategy.supernet.named_parameters())
    pointers = [{parameters[name].data_ptr() for name in run_by(strategy.supernet, arch)} for arch in (one, other)]
    mixed = [module for module in strategy.supernet.modules() if isinstance(module, MixedOp)]
    shared = {
        parameter.data_ptr()
        for module in mixed
        if module.route.name == "cell/edge.0-1"
        for parameter in module.operations[OPERATIONS.index(conv3)].parameters()
    }
    assert len(shared) == 3 * 2  # weight and bias in the cell of every stage
    assert shared < pointers[0] & pointers[1]
    assert pointers[0] != pointers[1]


def test_a_step_changes_the_path_and_the_fixed_parts_and_nothing_else() -> None:
    """Weights, momentum and running statistics of the other candidates stay bit for bit, decay notwithstanding."""
    strategy = started(weight_decay=0.1)
    weights, supernet = strategy.weights, strategy.supernet
    weights.begin(0)
    batches = list(strategy.data.batches("train", 0, 0))
    everything = cell(*["nor_conv_3x3"] * 6)
    for batch, arch in zip(batches, (everything, cell(*["nor_conv_1x1"] * 6)), strict=False):
        weights.step(batch, supernet.mix_of(arch))  # every convolution has momentum now
    arch = cell("nor_conv_3x3", "skip_connect", "nor_conv_1x1", "avg_pool_3x3", "none", "nor_conv_3x3")
    read = run_by(supernet, arch)

    def snapshot() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        state = weights.optimizer.state
        momentum = {
            name: state[parameter]["momentum_buffer"].clone()
            for name, parameter in supernet.named_parameters()
            if parameter in state
        }
        return {name: tensor.clone() for name, tensor in supernet.state_dict().items()}, momentum

    before, momentum = snapshot()
    weights.step(batches[2], supernet.mix_of(arch))
    after, momentum_after = snapshot()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    parameters = {name for name, _ in supernet.named_parameters()}
    assert len(read) < len(momentum) == len(parameters)
    # The gradient of a bias before a normalisation is zero but for rounding.
    biases = {name for name in read if name.endswith(".bias")}
    assert read - biases <= changed & parameters <= read
    assert {name for name in momentum if not torch.equal(momentum[name], momentum_after[name])} == read
    owners = {name.rsplit(".", 1)[0] for name in changed - parameters}  # running statistics
    assert owners
    for name in owners:
        if ".candidates." in name:
            convolution = f"{name.rsplit('.', 1)[0]}.0.weight"
            assert convolution in read


def test_every_path_is_as_likely() -> None:
    """Over 3,000 batches of 20 epochs every operation of every edge comes up a fifth of the time, and pairs of edges a
    twenty-fifth: chi-square within what 24 degrees of freedom allow in all but one case in 10,000."""
    strategy = started()
    drawn = [arch for epoch in range(20) for arch, _ in zip(strategy.paths(epoch), range(150), strict=False)]
    pairs: Counter[tuple[Any, Any]] = Counter()
    for arch in drawn:
        values = list(arch.values.values())
        pairs[values[0], values[5]] += 1
    expected = len(drawn) / 25
    assert len(pairs) == 25
    assert sum((count - expected) ** 2 / expected for count in pairs.values()) < 58.6
    for name in EDGES:
        counts = Counter(arch.values[name] for arch in drawn)
        expected = len(drawn) / 5
        assert sum((count - expected) ** 2 / expected for count in counts.values()) < 23.5


def test_the_trained_paths_are_legal_and_those_that_the_epoch_names(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = started()
    trained: list[Architecture] = []
    original = strategy.supernet.mix_of
    monkeypatch.setattr(strategy.supernet, "mix_of", lambda arch: trained.append(arch) or original(arch))
    progress = strategy.step(1)
    named = [arch for arch, _ in zip(strategy.paths(1), trained, strict=False)]
    assert trained == named
    assert len(trained) == sum(1 for _ in strategy.data.batches("train", 1, 3))
    assert all(SearchSpace.illegal(SPACE, arch) is None for arch in trained)
    assert trained != [arch for arch, _ in zip(strategy.paths(2), trained, strict=False)]
    assert (progress.strengths, progress.arch) == ({}, None)
    assert strategy.result() == []
