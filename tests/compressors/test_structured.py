"""Structured methods: a trained network becomes smaller, scores are kept, plans and refusals."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch.nn import functional

import compressors
from compressors import structured
from compressors.compressor import HasPlan, Subject
from compressors.groups.costs import Costs
from compressors.groups.removal import masked
from compressors.groups.trace import trace
from compressors.structured import Structured
from nas_core import refs
from nas_core.errors import TrialError, UsageError
from search_spaces.counter import macs, params
from tests.compressors.hand_made import Net, subject

METHODS = ("magnitude", "taylor", "obd", "oba", "bn-scale", "random")


def method(name: str) -> Any:
    return refs.find(name, compressors.BUILTIN, compressors.GROUP, "compression method")


def made(name: str, about: Subject, **settings: Any) -> Structured:
    kind = method(name)
    found: Structured = kind(about, kind.Config(**settings))
    return found


def cost(network: nn.Module) -> dict[str, float]:
    """That of one image."""
    return {"params": float(params(network)), "macs": float(macs(network, (subject().inputs[0][:1],)))}


@pytest.mark.parametrize("name", METHODS)
def test_what_is_left_answers_as_the_masked_network_and_meets_the_target(name: str) -> None:
    about, network = subject("macs<=0.5x"), Net().eval()
    before, inputs = copy.deepcopy(network), about.inputs
    change = made(name, about).compress(network, 0)
    assert macs(network, inputs) <= 0.5 * macs(before, inputs)
    groups = trace(before, inputs)
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), masked(before, groups, change.removed)(*inputs))
    assert change.recalibrate
    assert set(change.report) <= {group.name for group in groups.groups}
    for group, said in change.report.items():
        gone = change.removed.get(group, ())
        assert said["kept"] == said["units"] - len(gone)
        stays = [score for place, score in enumerate(said["scores"]) if place not in gone]
        assert all(said["scores"][place] <= min(stays) for place in gone)
    json.dumps(change.report)
    assert params(network) < params(before)
    network(*inputs).sum().backward()


@pytest.mark.parametrize("name", METHODS)
def test_settings_are_those_of_the_score_and_of_all(name: str) -> None:
    kind = method(name)
    assert {"allocation", "rounds", "inexact"} <= set(kind.Config.model_fields)
    assert set(kind.scoring.model_fields) <= set(kind.Config.model_fields)
    assert isinstance(made(name, subject()), HasPlan)
    assert ("data" in kind.needs) == (name in ("taylor", "obd", "oba"))


def test_a_second_target_scores_and_traces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, Any] = {}
    first = subject("macs<=0.7x", cache=kept)
    made("taylor", first).compress(Net().eval(), 0)
    assert first.data.passes == 1
    assert all(isinstance(value, str | numpy.ndarray) for entry in kept.values() for value in entry.values())

    def never(*_: object) -> None:
        raise AssertionError("the network was traced before")

    monkeypatch.setattr(structured, "trace", never)
    second = subject("macs<=0.4x", "params<=0.5x", cache=kept)
    begun = time.perf_counter()
    found = made("taylor", second).compress(Net().eval(), 0)
    assert time.perf_counter() - begun < 2
    assert second.data.passes == 0
    monkeypatch.undo()
    again = made("taylor", subject("macs<=0.4x", "params<=0.5x")).compress(Net().eval(), 0)
    assert found == again
    for other in (made("taylor", second, batches=1), made("taylor", second, of="weights")):
        other.compress(Net().eval(), 0)
    assert second.data.passes == 2
    made("taylor", second).compress(Net(seed=1).eval(), 0)
    assert second.data.passes == 3


def test_rounds_approach_the_target_geometrically() -> None:
    about, network = subject("macs<=0.25x"), Net().eval()
    about = subject("macs<=0.25x", base={"macs": cost(network)["macs"]})
    several = made("magnitude", about, rounds=2)
    assert len(several.rounds) == 2
    sizes = []
    for round in range(2):
        several.compress(network, round)
        sizes.append(cost(network)["macs"] / about.base["macs"])
    assert 0.25 < sizes[0] <= 0.5
    assert sizes[1] <= 0.25
    assert several.compress(network, 1).removed == {}


def test_a_plan_leaves_the_network_as_it_is_and_says_what_it_would_come_to() -> None:
    about, network = subject("macs<=0.5x"), Net().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    taylor = made("taylor", about)
    plan = taylor.plan(network)
    assert about.data.passes == 0  # counts do not depend on scores
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert [part.units for part in plan.parts] == [6, 4]
    least, middle, most = plan.reachable["macs"]
    assert least < middle < most == cost(network)["macs"]
    assert plan.reachable["params"][2] == params(network)
    assert plan.costs["macs"] <= 0.5 * most
    assert [one.name for one in plan.fixed] == ["head"]
    for part in plan.parts:
        assert part.saves["macs"] > 0
    taylor.compress(network, 0)
    assert plan.costs == cost(network)
    free = made("magnitude", subject()).plan(Net().eval())
    assert free.costs["macs"] == most
    by_score = made("taylor", about, allocation="global").plan(Net().eval())
    assert by_score.costs["macs"] <= 0.5 * most
    assert about.data.passes == 1  # kept by the one before


def test_what_cannot_be_is_refused_and_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Net().eval()
    before = copy.deepcopy(network.state_dict())
    for targets, said in (
        (("macs<=0.01x",), r"macs<=0.01x' cannot be met: the least .* is macs="),
        (("macs<=1x",), "is met already"),
        (("density<=0.5",), "density"),
        ((), "no target"),
    ):
        with pytest.raises(UsageError, match=said):
            made("magnitude", subject(*targets)).compress(network, 0)
        if targets:
            with pytest.raises(UsageError, match=said):
                made("magnitude", subject(*targets), rounds=3).plan(network)
    with pytest.raises(UsageError, match=r"no unit of the network can be removed: 'conv1' stays: .*ignored"):
        made("magnitude", subject("macs<=0.5x", ignored=("conv1", "bn1", "conv2"))).compress(network, 0)
    monkeypatch.setattr(structured.MagnitudeScore, "__call__", lambda *_: {"conv1": numpy.full(6, numpy.inf)})
    with pytest.raises(TrialError, match="not finite"):
        made("magnitude", subject("macs<=0.5x")).compress(network, 0)
    assert [tensor.shape for tensor in before.values()] == [tensor.shape for tensor in network.state_dict().values()]


class Normalised(nn.Module):
    """A hidden width that a LayerNorm reads, and one that nothing but its reader does."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.one, self.norm, self.two, self.head = (
                nn.Linear(48, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 2)
            )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(functional.relu(self.two(self.norm(self.one(x.flatten(1))))))
        return out


