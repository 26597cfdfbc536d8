"""Every listed compression method keeps the contract, and the suite says what a broken one does wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import compressors
from compressors import testing
from compressors.compressor import Change, Plan, Round, Subject
from nas_core import refs
from nas_core.config import Config


def listed(name: str) -> Any:
    return refs.find(name, compressors.BUILTIN, compressors.GROUP, "compression method")


@pytest.mark.parametrize("name", compressors.BUILTIN)
def test_a_listed_method_keeps_the_contract(name: str) -> None:
    assert list(testing.check(listed(name))) == []


class Halves:
    """Half of the units between the two linear maps of a pair go; what it does wrong is an attribute."""

    Config = Config
    needs: tuple[str, ...] = ("ffn",)
    rounds: Any = (Round(),)
    spoils = False
    plans: float | None = None
    claims = True
    draws = False
    hooks = False

    def __init__(self, subject: Subject, config: Config) -> None:
        pass

    def plan(self, network: Any) -> Plan:
        if self.spoils:
            network.pair[0].weight.data.zero_()
        return Plan((), (), {} if self.plans is None else {"params": self.plans}, {})

    def compress(self, network: Any, round: int) -> Change:
        first, last = network.pair[0], network.pair[2]
        count = first.out_features // 2
        kept = torch.randperm(first.out_features)[:count].sort().values if self.draws else torch.arange(count)
        first.weight, first.bias = nn.Parameter(first.weight[kept]), nn.Parameter(first.bias[kept])
        last.weight = nn.Parameter(last.weight[:, kept])
        first.out_features = last.in_features = count
        if self.hooks:
            network.pair.register_forward_hook(lambda module, inputs, output: output * 2)
        gone = sorted(set(range(2 * count)) - set(kept.tolist()))
        return Change(removed={"pair.0": gone if self.claims else gone[1:]})


def test_a_sound_method_has_no_findings() -> None:
    assert list(testing.check(Halves)) == []


@pytest.mark.parametrize(
    ("wrong", "finding"),
    [
        ({"needs": ("luck",)}, "needs luck, which is none of"),
        ({"rounds": 2}, "rounds is 2"),
        ({"spoils": True}, "plan changes the network"),
        ({"plans": 7.0}, "params was planned to be 7"),
        ({"claims": False}, "has the shape"),
        ({"draws": True}, "the same seed gives another network"),
        ({"hooks": True}, "answers otherwise"),
        ({"compress": lambda self, network, round: None}, "returns None, not a Change"),
    ],
)
def test_what_a_broken_method_does_wrong_is_said(wrong: dict[str, Any], finding: str) -> None:
    broken = type("Broken", (Halves,), wrong)
    findings: Iterator[str] = testing.check(broken)
    assert any(finding in found for found in findings)
