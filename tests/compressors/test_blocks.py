"""Whole blocks: which ones can go, what that saves, and gates that make them go."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressors.blocks import blocks, replace
from compressors.comparison import difference
from compressors.groups.trace import trace
from compressors.polarization import Polarization, Polarizing
from compressors.zeroing import Zeroing
from search_spaces.counter import macs, params
from tests.compressors.hand_made import CPU, Images
from tests.compressors.test_zeroing import plan, subject_of
from training.changes import changes_of, rebuilt
from training.fit import fit


class Block(nn.Module):
    """Two convolutions beside a shortcut; before or after them a ReLU, or a projection in the shortcut."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv1, self.norm1 = nn.Conv2d(width, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(width, width, 1) if kind == "projected" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        out = out + self.shortcut(x)
        return out if self.kind == "linear" else out.relu()


class Pair(nn.Module):
    """Reads and answers no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ReLU()

    def forward(self, pair: tuple[Tensor, int]) -> tuple[Tensor, int]:
        return self.inner(pair[0]), pair[1]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(Block(8, "usual"), Block(8, "projected"), Block(8, "linear"), Block(8, "usual"))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self.pair((self.stem(x), 1))[0]).mean((2, 3)))
        return out


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Residual()


def test_blocks_that_add_to_what_they_read_are_found(network: nn.Module) -> None:
    """Not those with a projection, and not the body, which holds them."""
    network.eval()
    one = next(iter(Images().batches("train", 0, 0))).inputs[0][:1]
    found = {block.name: block for block in blocks(network, trace(network, (one,)), (one,))}
    assert {name: block.layer for name, block in found.items()} == {
        "body.0": nn.ReLU,
        "body.2": nn.Identity,
        "body.3": nn.ReLU,
    }
    assert found["body.0"].inner == ("body.0.conv1",)
    without = copy.deepcopy(network)
    replace(without, "body.0", nn.ReLU)
    saved = {"params": params(network) - params(without), "macs": macs(network, [one]) - macs(without, [one])}
    assert found["body.0"].saves == saved
    assert saved["macs"] == 16 * 2 * 8 * 6 * 9


class Forced(Polarizing):
    """Block `body.3` is off, and all else is on."""

    def begin(self, *arguments: Any) -> None:
        super().begin(*arguments)
        place = [one.name for one, _ in self._gated].index("body.3")
        for number, gates in enumerate(self.gates):
            nn.init.constant_(gates.last.bias, -50.0 if number == place else 50.0)  # type: ignore[union-attr, arg-type]


def test_a_block_that_no_input_needs_goes(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressors.polarization.Polarizing", Forced)
    before = copy.deepcopy(network)
    subject = subject_of(network, "macs<=0.7x")
    method: Zeroing = Polarization(subject, Polarization.Config(polarization=0.0, weight=1e-9))
    assert {part.name for part in method.plan(network).parts if part.note == "a whole block"} == {
        *("body.0", "body.2", "body.3")
    }
    assert len(method.rounds) == 3
    assert not method.compress(network, 0).removed
    regime = method.regime(network, 0)
    assert regime is not None
    list(fit(network, Images(), plan(2), device=CPU, seed=1, regimes=[regime]))
    change = method.compress(network.eval(), 1)
    assert "body.3.conv1" not in change.removed or len(change.removed["body.3.conv1"]) < 6
    whole = copy.deepcopy(network)
    last = method.compress(network, 2)
    assert last.report == {"body.3": {"block": "replaced by ReLU"}}
    assert all(check.difference <= check.tolerance for check in last.checks)
    assert isinstance(network.get_submodule("body")[3], nn.ReLU)  # type: ignore[index]
    with torch.no_grad():
        assert difference(whole(*subject.inputs), network(*subject.inputs)) == 0.0
    assert macs(network, [subject.inputs[0][:1]]) <= 0.7 * subject.base["macs"]
    again = rebuilt(before, changes_of(before, network))
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert difference(again.eval()(*subject.inputs), network(*subject.inputs)) <= 1e-6  # of another layout
    assert method.compress(network, 2).report == {}


def test_costs_without_blocks_are_those_of_the_network_without_them(network: nn.Module) -> None:
    from compressors.groups.removal import remove

    subject = subject_of(network, "macs<=0.5x")
    method = Polarization(subject, Polarization.Config())
    groups, choice = method.choice(network.eval())
    regime = method.regime(network, 0)
    assert isinstance(regime, Polarizing)
    removed = {"body.0.conv1": [0, 1], "body.2.conv1": [3]}
    told = regime._prices.without([0]).of(removed)
    remove(network, groups, {"body.2.conv1": [3]})
    replace(network, "body.0", nn.ReLU)
    assert told == {"params": params(network), "macs": macs(network, [subject.inputs[0][:1]])}
    # With all units on, what a block adds is what it saves; it is less where units within it are off.
    everything = torch.ones(sum(choice.everything) + 3)
    share, slopes = regime._prices.lines(everything)["macs"]
    assert share == pytest.approx(1.0)
    whole = subject.base["macs"]
    assert slopes[-3:].tolist() == pytest.approx([16 * 2 * 8 * 6 * 9 / whole] * 3)
    everything[:3] = 0
    assert regime._prices.lines(everything)["macs"][1][-3].item() == pytest.approx(16 * 8 * 6 * 9 / whole)
