"""HESSO (arXiv 2409.09085): saliency, schedule, exact zeros, and the networks that are left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compressors.allocation import Choice
from compressors.groups.groups import Group, Removal, Slice, Unit
from compressors.hesso import Criteria, Hybrid, Schedule, Settings, Shrinking, Sums, saliency
from compressors.hesso_cric import Corrective, Phases
from compressors.hesso_cric import Settings as CricSettings
from compressors.units import Units
from compressors.zeroing import Goal
from nas_core.batch import Batch
from nas_core.errors import UsageError
from nas_core.task import Task
from tests.small_data import Classes, Images
from training.fit import fit
from training.recipe import Recipe
from training.regimes.regime import Regime

CPU = torch.device("cpu")


DATA = Images(samples=64)


class Net(nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self, width: int = 8, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.linear = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        out: Tensor = self.linear(self.bn2(self.conv2(x)).relu().mean((2, 3)))
        return out


def groups(network: nn.Module) -> tuple[Group, ...]:
    """The two widths of a `Net`."""
    found = []
    for conv, norm, reader in (("conv1", "bn1", "conv2"), ("conv2", "bn2", "linear")):
        made = [f"{conv}.weight", f"{norm}.weight", f"{norm}.bias"] + ([f"{conv}.bias"] if conv == "conv1" else [])
        statistics = [f"{norm}.running_mean", f"{norm}.running_var"]
        units = [
            Unit(
                tuple(Slice(name, 0, (row,)) for name in made),
                (Slice(f"{reader}.weight", 1, (row,)), *(Slice(name, 0, (row,)) for name in statistics)),
            )
            for row in range(network.get_submodule(conv).weight.shape[0])
        ]
        found.append(Group(conv, tuple(units), True))
    return tuple(found)


class Rows:
    """A network costs what all its units together are."""

    def __init__(self, groups: tuple[Group, ...]) -> None:
        self._all = sum(len(group.units) for group in groups)

    def of(self, removed: Removal) -> Mapping[str, float]:
        return {"params": self._all - sum(map(len, removed.values()))}


def goal(network: nn.Module, going: int | float, round_to: int = 1) -> Goal:
    """So many units are to go, or so many may stay (a float)."""
    found = groups(network)
    return Goal(Choice(found, Rows(found), "global", round_to), going if isinstance(going, int) else {"params": going})


def recipe(**changes: Any) -> Recipe:
    given = {"epochs": 5, "lr": 0.05, "batch_size": 16, "schedule": "constant", "precision": "float32"}
    return Recipe.model_validate(given | changes)


def settings(**changes: Any) -> Settings:
    return Settings.model_validate({"start": 0.2, "prune": 0.6, "periods": 3} | changes)


def trained(network: nn.Module, regime: Regime, **changes: Any) -> None:
    list(fit(network, DATA, recipe(**changes), device=CPU, seed=1, regimes=[regime]))


def resumed(make: Callable[[nn.Module], Regime], folder: Path, **changes: Any) -> nn.Module:
    """A network that is trained one epoch by each of so many processes."""
    plan = recipe(**changes)
    for budget in range(1, plan.epochs + 1):
        network = Net()
        list(fit(network, DATA, plan, device=CPU, seed=1, budget=budget, folder=folder, regimes=[make(network)]))
    return network


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Watched(Hybrid):
    """Notes after every step what `look` sees."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: list[Any] = []

    def after_step(self) -> None:
        super().after_step()
        self.seen.append((self._n, self.redundant.clone(), self.pruned.clone(), self.units.sums(_squares).sqrt()))


def _squares(name: str, tensor: Tensor) -> Tensor:
    return tensor.detach().double().square()


# -- HESSO ------------------------------------------------------------------------------------------------------------


def test_as_many_units_as_asked_for_are_exactly_0_at_the_known_step() -> None:
    """20 steps: T = 4, P = 3, D = 4, K = 7: two, two and the rest; the last are 0 from n = T + P D - 1 on."""
    network = Net()
    regime = Watched(goal(network, 7), settings())
    trained(network, regime)
    zeros = [int((norms == 0.0).sum()) for _, _, _, norms in regime.seen]
    assert zeros == [0] * 6 + [2] * 4 + [4] * 4 + [7] * 6
    assert int(Units(groups(network), network).zero().sum()) == 7


def test_units_shrink_on_a_line() -> None:
    network = Net()
    regime = Watched(goal(network, 7), settings(periods=1))
    before = Units(groups(network), network).sums(_squares).sqrt()
    trained(network, regime, lr=1e-30, momentum=0.0, weight_decay=0.0)
    length = Schedule.of(settings(periods=1), 20).length
    chosen = regime.seen[-1][2]
    assert (length, int(chosen.sum())) == (12, 7)
    for t in (1, 4, 9):
        n, _, _, norms = regime.seen[4 + t - 1]
        assert n == 4 + t
        assert torch.allclose(norms[chosen], before[chosen] * (length - 1 - t) / (length - 1), rtol=1e-6, atol=0)
        assert torch.equal(norms[~chosen], before[~chosen])


