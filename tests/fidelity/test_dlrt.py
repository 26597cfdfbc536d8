"""Dynamical low-rank training: the steps of the integrator, what they keep, and the ranks that they find."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from compressors.compressor import Subject
from compressors.dlrt import Dlrt, Integrator, LowRank, Settings, moved, orthonormal
from compressors.factors import rank_within
from compressors.target import parse_target
from nas_core.batch import Batch
from nas_core.errors import TrialError, UsageError
from nas_core.task import table_task
from search_spaces.counter import params
from tests.small_data import Classes
from training.changes import changes_of, rebuilt
from training.fit import fit
from training.recipe import Recipe

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


class Planted(Classes):
    """Rows around the prototypes of ten classes, which span nine dimensions around their mean."""

    task = table_task("tabular-classification", [1] * 64, 10, "accuracy")

    def __init__(self, steps: int = 20, fixed: bool = False) -> None:
        self.prototypes = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
        self.steps, self.fixed = steps, fixed

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        drawn = torch.Generator().manual_seed(1 + (0 if self.fixed or part != "train" else epoch))
        for _ in range(self.steps if part == "train" else 2):
            target = torch.randint(10, (64,), generator=drawn)
            rows = self.prototypes[target] + torch.randn(64, 64, generator=drawn)
            yield Batch((rows,), target)


def mlp(width: int = 256, scale: float = 1.0, seed: int = 0, middle: type[nn.Module] = nn.Identity) -> nn.Sequential:
    torch.manual_seed(seed)
    first, second = nn.Linear(64, width), nn.Linear(width, width)
    with torch.no_grad():
        first.weight *= scale
        second.weight *= scale
    return nn.Sequential(first, middle(), nn.ReLU(), second, nn.ReLU(), nn.Linear(width, 10))


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(
        {"epochs": 2, "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 64, "schedule": "constant"}
        | {"precision": "float32"}
        | changes
    )


def method(data: Any = None, subject: Mapping[str, Any] | None = None, **settings: Any) -> Dlrt:
    data = data or Planted()
    return Dlrt(Subject(data.task, data, CPU, 0, **(subject or {})), Settings(**settings))


def trained(
    network: nn.Module, made: Dlrt, data: Any = None, folder: Path | None = None, stop: int | None = None, **plan: Any
) -> Any:
    """The regime, after the training of the first round (of `stop` epochs, which then is not at its end)."""
    made.compress(network.eval(), 0)
    regime = made.regime(network, 0)
    assert isinstance(regime, Integrator)
    options: dict[str, Any] = {"device": CPU, "seed": 1, "folder": folder, "checkpoint_seconds": 0, "regimes": [regime]}
    reports = fit(network, data or Planted(), recipe(**plan), **options)
    regime.reports = []  # type: ignore[attr-defined]
    for report in reports:
        regime.reports.append(report)  # type: ignore[attr-defined]
        if report.step == stop:
            reports.close()
            break
    return regime


def low_rank(layer: Any, rank: int, seed: int = 0) -> LowRank:
    drawn = torch.Generator().manual_seed(seed)
    rows, columns = layer.weight.shape[0], layer.weight[0].numel()
    u, v = (orthonormal(torch.randn(size, rank, generator=drawn)) for size in (rows, columns))
    return LowRank(layer, u, torch.randn(rank, rank, generator=drawn), v)


def whole(low: LowRank) -> Tensor:
    """The weight U S V^T, [n, m]."""
    return low.U @ low.S.detach() @ low.V.T


LAYERS = [
    (nn.Linear(20, 12), (6, 20)),
    (nn.Conv2d(3, 10, 3, stride=2, padding=1, dilation=2), (2, 3, 9, 9)),
    (nn.Conv1d(4, 9, 3, padding="same", bias=False), (2, 4, 8)),
]
named = pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=["linear", "conv2d", "conv1d"])


@named
def test_one_pass_gives_the_gradients_of_k_and_l(layer: Any, shape: tuple[int, ...]) -> None:
    low, x = low_rank(layer, 4), torch.randn(shape, requires_grad=True)
    plain, same = copy.deepcopy(layer), x.detach().clone().requires_grad_()
    plain.weight = nn.Parameter(whole(low).reshape(layer.weight.shape))
    answer, wanted = low(x), plain(same)
    torch.testing.assert_close(answer, wanted, rtol=0, atol=1e-5)
    wanted.square().sum().backward()
    dense = plain.weight.grad.flatten(1)

    answer.square().sum().backward()
    torch.testing.assert_close(low.S.grad, low.U.T @ dense @ low.V, rtol=1e-4, atol=1e-4)
    low.open()
    x.grad = low.S.grad = None
    answer = low(x)
    torch.testing.assert_close(answer, wanted, rtol=0, atol=1e-5)
    answer.square().sum().backward()
    torch.testing.assert_close(low.K.grad, dense @ low.V, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(low.L.grad, dense.T @ low.U, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x.grad, same.grad, rtol=1e-4, atol=1e-4)
    assert low.S.grad is None


@named
def test_nothing_is_cut_without_a_tolerance(layer: Any, shape: tuple[int, ...]) -> None:
    """U S V^T after the last step is that before it; torch gives V^H, whose rows are the columns of V."""
    low = low_rank(layer, 4)
    low.open()
    low(torch.randn(shape)).square().sum().backward()
    low.augment(0.01, 0.0)
    assert low.rank == 8
    with torch.no_grad():
        low.S += 0.1 * torch.randn(8, 8)
    before = whole(low)
    low.truncate(lambda values: rank_within(values, 0.0))
    torch.testing.assert_close(whole(low), before, rtol=0, atol=1e-5 * float(before.abs().max()))
    assert low.rank == 8
    low.truncate(lambda values: 3)
    left, values, right = torch.linalg.svd(before)
    best = left[:, :3] * values[:3] @ right[:3]
    torch.testing.assert_close(whole(low), best, rtol=0, atol=1e-5 * float(before.abs().max()))


@named
def test_nothing_moves_at_rate_zero(layer: Any, shape: tuple[int, ...]) -> None:
    low = low_rank(layer, 3)
    before, bases = whole(low), (low.U, low.V)
    low.open()
    low(torch.randn(shape)).square().sum().backward()
    low.augment(0.0, 0.1)
    low.step(0.0, 0.1)
    torch.testing.assert_close(whole(low), before, rtol=0, atol=1e-5)
    assert [one.shape[1] for one in (low.U, low.V)] == [6, 6]  # bases have turned
    assert not torch.allclose(low.U[:, :3], bases[0])


def test_a_step_is_that_of_plain_tensors() -> None:
    """Two steps of the loop beside the equations, with dense gradients, weight decay and momentum of the others."""
    data, network = Planted(steps=2), mlp(24)
    rate, decay, momentum, tolerance, cap = 0.1, 0.01, 0.9, 0.15, 7
    weights = [
        network[0].weight.detach().clone(),
        network[3].weight.detach().clone(),
        network[5].weight.detach().clone(),
    ]
    biases = [network[place].bias.detach().clone() for place in (0, 3, 5)]
    made = method(data, tolerance=tolerance, most=0.3)
    plan = {"epochs": 1, "weight_decay": decay, "momentum": momentum}
    regime = trained(network, made, data, **plan)

    parts = []
    for weight in weights[:2]:
        left, values, right = torch.linalg.svd(weight)
        parts.append((left[:, :cap], values[:cap].diag(), right[:cap].T))
    others = [*biases, weights[2]]
    speed = [torch.zeros_like(one) for one in others]

    def gradients(given: list[Any], batch: Batch) -> tuple[Tensor, ...]:
        both = [(u @ s @ v.T).requires_grad_() for u, s, v in given]
        rest = [one.clone().requires_grad_() for one in others]
        hidden = functional.linear(*batch.inputs, both[0], rest[0]).relu()
        hidden = functional.linear(hidden, both[1], rest[1]).relu()
        loss = functional.cross_entropy(functional.linear(hidden, rest[3], rest[2]), batch.target)
        return torch.autograd.grad(loss, [*both, *rest])

    for batch in data.batches("train", 0, 1):
        dense = gradients(parts, batch)
        wider = []
        for (u, s, v), slope in zip(parts, dense, strict=False):
            k = u @ s - rate * (slope @ v + decay * u @ s)
            last = v @ s.T - rate * (slope.T @ u + decay * v @ s.T)
            new_u, new_v = torch.linalg.qr(torch.cat([k, u], 1)).Q, torch.linalg.qr(torch.cat([last, v], 1)).Q
            wider.append((new_u, new_u.T @ u @ s @ v.T @ new_v, new_v))
        dense = gradients(wider, batch)
        parts = []
        for (u, s, v), slope in zip(wider, dense, strict=False):
            left, values, right = torch.linalg.svd(s - rate * (u.T @ slope @ v + decay * s))
            rank = next(r for r in range(len(values) + 1) if values[r:].norm() <= tolerance * values.norm())
            rank = min(max(rank, 2), cap)
            parts.append((u @ left[:, :rank], values[:rank].diag(), v @ right[:rank].T))
        for number, slope in enumerate(dense[2:]):
            speed[number] = momentum * speed[number] + slope + decay * others[number]
            others[number] = others[number] - rate * speed[number]

    assert list(regime.ranks.values()) == [len(s) for _, s, _ in parts]
    for place, (u, s, v) in zip((0, 3), parts, strict=True):
        three: Any = network[place]
        found = three[2].weight @ three[1].weight @ three[0].weight
        torch.testing.assert_close(found.detach(), u @ s @ v.T, rtol=0, atol=1e-5)
    for found, wanted in zip((network[0][2].bias, network[3][2].bias, network[5].bias), others, strict=False):
        torch.testing.assert_close(found.detach(), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(network[5].weight.detach(), others[3], rtol=0, atol=1e-5)


def test_it_finds_the_rank_that_was_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ten classes need, from small weights, and bases that are orthonormal after every step."""
    worst, step = [0.0], Integrator.after_step

    def checked(self: Integrator) -> None:
        step(self)
        for one in self._trained:
            for basis in (one.low.U, one.low.V):
                worst[0] = max(worst[0], float((basis.T @ basis - torch.eye(basis.shape[1])).abs().max()))

    monkeypatch.setattr(Integrator, "after_step", checked)
    network = mlp(scale=0.1)
    regime = trained(network, method(tolerance=0.1), epochs=7)
    assert regime.ranks == {"0": 9, "3": 9}
    assert regime.reports[-1].metrics["val_accuracy"] > 0.97
    assert 0 < worst[0] <= 1e-5


