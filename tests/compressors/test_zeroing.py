"""Methods that leave units at 0 while a network trains: whole ways, from a target to the network that is left."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from compressors.comparison import difference
from compressors.compressor import Subject
from compressors.groups.groups import Group, Slice, Unit
from compressors.hesso import Hesso
from compressors.hesso_cric import HessoCric
from compressors.polarization import Polarization, sites
from compressors.proof import prove
from compressors.testing import Residual
from compressors.units import Units
from compressors.zeroing import Zeroing
from nas_core.errors import UsageError
from search_spaces.counter import macs, params
from tests.compressors.hand_made import CPU, Images, subject
from training.fit import fit
from training.recipe import Recipe

METHODS = (Hesso, HessoCric, Polarization)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Residual(3, 2)


def subject_of(given: nn.Module, *targets: str, **changes: Any) -> Subject:
    inputs = next(iter(Images().batches("train", 0, 0))).inputs
    base = {"params": float(params(given)), "macs": float(macs(given, [inputs[0][:1]]))}
    return subject(*targets, **({"base": base, "epochs": 12} | changes))


def plan(epochs: int) -> Recipe:
    given = {"epochs": epochs, "lr": 0.05, "batch_size": 16, "schedule": "constant", "precision": "float32"}
    return Recipe.model_validate(given)


@pytest.mark.parametrize(("kind", "target"), [*((kind, "macs<=0.6x") for kind in METHODS), (Hesso, "params<=0.7x")])
def test_what_is_left_meets_its_target_and_answers_as_before(kind: type[Zeroing], target: str) -> None:
    given = network()
    asked = subject_of(given, target)
    method = kind(asked, kind.Config())
    planned = method.plan(given)
    assert not method.compress(given, 0).removed
    regime = method.regime(given, 0)
    assert regime is not None
    list(fit(given, Images(), plan(12), device=CPU, seed=1, regimes=[regime]))
    before = copy.deepcopy(given).eval()
    change = method.compress(given.eval(), 1)
    found = {"params": params(given), "macs": macs(given, [asked.inputs[0][:1]])}
    limit = asked.targets[0].limit(asked.base)
    name = asked.targets[0].metric
    assert found[name] <= limit
    assert planned.costs[name] <= limit
    assert planned.reachable[name][0] <= found[name]
    with torch.no_grad():
        assert difference(before(*asked.inputs), given(*asked.inputs)) <= 1e-6
    checks = prove(before, given, change.removed, [asked.inputs], recalibrated=change.recalibrate)
    assert all(one.difference <= one.tolerance for one in checks)
    assert change.recalibrate == (kind is Polarization)
    if kind is Polarization:
        (note,) = change.notes
        assert note.endswith("% of the units were on for all inputs or for none")
        assert len(change.report["conv1"]["activity"]) == 12


def test_a_share_of_all_units_goes() -> None:
    given = network()
    method = Hesso(subject_of(given), Hesso.Config(sparsity=0.25))
    method.compress(given, 0)
    regime = method.regime(given, 0)
    assert regime is not None
    list(fit(given, Images(), plan(12), device=CPU, seed=1, regimes=[regime]))
    change = method.compress(given, 1)
    assert sum(one["units"] for one in change.report.values()) == 24
    assert sum(one["kept"] for one in change.report.values()) == 18


def test_widths_are_multiples() -> None:
    given = network()
    method = Hesso(subject_of(given, "macs<=0.6x", round_to=4), Hesso.Config())
    regime = method.regime(given, 0)
    assert regime is not None
    list(fit(given, Images(), plan(12), device=CPU, seed=1, regimes=[regime]))
    assert all(one["kept"] % 4 == 0 for one in method.compress(given, 1).report.values())


@pytest.mark.parametrize(
    ("targets", "settings", "changes", "words"),
    [
        ((), {}, {}, "there is no target"),
        (("macs<=0.001x",), {}, {}, "cannot be met: the least that this network can come to is macs="),
        (("macs<=2x",), {}, {}, "is met already"),
        (("macs<=0.5x",), {"sparsity": 0.5}, {}, "both say how much goes"),
        (("macs<=0.5x",), {}, {"epochs": 0}, "give it --epochs of 1 or more"),
        (("density<=0.5",), {}, {}, "set one of these"),
        (("macs<=0.5x",), {}, {"recipe": Recipe(epochs=2, keep="best")}, "take keep=last"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(
    targets: tuple[str, ...], settings: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    given = network()
    method = Hesso(subject_of(given, *targets, **changes), Hesso.Config(**settings))
    with pytest.raises(UsageError, match=words):
        method.plan(given)
    with pytest.raises(UsageError, match=words):
        method.compress(given, 0)


def test_gates_are_on_the_widths_that_one_layer_makes_behind_their_last_normalisation() -> None:
    """Of the sum that the stem and conv2 make there are none; those of conv1 are behind its normalisation."""
    from compressors.groups.trace import trace

    given, inputs = network().eval(), next(iter(Images().batches("train", 0, 0))).inputs
    found = sites(given, trace(given, inputs).groups, inputs)
    assert {name: (site.reads, list(site.ends), site.features) for name, site in found.items()} == {
        "conv1": ("conv1", ["norm1"], 8),
        "side": ("side", ["side"], 8),
    }
    assert found["conv1"].ends["norm1"] == tuple(range(12))


def test_a_network_of_sums_alone_has_no_place_for_gates() -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.last((self.one(x) + self.other(x)).relu().mean((2, 3)))
            return out

    given = Sums()
    with pytest.raises(UsageError, match="nothing to put gates on"):
        Polarization(subject_of(given, "macs<=0.6x"), Polarization.Config()).plan(given)


def test_units_that_produce_nothing_are_not_zero() -> None:
    given = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(given.weight)
    units = (Unit((Slice("weight", 0, (0,)),), ()), Unit((), (Slice("weight", 1, (1,)),)))
    assert Units([Group("made", units, True)], given).zero().tolist() == [True, False]
