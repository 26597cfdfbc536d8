"""Feed-forward layers are found by what is computed, and replaced where that changes nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compressors.cmoe import Settings as Carved
from compressors.cmoe import carve, carved_layer, hidden_scores
from compressors.feed_forward import FeedForward, feed_forwards
from nas_core.errors import UsageError
from search_spaces.layers.carved import CarvedFeedForward
from training.changes import changes_of, rebuilt

WIDTH, HIDDEN = 6, 8
SETTINGS = Carved(experts=4, shared=1, active=1, k_act=2)


class Fused(nn.Module):
    """Gate and value are the halves of one map; `reverse`: the second half is the gate."""

    def __init__(self, reverse: bool = False, cut: str = "chunk") -> None:
        super().__init__()
        self.both, self.out, self.act = nn.Linear(WIDTH, 2 * HIDDEN), nn.Linear(HIDDEN, WIDTH), nn.SiLU()
        self.reverse, self.cut = reverse, cut

    def forward(self, x: Tensor) -> Tensor:
        whole = self.both(x)
        halves = whole.chunk(2, -1) if self.cut == "chunk" else whole.split(HIDDEN, dim=-1)
        gate, value = halves[::-1] if self.reverse else halves
        answer: Tensor = self.out(value * self.act(gate))
        return answer


class Attributes(nn.Module):
    """Parts of a larger module, with an activation that is a module of it; then with one that is a function."""

    def __init__(self, function: bool = False) -> None:
        super().__init__()
        self.norm, self.act = nn.LayerNorm(WIDTH), nn.GELU(approximate="tanh")
        self.wide, self.narrow, self.function = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH), function

    def forward(self, x: Tensor) -> Tensor:
        inner = self.wide(self.norm(x))
        answer: Tensor = x + self.narrow(functional.relu(inner) if self.function else self.act(inner))
        return answer


class Between(nn.Module):
    """The hidden value is read twice, the activation is unknown, the maps are used twice, or gate and value differ."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(WIDTH, HIDDEN), nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, 6)
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        if self.what == "read twice":
            inner = self.first(x).relu()
            answer: Tensor = self.last(inner) + inner.mean()
        elif self.what == "unknown":
            answer = self.last(functional.softplus(self.first(x)))
        elif self.what == "used twice":
            answer = self.last(self.last(self.first(x).relu())[..., :1].expand(-1, -1, HIDDEN))
        else:
            answer = self.last(functional.silu(self.first(x)) * self.second(-x))
        return answer


def found_in(network: nn.Module, ignored: tuple[str, ...] = ()) -> tuple[Any, Any]:
    return feed_forwards(network.eval(), (torch.randn(2, 5, WIDTH),), ignored)


def carved_in(network: nn.Module, one: FeedForward, active: int) -> CarvedFeedForward:
    maps = one.layers(network)
    carving = carve(hidden_scores(torch.randn(64, WIDTH), maps, one.activation), SETTINGS)
    layer = carved_layer(maps, carving, one.activation, active, one.dropout).eval()
    one.replace(network, layer)
    return layer


def encoder(**more: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(WIDTH, 2, HIDDEN, batch_first=True, **more)


@pytest.mark.parametrize(
    ("network", "places", "activation"),
    [
        (nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, WIDTH)), ["0"], "tanh"),
        (nn.Sequential(Fused()), ["0"], "silu"),
        (nn.Sequential(Fused(True, "split")), ["0"], "silu"),
        (Attributes(), ["wide"], "gelu_tanh"),
        (
            nn.TransformerEncoder(encoder(), 2),
            ["layers.0.linear1", "layers.1.linear1"],
            "relu",
        ),
        (
            nn.Sequential(encoder(activation="gelu", norm_first=True)),
            ["0.linear1"],
            "gelu",
        ),
    ],
)
def test_where_they_are_and_that_replacing_them_changes_nothing(
    network: nn.Module, places: list[str], activation: str
) -> None:
    found, fixed = found_in(network)
    assert not fixed
    assert [one.place for one in found] == places
    assert {one.activation for one in found} == {activation}
    assert {one.positions for one in found} == {10}
    carved = copy.deepcopy(network)
    for one in found:
        carved_in(carved, one, 3)
    x = torch.randn(2, 5, WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(carved(x), network(x), rtol=1e-5, atol=1e-5)
        again = rebuilt(network, changes_of(network, carved))
        again.load_state_dict(carved.state_dict())
        assert torch.equal(again.eval()(x), carved(x))


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (Attributes(function=True), "it is no module of its own"),
        (Between("read twice"), "something else reads it too"),
        (Between("unknown"), "no layer is known with this activation"),
        (Between("used twice"), "used more than once"),
        (Between("differ"), "gate and up read different values"),
    ],
)
def test_what_cannot_be_replaced_is_said_with_the_operator(network: nn.Module, says: str) -> None:
    found, fixed = found_in(network)
    assert not found
    assert [one.units for one in fixed] == [HIDDEN]
    assert says in fixed[0].reason


def test_the_operator_in_the_way_is_named() -> None:
    _, (one,) = found_in(nn.Sequential(Attributes(function=True)))
    assert (one.name, one.operator, one.at) == ("0.wide", "aten.relu.default", "0")


def test_dropout_goes_with_the_layer() -> None:
    network = encoder(dropout=0.25)
    (one,), _ = found_in(network)
    assert carved_in(network, one, 1).dropout == 0.25
    assert isinstance(network.dropout, nn.Identity)
    assert network.dropout1.p == 0.25


def test_ignored_modules_stay() -> None:
    network = nn.Sequential(Fused(), Fused())
    found, fixed = found_in(network, ("1",))
    assert [one.place for one in found] == ["0"]
    assert [(one.name, one.reason) for one in fixed] == [("1.both", "it is ignored")]


def test_a_module_that_is_called_with_more_is_not_replaced() -> None:
    class Masked(Fused):
        def forward(self, x: Tensor, mask: None = None) -> Tensor:
            return super().forward(x)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Masked()

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.inner(x, mask=None)
            return answer

    found, (one,) = found_in(Outer())
    assert not found
    assert one.name == "inner.both"


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if bool(x.sum() > 0) else -x

    with pytest.raises(UsageError, match="cannot be traced"):
        found_in(Branching())


def test_a_rebuilt_layer_is_in_the_mode_of_the_network_around_it() -> None:
    network = nn.Sequential(nn.TransformerEncoder(encoder(dropout=0.5), 1)).eval()
    carved = copy.deepcopy(network)
    for one in found_in(network)[0]:
        carved_in(carved, one, 1)
    again = rebuilt(network, changes_of(network, carved))
    assert not any(module.training for module in again.modules())
    assert all(module.training for module in rebuilt(network.train(), changes_of(network, carved)).modules())