def test_small_singular_values_do_not_slow_it_down() -> None:
    """On a fixed batch every step goes downhill, and at once, where two factors with the same rate hardly move."""
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(64, 20, generator=drawn)
    wanted = x @ low_rank(nn.Linear(20, 12), 3, seed=1).V @ torch.randn(3, 12, generator=drawn)
    low = low_rank(nn.Linear(20, 12, bias=False), 4)
    low.S.data = torch.full((4,), 1e-6).diag()
    two = [nn.Parameter(1e-3 * basis) for basis in (low.U, low.V)]
    rate = 0.3

    def step(answer: Tensor) -> float:
        loss = functional.mse_loss(answer, wanted)
        loss.backward()
        return float(loss.detach())

    losses, plain = [], []
    for _ in range(20):
        low.open()
        losses.append(step(low(x)))
        low.augment(rate, 0.0)
        step(low(x))
        low.step(rate, 0.0)
        low.truncate(lambda values: min(rank_within(values, 1e-4), 4))
        plain.append(step(x @ two[1] @ two[0].T))
        for one in two:
            one.data, one.grad = moved(one, rate, 0.0), None
    assert all(after < before for before, after in pairwise(losses))
    assert losses[-1] < 0.5 * losses[0]
    assert plain[-1] > 0.99 * plain[0]