def test_units_that_are_not_exact_go_only_where_that_is_asked_for() -> None:
    network = Normalised().eval()
    change = made("magnitude", subject("params<=0.9x")).compress(copy.deepcopy(network), 0)
    assert set(change.removed) == {"two"}
    plan = made("magnitude", subject("params<=0.9x")).plan(network)
    assert {part.name: part.note.startswith("not exact") for part in plan.parts} == {"one": True, "two": False}
    with pytest.raises(UsageError, match="cannot be met"):
        made("magnitude", subject("params<=0.5x")).compress(copy.deepcopy(network), 0)
    small = copy.deepcopy(network)
    change = made("magnitude", subject("params<=0.5x"), inexact=True).compress(small, 0)
    assert params(small) <= 0.5 * params(network)
    assert change.report["one"]["change"] > 1e-3
    assert "change" not in change.report["two"]


def test_costs_of_a_plan_are_those_of_one_sample() -> None:
    about, network = subject("macs<=0.5x"), Net().eval()
    assert len(about.inputs[0]) > 1
    groups = trace(network, about.inputs)
    one = (about.inputs[0][:1],)
    assert made("magnitude", about).plan(network).reachable["macs"][2] == macs(network, one)
    assert Costs(network, groups, one).of({})["macs"] == macs(network, one)
