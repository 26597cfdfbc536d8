"""What single operators do to rows and columns: which units a small network has, and what is fixed, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from compressors.groups.trace import trace
from tests.compressors.networks import Made, images, pooled, rows, sequences, tokens
from tests.compressors.test_groups import disturbed, proved


@dataclass(frozen=True)
class Case:
    """A network, and its groups by name: how many units, and whether they are exact; `fixed`: operators that fix."""

    name: str
    forward: Callable[[Made, Tensor], Tensor]
    layers: dict[str, nn.Module | nn.Parameter]
    groups: dict[str, tuple[int, bool]]
    fixed: Sequence[str] = ()
    inputs: Callable[[], tuple[Tensor, ...]] = field(default=images)


def conv(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)


def head(width: int) -> nn.Linear:
    return nn.Linear(width, 5)


def shuffled(self: Made, x: Tensor) -> Tensor:
    x = self.one(x)
    n, c, h, w = x.shape
    return self.head(pooled(self.two(x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)).relu()))


def by_sum(self: Made, x: Tensor) -> Tensor:
    """Heads that the code holds as a number: what is within a head can go."""
    n, length, _ = x.shape
    q, k, v = (layer(x).view(n, length, 4, -1) for layer in (self.query, self.key, self.value))
    weights = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
    return self.out(torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(n, length, -1)).mean(1)


def excited(self: Made, x: Tensor) -> Tensor:
    x = self.one(x).relu()
    n, c, _, _ = x.shape
    gate = self.excite(self.squeeze(functional.adaptive_avg_pool2d(x, 1).view(n, c)).relu()).sigmoid().view(n, c, 1, 1)
    return self.head(pooled(x * gate.expand_as(x)))


def convnext(self: Made, x: Tensor) -> Tensor:
    x = self.one(x)
    y = self.narrow(functional.gelu(self.wide(self.norm(self.depthwise(x).permute(0, 2, 3, 1))))) * self.scale
    return self.head(pooled(x + y.permute(0, 3, 1, 2)))


def stepped(self: Made, x: Tensor) -> Tensor:
    state = None
    for step in x.unbind(1):
        state = self.cell(step, state)
    return self.head(state)


def stacked_experts(self: Made, x: Tensor) -> Tensor:
    x = self.embed(x).relu()
    hidden = (torch.einsum("nd,edf->nef", x, self.into) + self.bias).relu()
    return self.head((torch.einsum("nef,efd->ned", hidden, self.out) * self.route(x).softmax(-1)[..., None]).sum(1))


def highway(self: Made, x: Tensor) -> Tensor:
    x = self.one(x).relu()
    gate = self.gate(x).sigmoid()
    return self.head(gate * self.two(x).relu() + (1 - gate) * x)


def attended(self: Made, x: Tensor) -> Tensor:
    x = self.one(x)
    return self.head(pooled(self.two(x * (x.mean(1, keepdim=True) + x.amax(1, keepdim=True)).sigmoid()).relu()))


def mixer(self: Made, x: Tensor) -> Tensor:
    x = self.patches(x).flatten(2).transpose(1, 2)
    x = x + self.across(self.into(x.transpose(1, 2)).relu()).transpose(1, 2)
    return self.head((x + self.narrow(self.wide(x).relu())).mean(1))


def unfolded(self: Made, x: Tensor) -> Tensor:
    x = functional.interpolate(self.one(x), scale_factor=2)
    x = functional.interpolate(x, size=(8, 8), mode="bilinear")
    return self.head(functional.unfold(self.two(x), 3, stride=4, padding=1).flatten(1))


def outer(self: Made, x: Tensor) -> Tensor:
    return self.head((self.one(x)[:, :, None] * self.two(x)[:, None, :]).sum(1))


def in_place(self: Made, x: Tensor) -> Tensor:
    x = self.one(x).relu() * 1
    x += self.two(x.clone())
    return self.head(pooled(x))


ONE = {"one": nn.Linear(5, 8), "head": head(8)}
CASES = (
    Case(
        "shuffle",
        shuffled,
        {"one": conv(3, 8), "two": conv(8, 6), "head": head(6)},
        {"one": (2, True), "two": (6, True)},
    ),
    Case(
        "einsum",
        by_sum,
        {name: nn.Linear(5, 16) for name in ("query", "key", "value")} | {"out": head(16)},
        {"query": (4, False), "value": (4, True)},
        inputs=sequences,
    ),
    Case(
        "excite",
        excited,
        {"one": conv(3, 8), "squeeze": nn.Linear(8, 4), "excite": nn.Linear(4, 8), "head": head(8)},
        {"one": (8, True), "squeeze": (4, True)},
    ),
    Case(
        "convnext",
        convnext,
        {
            "one": conv(3, 8, 1),
            "depthwise": conv(8, 8, 7, groups=8),
            "norm": nn.LayerNorm(8),
            "wide": nn.Linear(8, 12),
            "narrow": nn.Linear(12, 8),
            "scale": nn.Parameter(torch.ones(8)),
            "head": head(8),
        },
        {"one": (8, False), "wide": (12, True)},
    ),
    Case(
        "lstm-cell",
        lambda self, x: stepped_pair(self, x),
        {"cell": nn.LSTMCell(5, 8), "head": head(8)},
        {"cell": (8, True)},
        inputs=sequences,
    ),
    Case("gru-cell", stepped, {"cell": nn.GRUCell(5, 8), "head": head(8)}, {"cell": (8, True)}, inputs=sequences),
    Case(
        "stacked-experts",
        stacked_experts,
        {
            "embed": nn.Linear(5, 8),
            "route": nn.Linear(8, 3),
            "into": nn.Parameter(torch.randn(3, 8, 10)),
            "bias": nn.Parameter(torch.randn(3, 10)),
            "out": nn.Parameter(torch.randn(3, 10, 8)),
            "head": head(8),
        },
        {"embed": (8, True), "into": (3, False), "into#2": (10, True), "out": (8, True)},
        inputs=rows,
    ),
    Case(
        "highway",
        highway,
        {"one": nn.Linear(5, 8), "gate": nn.Linear(8, 8), "two": nn.Linear(8, 8), "head": head(8)},
        {"one": (8, True)},
        inputs=rows,
    ),
    Case(
        "mean-of-channels",
        attended,
        {"one": conv(3, 8), "two": conv(8, 6), "head": head(6)},
        {"one": (8, False), "two": (6, True)},
    ),
    Case(
        "mixer",
        mixer,
        {
            "patches": nn.Conv2d(3, 8, 2, 2),
            "into": nn.Linear(16, 12),
            "across": nn.Linear(12, 16),
            "wide": nn.Linear(8, 10),
            "narrow": nn.Linear(10, 8),
            "head": head(8),
        },
        {"patches": (8, False), "into": (12, True), "wide": (10, True)},
        ("add",),
    ),
    Case(
        "unfold",
        unfolded,
        {"one": conv(3, 8), "two": conv(8, 6), "head": nn.Linear(216, 5)},
        {"one": (8, True), "two": (6, True)},
    ),
    Case(
        "outer",
        outer,
        {"one": nn.Linear(5, 8), "two": nn.Linear(5, 6), "head": head(6)},
        {"one": (8, True), "two": (6, True)},
        inputs=rows,
    ),
    Case("in-place", in_place, {"one": conv(3, 8), "two": conv(8, 8), "head": head(8)}, {"one": (8, True)}),
    Case(
        "transposed",
        lambda self, x: self.head(pooled(self.up(self.one(x)).relu())),
        {"one": conv(3, 8), "up": nn.ConvTranspose2d(8, 6, 2, 2), "head": head(6)},
        {"one": (8, True), "up": (6, True)},
    ),
    Case(
        "pixel-shuffle",
        lambda self, x: self.head(pooled(functional.pixel_shuffle(self.one(x), 2))),
        {"one": conv(3, 16), "head": head(4)},
        {"one": (4, True)},
    ),
    Case(
        "glu",
        lambda self, x: self.head(functional.glu(self.one(x), -1)),
        {"one": nn.Linear(5, 16), "head": head(8)},
        {"one": (8, True)},
        inputs=rows,
    ),
    Case(
        "prelu",
        lambda self, x: self.head(pooled(self.slope(self.one(x)))),
        {"one": conv(3, 8), "slope": nn.PReLU(8), "head": head(8)},
        {"one": (8, True)},
    ),
    Case(
        "instance-norm",
        lambda self, x: self.head(pooled(self.norm(self.one(x)).relu())),
        {"one": conv(3, 8), "norm": nn.InstanceNorm2d(8, affine=True), "head": head(8)},
        {"one": (8, True)},
    ),
    Case(
        "group-norm",
        lambda self, x: self.head(pooled(self.each(self.two(self.norm(self.one(x)))).relu())),
        {"one": conv(3, 8), "norm": nn.GroupNorm(4, 8), "two": conv(8, 6), "each": nn.GroupNorm(6, 6), "head": head(6)},
        {"one": (2, False), "two": (6, True)},
    ),
    Case(
        "normalize",
        lambda self, x: self.head(functional.normalize(self.one(x), dim=-1)),
        ONE,
        {"one": (8, True)},
        inputs=rows,
    ),
    Case(
        "weight-norm",
        lambda self, x: self.head(self.one(x).relu()),
        {"one": parametrizations.weight_norm(nn.Linear(5, 8)), "head": head(8)},
        {"one.parametrizations.weight": (8, True)},
        inputs=rows,
    ),
    Case(
        "tied",
        lambda self, x: functional.linear(self.one(self.table(x).relu()), self.table.weight),
        {"table": nn.Embedding(11, 8), "one": nn.Linear(8, 8)},
        {"table": (8, True)},
        ("embedding",),
        tokens,
    ),
    Case("sigmoid", lambda self, x: self.head(self.one(x).sigmoid()), ONE, {"one": (8, False)}, inputs=rows),
    Case("one-more", lambda self, x: self.head(self.one(x).relu() + 1), ONE, {"one": (8, False)}, inputs=rows),
    Case("softmax", lambda self, x: self.head(self.one(x).softmax(-1)), ONE, {"one": (8, False)}, inputs=rows),
    Case("cumsum", lambda self, x: self.head(self.one(x).cumsum(-1)), ONE, {"one": (8, False)}, inputs=rows),
    Case("flip", lambda self, x: self.head(self.one(x).flip(1)), ONE, {"one": (8, True)}, inputs=rows),
    Case("roll", lambda self, x: self.head(self.one(x).roll(1, 1)), ONE, {}, ("roll",), rows),
    Case(
        "top",
        lambda self, x: self.head(self.one(x).topk(4, -1).values),
        {"one": nn.Linear(5, 8), "head": head(4)},
        {},
        ("topk",),
        rows,
    ),
    Case(
        "index",
        lambda self, x: self.head(self.one(x)[:, torch.tensor([0, 2, 4, 6])]),
        {"one": nn.Linear(5, 8), "head": head(4)},
        {},
        ("index",),
        rows,
    ),
    Case(
        "pad",
        lambda self, x: self.head(pooled((functional.pad(self.one(x), (0, 0, 0, 0, 2, 2)) + self.two(x)).relu())),
        {"one": conv(3, 4), "two": conv(3, 8), "head": head(8)},
        {"one": (4, True)},
        ("pad",),
    ),
    Case(
        "flat-outer",
        lambda self, x: self.head((self.one(x)[:, :, None] * self.one(x)[:, None, :]).flatten(1)),
        {"one": nn.Linear(5, 8), "head": head(64)},
        {},
        ("flatten",),
        rows,
    ),
    Case(
        "held-size",
        lambda self, x: self.head(self.one(x).relu().view(-1, 8 * 64)),
        {"one": conv(3, 8), "head": head(512)},
        {},
        ("forward",),
    ),
    Case(
        "held-slice",
        lambda self, x: self.head(pooled(self.one(x)[:, :4].relu())),
        {"one": conv(3, 8), "head": head(4)},
        {},
        ("forward",),
    ),
)


def stepped_pair(self: Made, x: Tensor) -> Tensor:
    pair = None
    for step in x.unbind(1):
        pair = self.cell(step, pair)
    return self.head(pair[0])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operators(case: Case) -> None:
    network, inputs = disturbed(Made(case.forward, **case.layers)), case.inputs()
    groups = trace(network, inputs)
    assert {group.name: (len(group.units), group.exact) for group in groups.groups} == case.groups
    assert {fixed.operator for fixed in groups.fixed} - {"output"} == set(case.fixed)
    assert all(group.exact or " in " in group.why for group in groups.groups)
    if case.name != "weight-norm":  # a parametrised layer is no network that a space builds
        proved(network, groups, inputs)