def test_two_layers_are_left_in_the_end(tmp_path: Path) -> None:
    """Ranks come through files exactly, the second round gives the same network, and the file is smaller."""
    plain, network, made = mlp(48), mlp(48), method(tolerance=0.4)
    regime = trained(network, made)
    between = rebuilt(plain, changes_of(plain, network))
    between.load_state_dict(safetensors.torch.load(safetensors.torch.save(network.state_dict())))
    change = method(tolerance=0.4).compress(between.eval(), 1)  # by another process
    (check,) = change.checks
    assert check.difference <= check.tolerance == 1e-5
    assert {name: one["rank"] for name, one in change.report.items()} == regime.ranks
    first: Any = between[0]
    assert [one.bias is None for one in first] == [True, False]
    torch.testing.assert_close(first[0].weight.norm(), first[1].weight.norm(), rtol=1e-4, atol=0)
    x = torch.randn(5, 64)
    torch.testing.assert_close(between(x), network.eval()(x), rtol=0, atol=1e-5)
    assert rebuilt(plain, changes_of(plain, between))(x).shape == (5, 10)
    sizes = []
    for number, one in enumerate((plain, between)):
        safetensors.torch.save_file(one.state_dict(), tmp_path / str(number))
        sizes.append((tmp_path / str(number)).stat().st_size)
    assert sizes[1] < 0.7 * sizes[0]
    assert change.report["0"]["weights"] == regime.ranks["0"] * (64 + 48)


def test_factors_that_diverge_end_the_training() -> None:
    low = low_rank(nn.Linear(6, 5), 4)
    low.S.data[0, 0] = torch.inf
    with pytest.raises(TrialError, match="nan-loss: the factors of a low-rank layer are not finite"):
        low.truncate(lambda values: 3)