@pytest.mark.parametrize(("steps", "expected"), [(1000, (100, 10, 15)), (20, (2, 3, 1)), (1, (0, 1, 1))])
def test_the_schedule_is_of_shares_of_the_steps(steps: int, expected: tuple[int, int, int]) -> None:
    assert Schedule.of(Settings(), steps) == expected
    start, periods, length = expected
    begun = [n for n in range(1, steps + 1) if Schedule(*expected).period(n) is not None]
    assert begun == [start + 1 + number * length for number in range(periods)]
    assert any(Schedule(*expected).factor(n) == (0.0, True) for n in range(begun[-1], steps + 1))


def drawn(units: int = 30) -> Sums:
    made = torch.randn(2, units, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, d = made[0] * torch.linspace(0.1, 3, units)[:, None], made[1]
    return Sums(x.square().sum(1), d.square().sum(1), (x * d).sum(1), torch.arange(units).double() + 1)


def test_every_criterion_has_the_norm_of_its_weight() -> None:
    found = saliency(drawn(), Settings())
    assert len(found) == 5
    for values in found.values():
        assert float(values.square().sum()) == pytest.approx(0.04, abs=1e-5)


def test_the_ranking_does_not_depend_on_the_scale_of_a_criterion() -> None:
    """1,000 times as many scalars, and directions a thousandth as long: three raw values change, no ranking does."""
    sums = drawn()
    ranking = sum(saliency(sums, Settings()).values()).argsort()
    scaled = Sums(sums.xx, sums.dd / 1e6, sums.xd / 1e3, sums.scalars * 1000)
    assert torch.equal(sum(saliency(scaled, Settings()).values()).argsort(), ranking)


def test_the_criteria_are_those_of_the_paper() -> None:
    x, d = torch.tensor([[3.0, 4.0], [1.0, 0.0]]).double(), torch.tensor([[4.0, -3.0], [2.0, 0.0]]).double()
    sums = Sums(x.square().sum(1), d.square().sum(1), (x * d).sum(1), torch.tensor([2.0, 2.0]))
    ones = Criteria(**dict.fromkeys(Criteria.model_fields, 1.0))
    raw = {"magnitude": [5, 1], "avg_magnitude": [2.5, 0.5], "cosine_similarity": [1, 2]}
    raw |= {"taylor_first_order": [0, 2], "taylor_second_order": [0, 2]}
    for name, values in saliency(sums, Settings(criteria=ones)).items():
        expected = torch.tensor(raw[name]).double()
        assert torch.allclose(values, expected / expected.norm()), name
    other = saliency(sums, Settings(criteria=ones, cosine="redundant"))["cosine_similarity"]
    assert torch.allclose(other, torch.tensor([1.0, 0.0]).double())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_directions_are_what_the_optimiser_moves_along(optimizer: str) -> None:
    """A step of the rate is the weights before less the weights after, without the decay that adamw adds."""
    network, rate = Net(), 1e-3
    kept: list[Tensor] = []

    class Moves(Shrinking):
        def after_step(self) -> None:
            moved = self.directions("conv1.weight", network.conv1.weight)
            assert moved is not None
            kept.append(network.conv1.weight.detach() + rate * moved)
            before.append(network.conv1.weight.detach().clone())

    before = [network.conv1.weight.detach().clone()]
    decay = 0.0 if optimizer == "adamw" else 0.01
    trained(network, Moves(goal(network, 7), settings()), lr=rate, optimizer=optimizer, weight_decay=decay, epochs=1)
    for expected, found in zip(before[:-1], kept, strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=2e-7)


def test_a_step_is_that_of_plain_tensors() -> None:
    """Two layers, the first step of a period, beside the equations of the paper on lists of tensors."""
    network = Net()
    regime = Watched(goal(network, 4), Settings(start=0.0, prune=1.0, periods=1))
    batches = list(DATA.batches("train", 0, 1))[:1]
    w = {name: one.detach().clone().requires_grad_() for name, one in network.named_parameters()}

    x = functional.conv2d(batches[0].inputs[0], w["conv1.weight"], w["conv1.bias"], padding=1)
    x = functional.batch_norm(x, None, None, w["bn1.weight"], w["bn1.bias"], True).relu()
    x = (
        functional.batch_norm(
            functional.conv2d(x, w["conv2.weight"], padding=1), None, None, w["bn2.weight"], w["bn2.bias"], True
        )
        .relu()
        .mean((2, 3))
    )
    functional.cross_entropy(functional.linear(x, w["linear.weight"], w["linear.bias"]), batches[0].target).backward()
    with torch.no_grad():
        d = {name: one.grad + 0.01 * one for name, one in w.items()}
        for name, one in w.items():
            one -= 0.05 * d[name]
        rows = [("conv1", "bn1", row) for row in range(8)] + [("conv2", "bn2", row) for row in range(6)]

        def members(of: Mapping[str, Tensor], conv: str, norm: str, row: int) -> Tensor:
            names = [f"{conv}.weight", f"{norm}.weight", f"{norm}.bias", f"{conv}.bias"]
            return torch.cat([of[name][row].flatten() for name in names if name in of])

        raw = []
        for unit in rows:
            a, b = members(w, *unit), members(d, *unit)
            norm, product = float(a.norm()), float(a @ b)
            raw.append([norm, norm / len(a), product / norm / float(b.norm()) + 1, abs(product), product**2 / 2])
        columns = torch.tensor(raw).double()
        scores = (0.2 * columns / columns.norm(dim=0)).sum(1)
        least = scores.argsort()[:4].tolist()
        length = 4  # D: all four steps of the epoch
        for conv, norm, row in (rows[number] for number in least):
            for name in (f"{conv}.weight", f"{norm}.weight", f"{norm}.bias", f"{conv}.bias"):
                if name in w:
                    w[name][row] *= (length - 2) / (length - 1)

    class First(Classes):
        task = DATA.task

        def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
            yield from batches * 4

    after: list[dict[str, Tensor]] = []

    class Kept(Watched):
        def after_step(self) -> None:
            super().after_step()
            after.append({name: one.detach().clone() for name, one in network.named_parameters()})

    regime = Kept(goal(network, 4), Settings(start=0.0, prune=1.0, periods=1))
    plan = recipe(epochs=1, weight_decay=0.01)
    list(fit(network, First(), plan, device=CPU, seed=1, regimes=[regime]))
    assert regime.seen[0][1].nonzero().flatten().tolist() == sorted(least)
    for name, one in w.items():
        assert torch.allclose(after[0][name], one, rtol=1e-5, atol=1e-6), name


def test_pruned_units_are_not_moved_by_momentum() -> None:
    network = Net()
    seen = []

    class Momentum(Watched):
        def after_step(self) -> None:
            pruned = self.pruned
            super().after_step()
            fresh = self.pruned & ~pruned
            (momenta, *_) = self.directions.momenta(self.units.tensors)
            seen.append(float(self.units.sums(lambda name, _: momenta[name].abs())[fresh].sum()))

    trained(network, Momentum(goal(network, 7), settings()))
    assert seen == [0.0] * 20


def test_a_width_is_a_multiple_and_no_group_is_emptied() -> None:
    scores = torch.cat([torch.arange(8.0), torch.arange(6.0) + 100])
    found = goal(Net(), 9, round_to=1).redundant(scores.clone(), torch.zeros(14, dtype=torch.bool))
    assert found.tolist() == [True] * 7 + [False] + [True] * 2 + [False] * 4
    found = goal(Net(), 3, round_to=4).redundant(scores.clone(), torch.zeros(14, dtype=torch.bool))
    assert found.tolist() == [True] * 4 + [False] * 10
    settled = torch.zeros(14, dtype=torch.bool)
    settled[13] = True
    found = goal(Net(), 2).redundant(scores.clone(), settled)
    assert found.nonzero().flatten().tolist() == [0, 13]


def test_the_last_period_meets_the_target() -> None:
    """At most 9.5 units may stay: the least number of units that meets it goes."""
    network = Net()
    trained(network, Hybrid(goal(network, 9.5), settings()))
    assert int(Units(groups(network), network).zero().sum()) == 5


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_training_ends_in_the_same_bits(optimizer: str, tmp_path: Path) -> None:
    """One epoch per process; with D = 6 they end within periods."""

    def make(network: nn.Module) -> Regime:
        return Hybrid(goal(network, 7), settings(periods=2))

    whole = Net()
    trained(whole, make(whole), optimizer=optimizer, lr=0.01)
    assert same(resumed(make, tmp_path, optimizer=optimizer, lr=0.01), whole)
    assert int(Units(groups(whole), whole).zero().sum()) == 7


# -- CRIC -------------------------------------------------------------------------------------------------------------


class Noted(Corrective):
    """What it was at the end of every step."""

    def begin(self, network: nn.Module, *arguments: Any) -> None:
        super().begin(network, *arguments)
        self.network, self.back, self.masks = network, [], []  # type: ignore[var-annotated]

    def after_step(self) -> None:
        cache = self.cache
        super().after_step()
        if cache:
            self.back.append(all(torch.equal(one, cache[name]) for name, one in self.network.state_dict().items()))
        self.masks.append({name: self.state[name].clone() for name in ("violating", "historical")})


def test_the_network_is_rolled_back_bit_for_bit() -> None:
    """48 steps: 4 before, 7 of probes, then cycles of 4: every probe and every fourth step ends in the cache."""
    network = Net()
    regime = Noted(goal(network, 7), CricSettings(cycle=0.1, cycles=3))
    trained(network, regime, epochs=12)
    assert Phases.of(CricSettings(cycle=0.1), 48, 2) == (4, 7, 4, 7)
    assert regime.back[:7] == [True] * 7
    cycles = regime.back[7:]
    assert len(cycles) in (4, 8, 12)
    assert cycles == [False, False, False, True] * (len(cycles) // 4)
    assert int(Units(groups(network), network).zero().sum()) == 7


def test_a_violating_set_is_tried_once() -> None:
    network = Net()
    regime = Noted(goal(network, 7), CricSettings(cycle=0.1, cycles=3))
    trained(network, regime, epochs=12)
    first, later = regime.masks[4 + 7 - 1], regime.masks[4 + 7 + 4 - 1]
    assert int(first["violating"].sum()) == 7
    assert torch.equal(later["historical"], first["violating"])
    assert not (later["violating"] & later["historical"]).any()


def test_a_resumed_training_with_cycles_ends_in_the_same_bits(tmp_path: Path) -> None:
    """One epoch of 4 steps per process: they end within probes, within cycles, and while units shrink."""

    def make(network: nn.Module) -> Regime:
        return Corrective(goal(network, 7), CricSettings(cycle=0.13, cycles=3))

    whole = Net()
    trained(whole, make(whole), epochs=12)
    assert same(resumed(make, tmp_path, epochs=12), whole)
    assert int(Units(groups(whole), whole).zero().sum()) == 7


def test_a_training_that_is_too_short_for_cycles_is_refused() -> None:
    network = Net()
    with pytest.raises(UsageError, match="a training of 8 steps is too short for hesso-cric"):
        trained(network, Corrective(goal(network, 7), CricSettings()), epochs=2)


class Corners(Classes):
    """Four classes: in which quarter of a plane the first two of four numbers lie."""

    task = Task(kind="image-classification", input_shape=(1, 2, 2), outputs=4)

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        x = torch.randn(128, 4, generator=torch.Generator().manual_seed(0))
        target = (x[:, 0] > 0) + 2 * (x[:, 1] > 0)
        for rows in torch.arange(128).split(32):
            yield Batch((x[rows].view(-1, 1, 2, 2),), target[rows].long())


class Bottleneck(nn.Sequential):
    """All goes through two features with tiny weights, which the layer behind them makes large again."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Flatten(), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2), nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 4)
        )

    def planted(self) -> Bottleneck:
        list(fit(self, Corners(), recipe(epochs=20, batch_size=32), device=CPU, seed=0))
        with torch.no_grad():
            for tensor in self[3].parameters():
                tensor *= 1e-3
            self[4].weight *= 1e3
        return self


def of_bottleneck() -> Choice:
    found = []
    for place, reader, width in ((1, 3, 16), (3, 4, 2), (4, 6, 16)):
        units = [
            Unit(
                (Slice(f"{place}.weight", 0, (row,)), Slice(f"{place}.bias", 0, (row,))),
                (Slice(f"{reader}.weight", 1, (row,)),),
            )
            for row in range(width)
        ]
        found.append(Group(str(place), tuple(units), True))
    return Choice(tuple(found), Rows(tuple(found)), "global", 1)


@pytest.mark.parametrize(("cycles", "kept"), [(False, 1), (True, 2)])
def test_a_planted_bottleneck_is_kept_by_cycles_alone(cycles: bool, kept: int) -> None:
    """By magnitude its features are the first to go but for the last one; a probe shows their worth."""
    network, choice = Bottleneck().planted(), of_bottleneck()
    alone = Criteria(**{name: float(name == "magnitude") for name in Criteria.model_fields})
    regime: Regime = Hybrid(Goal(choice, 10), Settings(criteria=alone))
    if cycles:
        regime = Corrective(Goal(choice, 10), CricSettings(criteria=alone))
    plan = recipe(epochs=15, batch_size=32, lr=1e-8, momentum=0.0, weight_decay=0.0)
    list(fit(network, Corners(), plan, device=CPU, seed=0, regimes=[regime]))
    assert int(network[3].weight.any(1).sum()) == kept
