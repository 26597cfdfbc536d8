"""Consensus by polarised gates (arXiv 2302.10798): gradient, agreement, budget, extraction."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compressors.allocation import Choice
from compressors.groups.groups import Group, Removal, Slice, Unit
from compressors.polarization import Gates, Polarizing, Settings, consensus, polarization, sites
from compressors.zeroing import Goal
from nas_core.batch import Batch
from nas_core.task import Task
from tests.small_data import Classes
from training.fit import fit
from training.recipe import Recipe

CPU = torch.device("cpu")
MODES = 4


class Modes(Classes):
    """Rows of 12 numbers: which of four modes a row is of, and eight numbers; each mode has a rule of its own by which
    they say of which of two classes it is."""

    task = Task(kind="image-classification", input_shape=(1, 3, 4), outputs=2)

    def __init__(self, count: int = 512) -> None:
        generator = torch.Generator().manual_seed(0)
        rules = torch.randn(MODES, 8, generator=generator)
        mode = torch.arange(2 * count) % MODES
        numbers = torch.randn(2 * count, 8, generator=generator)
        self.target = ((numbers * rules[mode]).sum(1) > 0).long()
        self.x = torch.cat([2 * functional.one_hot(mode, MODES).float(), numbers], 1).view(-1, 1, 3, 4)
        self.count = count

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        if part != "train":
            yield Batch((self.x[self.count :],), self.target[self.count :])
            return
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(seed + epoch))
        for rows in order.split(32):
            yield Batch((self.x[rows],), self.target[rows])


class Net(nn.Sequential):
    """One hidden width, with a normalisation behind it."""

    def __init__(self, width: int = 32, seed: int = 0) -> None:
        torch.manual_seed(seed)
        super().__init__(nn.Flatten(), nn.Linear(12, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2))


def group(width: int = 32) -> Group:
    units = [
        Unit(
            tuple(Slice(name, 0, (row,)) for name in ("1.weight", "1.bias", "2.weight", "2.bias")),
            (Slice("4.weight", 1, (row,)), Slice("2.running_mean", 0, (row,)), Slice("2.running_var", 0, (row,))),
        )
        for row in range(width)
    ]
    return Group("1", tuple(units), True)


class Rows:
    """Costs of a `Net`."""

    def __init__(self, width: int = 32) -> None:
        self._width = width

    def of(self, removed: Removal) -> Mapping[str, float]:
        kept = self._width - sum(map(len, removed.values()))
        return {"params": 17 * kept + 2, "macs": 14 * kept}


def goal(share: float) -> Goal:
    rows = Rows()
    return Goal(Choice((group(),), rows, "global", 1), {"macs": share * rows.of({})["macs"]})


class Watched(Polarizing):
    """What it was before and after the end."""

    def end(self) -> None:
        self.held = self._measured("valid")
        self.gated = copy.deepcopy(dict(self._network.state_dict()))
        super().end()


def regime(network: nn.Module, share: float = 0.5, **changes: Any) -> Watched:
    found = sites(copy.deepcopy(network).eval(), [group()], [torch.randn(4, 1, 3, 4)])
    told: dict[str, Any] = {}
    made = Watched(goal(share), found, Settings.model_validate(changes), Modes(), told.update)
    made.told = told  # type: ignore[attr-defined]
    return made


def recipe(**changes: Any) -> Recipe:
    given = {"epochs": 20, "lr": 0.05, "batch_size": 32, "precision": "float32", "weight_decay": 0.0}
    return Recipe.model_validate(given | changes)


def trained(
    share: float = 0.5, seed: int = 0, settle: float = 1.0, **changes: Any
) -> tuple[nn.Module, Watched, Mapping[str, float]]:
    network = Net(seed=seed)
    made = regime(network, share, settle=settle, **changes)
    *_, last = fit(network, Modes(), recipe(), device=CPU, seed=seed, regimes=[made], test=True)
    return network, made, last.metrics


@pytest.mark.parametrize("activity", [0.2, 0.5, 0.8])
def test_descent_drives_activities_apart(activity: float) -> None:
    """The derivative of a (1 - a) is 1 - 2 a: below 1/2 descent lowers a, above it raises a."""
    a = torch.tensor([activity], dtype=torch.float64, requires_grad=True)
    polarization(a).backward()
    assert a.grad is not None
    assert float(a.grad) == pytest.approx(1 - 2 * activity, abs=1e-12)


def test_a_gate_is_0_or_1_with_the_gradient_of_a_sigmoid() -> None:
    gates = Gates(6, 5, 1, Settings(bias=0.0), seed=1).double()
    pooled = torch.randn(7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = gates.last(gates.first(pooled).relu())
    answer = gates(pooled)
    expected = (logits > 0) | (logits == logits.max(1, keepdim=True).values)
    assert torch.allclose(answer, expected.double(), atol=1e-12)
    answer.sum().backward()
    given = gates.last.bias.grad
    assert given is not None
    assert torch.allclose(given, (logits.sigmoid() * (1 - logits.sigmoid())).sum(0))


def test_no_input_switches_off_a_whole_width() -> None:
    assert Gates(6, 5, 2, Settings(bias=-50.0), seed=1)(torch.randn(7, 6)).sum(1).tolist() == [2.0] * 7


def test_inputs_agree_by_the_term_alone() -> None:
    """On held-out data, of four modes: with the term almost all units are on for all inputs or for none."""
    assert consensus(trained(weight=5.0)[1].held) >= 0.95
    assert consensus(trained(weight=5.0, polarization=0.0)[1].held) < 0.7


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_the_budget_is_held_by_the_gates(share: float) -> None:
    """Of 32 units, each 3 points of the cost; then the target is met in any case."""
    network, made, _ = trained(share)
    assert float(made.held.mean()) == pytest.approx(share, abs=0.02)
    assert float((made.held >= 0.5).double().mean()) == pytest.approx(share, abs=0.02)
    assert share - 1 / 32 < float(network[1].weight.any(1).double().mean()) <= share


def test_what_is_left_is_the_gated_network_with_its_consensus() -> None:
    network, made, metrics = trained()
    assert metrics["val_accuracy"] - metrics["test_accuracy"] <= 0.005  # of gates, and of what they agree on
    gated = Net()
    gated.load_state_dict(made.gated)
    gated.eval()
    on = network[1].weight.any(1)
    x = next(iter(Modes().batches("valid", 0, 0))).inputs[0]
    with torch.no_grad():
        expected = gated[4]((gated[2](gated[1](x.flatten(1))) * on).relu())
        answer = network.eval()(x)
    assert torch.allclose(answer, expected, rtol=1e-5, atol=1e-6)
    assert 0 < int(on.sum()) < 32
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert made.told["activity"].keys() == {"1"}


class Settling(Watched):
    """What was on, and what was learned from, at every step."""

    def objective(self, loss: Tensor, piece: Batch, logits: Tensor) -> Tensor:
        whole = super().objective(loss, piece, logits)
        self.steps.append((self._kept, self._open[0].detach().clone(), whole is loss))
        return whole


def test_after_a_share_of_the_steps_what_is_on_stays_on_for_all_inputs_and_trains_alone() -> None:
    network = Net()
    made = Settling(goal(0.5), regime(network)._sites, Settings(settle=0.5), Modes(), lambda said: None)
    made.steps = []
    list(fit(network, Modes(), recipe(epochs=4), device=CPU, seed=0, regimes=[made]))
    half = len(made.steps) // 2
    kept = made.steps[-1][0]
    assert all(one is None and not alone for one, _, alone in made.steps[:half])
    assert all(one is kept and alone for one, _, alone in made.steps[half:])
    assert all(torch.equal(gates, kept.float().expand_as(gates)) for _, gates, _ in made.steps[half:])
    assert torch.equal(kept, network[1].weight.any(1))
    assert 0.4 < float(kept.double().mean()) <= 0.5


@pytest.mark.parametrize("settle", [0.5, 1.0])
def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path, settle: float) -> None:
    plan, whole = recipe(epochs=3, optimizer="adam", lr=0.01), Net()
    list(fit(whole, Modes(), plan, device=CPU, seed=1, regimes=[regime(whole, settle=settle)]))
    for budget in (1, 2, 3):
        network = Net()
        made = regime(network, settle=settle)
        list(fit(network, Modes(), plan, device=CPU, seed=1, budget=budget, folder=tmp_path, regimes=[made]))
    pairs = zip(network.state_dict().values(), whole.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