@pytest.mark.parametrize("plan", [{"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "adam", "keep": "best"}])
def test_a_killed_training_continues_bit_for_bit(tmp_path: Path, plan: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"tolerance": 0.3, "settle": 0.2}
    straight, killed, resumed = (mlp(32, middle=nn.Dropout) for _ in range(3))
    plan |= {"epochs": 4, "weight_decay": 1e-3, "lr": 0.05}
    ranks = trained(straight, method(**settings), **plan).ranks
    begun = trained(killed, method(**settings), folder=tmp_path, stop=2, **plan)
    assert begun.ranks != {"0": 16, "3": 16}  # the state has other shapes than at the start
    assert trained(resumed, method(**settings), folder=tmp_path, **plan).ranks == ranks
    found = resumed.state_dict()
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, found[name]), name
    with pytest.raises(UsageError, match="belongs to another training: dlrt is"):
        trained(mlp(32, middle=nn.Dropout), method(tolerance=0.2), folder=tmp_path, **plan)


def test_bases_stay_while_it_settles() -> None:
    bases = []

    class Watched(Planted):
        def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
            bases.append((low().U.clone(), low().S.detach().clone()))
            return super().metrics(output, batch)

    network = mlp(32)

    def low() -> LowRank:
        found = network[0]
        assert isinstance(found, LowRank)
        return found

    trained(network, method(tolerance=0.3, settle=0.5), Watched(4), epochs=4, lr=0.05)
    (early, _), (begun, core), (late, last) = (bases[place] for place in (0, 2, 6))
    assert early.shape != begun.shape or not torch.equal(early, begun)
    assert torch.equal(begun, late)
    assert not torch.equal(core, last)
    middle: Any = network[0]
    assert torch.equal(middle[1].weight, middle[1].weight.diagonal().diag())  # for the second round


def test_factors_move_at_the_rate_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    def noted(parameter: Any, rate: float, decay: float) -> Tensor:
        rates.append(round(rate, 6))
        return moved(parameter, rate, decay)

    monkeypatch.setattr("compressors.dlrt.moved", noted)
    plan = {"optimizer": "adamw", "schedule": "step", "milestones": ((1, 0.1),), "lr": 1e-3, "grad_clip": 1.0}
    trained(mlp(24), method(lr=0.2), Planted(steps=1), **plan)
    assert rates == [0.2] * 6 + [0.02] * 6  # K, L and S of two layers


def test_a_target_bounds_the_ranks() -> None:
    network = mlp(48)
    target = {"targets": (parse_target("params<=0.4x"),)}
    made = method(subject=target, tolerance=0.0)
    before = params(network)
    trained(network, made)
    made.compress(network.eval(), 1)
    assert 0.35 * before < params(network) <= 0.4 * before


def test_a_plan_says_the_ranks_of_now() -> None:
    network = mlp(48)
    plan = method(tolerance=0.5).plan(network)
    values = torch.linalg.svdvals(network[0].weight.detach())
    wanted = rank_within(values, 0.5)
    assert plan.parts[0].note == f"before its training of rank {wanted} of 48"
    assert [one.reason for one in plan.fixed] == ["it is the classifier"]
    assert plan.reachable["params"][0] < plan.costs["params"] < plan.reachable["params"][2]


def test_it_may_begin_anew() -> None:
    initial = mlp(24, seed=5)
    subject = {"initial": lambda: copy.deepcopy(initial)}
    one, other = mlp(24), mlp(24, seed=9)
    for network in (one, other):
        trained(network, method(subject=subject, from_scratch=True), epochs=1)
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
    fresh = method(subject=subject, from_scratch=True)
    fresh.compress(other := mlp(24), 0)
    assert all(map(torch.equal, other.state_dict().values(), initial.state_dict().values()))


@pytest.mark.parametrize(
    ("subject", "settings", "message"),
    [
        ({"recipe": recipe(), "epochs": 0}, {}, "dlrt finds ranks while it trains"),
        ({"recipe": recipe(ema=0.9), "epochs": 1}, {}, "leave ema out for dlrt"),
        ({"recipe": recipe(orthonormality={}), "epochs": 1}, {}, "leave orthonormality out"),
        ({}, {"from_scratch": True}, "leave out from_scratch"),
    ],
)
def test_what_cannot_be_is_said(subject: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        method(subject=subject, **settings)


def test_a_second_round_without_a_first_one_is_refused() -> None:
    with pytest.raises(UsageError, match="no layer of low rank came out of its training"):
        method().compress(mlp(24), 1)
