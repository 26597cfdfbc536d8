"""Whole networks of every space against references of plain layers, written from the papers and their published code:
the same weights give the same answers, gradients and running statistics, in training and in evaluation mode."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.space import SearchSpace
from nas_core.task import Task
from search_spaces.ae_cnn.space import AeCnn
from search_spaces.darts.space import Darts
from search_spaces.nasbench201.space import EDGES, NasBench201
from search_spaces.nasbench_graph.space import OPERATIONS as GRAPH_OPERATIONS
from search_spaces.nasbench_graph.space import NasBenchGraph
from search_spaces.nasnet.space import NASNet
from search_spaces.regnet.space import RegNet
from search_spaces.stages.space import Stages

KINDS = (nn.Conv2d, nn.BatchNorm2d, nn.BatchNorm1d, nn.Linear)


def image(size: int, channels: int = 2, outputs: int = 3) -> Task:
    return Task(kind="image-classification", input_shape=(channels, size, size), outputs=outputs)


def randomised(network: nn.Module) -> nn.Module:
    """In float64, with weights and statistics that leave nothing at its first value."""
    draws = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in (*network.double().named_parameters(), *network.named_buffers()):
            if tensor.dim() == 1 and ("var" in name or "weight" in name):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=draws, dtype=tensor.dtype))
            elif tensor.dim() == 1:
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=draws, dtype=tensor.dtype))
    return network


def layers(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


def copy_in_order(network: nn.Module, reference: nn.Module) -> None:
    """The n-th convolution, normalisation and linear map of one are those of the other, and there are no others."""
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in reference.parameters())
    for kind in KINDS:
        for one, other in zip(layers(network, kind), layers(reference, kind), strict=True):
            other.load_state_dict(one.state_dict())


def compare(network: nn.Module, reference: nn.Module, *inputs: Tensor) -> None:
    """Answers in both modes; after training mode also gradients and statistics."""
    for training in (False, True):
        one, other = network.train(training)(*inputs), reference.train(training)(*inputs)
        one, other = (x if isinstance(x, tuple) else (x,) for x in (one, other))
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    for answers in (one, other):
        sum((answer.square() * (1 + number)).sum() for number, answer in enumerate(answers)).backward()
    for kind in KINDS:
        for mine, theirs in zip(layers(network, kind), layers(reference, kind), strict=True):
            for name, tensor in theirs.state_dict().items():
                torch.testing.assert_close(mine.state_dict()[name], tensor, rtol=1e-9, atol=1e-9)
            for name, parameter in theirs.named_parameters():
                found = mine.get_parameter(name).grad
                wanted = parameter.grad
                zero = torch.zeros_like(parameter)
                torch.testing.assert_close(
                    zero if found is None else found, zero if wanted is None else wanted, rtol=1e-6, atol=1e-8
                )


def equal_networks(space: SearchSpace, arch: Architecture, task: Task, size: Any, reference: nn.Module) -> None:
    network = randomised(space.build(arch, task, size))
    reference.double()
    copy_in_order(network, reference)
    draws = torch.Generator().manual_seed(6)
    compare(network, reference, torch.randn(3, *task.input_shape, generator=draws, dtype=torch.float64))


def drawn(space: SearchSpace, count: int, seed: int = 0) -> Iterator[Architecture]:
    rng = numpy.random.default_rng(seed)
    return (moves.sample(space, rng) for _ in range(count))


def relu_conv_bn(i: int, o: int, k: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(i, o, k, stride, dilation * (k // 2), dilation, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(o))


def conv_bn(i: int, o: int, k: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(o))


class Reduction(nn.Module):
    """DARTS' and NASNet's factorised reduction: two grids of pixels, shifted by one."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(i, o // 2, 1, 2, bias=False), nn.Conv2d(i, o - o // 2, 1, 2, bias=False)
        self.bn = nn.BatchNorm2d(o)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(x)
        shifted = functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]  # zeros, where the side is odd
        return self.bn(torch.cat([self.one(x), self.two(shifted)], 1))


# --- NAS-Bench-201: Dong and Yang, ICLR 2020, section 2 ------------------------------------------------------------


class Plain201(nn.Module):
    """Stem without ReLU; three stages; residual blocks of two ReLU-convolution-BN, no ReLU after the sum; BN, ReLU."""

    def __init__(self, operations: Sequence[str], channels: int, cells: int, inputs: int, outputs: int) -> None:
        super().__init__()
        makers: dict[str, Callable[[int], nn.Module | None]] = {
            "none": lambda c: None,
            "skip_connect": lambda c: nn.Identity(),
            "nor_conv_1x1": lambda c: relu_conv_bn(c, c, 1),
            "nor_conv_3x3": lambda c: relu_conv_bn(c, c, 3),
            "avg_pool_3x3": lambda c: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        }
        self.stem, self.body, self.cells = conv_bn(inputs, channels, 3), nn.ModuleList(), cells
        for stage in range(3):
            c = channels * 2**stage
            if stage:
                first, second = relu_conv_bn(c // 2, c, 3, 2), relu_conv_bn(c, c, 3)
                shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(c // 2, c, 1, bias=False))
                self.body.append(nn.ModuleList([first, second, shortcut]))
            self.body.extend(nn.ModuleList(makers[name](c) for name in operations) for _ in range(cells))
        self.bn, self.linear = nn.BatchNorm2d(4 * channels), nn.Linear(4 * channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for part in self.body:
            if len(part) == 3:
                first, second, shortcut = part
                x = second(first(x)) + shortcut(x)
                continue
            nodes = [x] + [torch.zeros_like(x)] * 3
            for operation, (source, target) in zip(part, EDGES.values(), strict=True):
                if operation is not None:
                    nodes[target] = nodes[target] + operation(nodes[source])
            x = nodes[3]
        return self.linear(functional.relu(self.bn(x)).mean((2, 3)))


@pytest.mark.parametrize(
    "text",
    [
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
        "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|avg_pool_3x3~2|",
        "|none~0|+|skip_connect~0|nor_conv_3x3~1|+|none~0|avg_pool_3x3~1|nor_conv_1x1~2|",
    ],
)
def test_nasbench201(text: str) -> None:
    space, task = NasBench201(), image(8)
    arch = space.from_text(text)
    reference = Plain201([str(value) for value in arch.values.values()], 3, 2, 2, 3)
    equal_networks(space, arch, task, space.Size(channels=3, cells=2), reference)


# --- DARTS: Liu et al., ICLR 2019, section 3.1.1, and the published genotypes' program -----------------------------


def darts_operation(name: str, c: int, stride: int) -> nn.Module:
    k = int(name[-1]) if name[-1].isdigit() else 0
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else Reduction(c, c)
    if name.startswith("max"):
        return nn.MaxPool2d(3, stride, 1)
    if name.startswith("avg"):
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)

    def separable(stride: int, dilation: int) -> list[nn.Module]:
        depthwise = nn.Conv2d(c, c, k, stride, dilation * (k // 2), dilation, groups=c, bias=False)
        return [nn.ReLU(), depthwise, nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)]

    if name.startswith("dil"):
        return nn.Sequential(*separable(stride, 2))
    return nn.Sequential(*separable(stride, 1), *separable(1, 1))


class DartsCell(nn.Module):
    def __init__(self, pairs: Any, i_previous: int, i: int, c: int, reduce: bool, halve: bool) -> None:
        super().__init__()
        self.pre0 = Reduction(i_previous, c) if halve else relu_conv_bn(i_previous, c, 1)
        self.pre1 = relu_conv_bn(i, c, 1)
        self.sources = [[source for source, _ in sorted(node)] for node in pairs]
        self.nodes = nn.ModuleList(
            nn.ModuleList(darts_operation(name, c, 2 if reduce and source < 2 else 1) for source, name in sorted(node))
            for node in pairs
        )

    def forward(self, previous: Tensor, x: Tensor) -> Tensor:
        states = [self.pre0(previous), self.pre1(x)]
        for sources, (one, other) in zip(self.sources, self.nodes, strict=True):
            states.append(one(states[sources[0]]) + other(states[sources[1]]))
        return torch.cat(states[2:], 1)


class PlainDarts(nn.Module):
    """`cells`: the inputs and operations of the four nodes, for every cell in order. Reductions at a third and two."""

    def __init__(self, cells: Sequence[Any], c: int, inputs: int, outputs: int, imagenet: bool, head: bool) -> None:
        super().__init__()
        if imagenet:
            self.stem = nn.Sequential(*conv_bn(inputs, c // 2, 3, 2), nn.ReLU(), *conv_bn(c // 2, c, 3, 2))
            self.stem1 = relu_conv_bn(c, c, 3, 2)
        else:
            self.stem = conv_bn(inputs, 3 * c, 3)
        previous = now = c if imagenet else 3 * c
        self.imagenet, self.cells, halve = imagenet, nn.ModuleList(), imagenet
        self.at = 2 * len(cells) // 3
        for position, pairs in enumerate(cells):
            reduce = position in (len(cells) // 3, self.at)
            c *= 2 if reduce else 1
            self.cells.append(DartsCell(pairs, previous, now, c, reduce, halve))
            previous, now, halve = now, 4 * c, reduce
            if position == self.at:
                wide = now
        self.linear = nn.Linear(now, outputs)
        self.head: nn.Module | None = None
        if head:
            last = [] if imagenet else [nn.BatchNorm2d(768)]  # the published program leaves it out for ImageNet
            self.head = nn.Sequential(
                nn.ReLU(),
                nn.AvgPool2d(5, 2 if imagenet else 3, count_include_pad=False),
                nn.Conv2d(wide, 128, 1, bias=False),
                nn.BatchNorm2d(128),
                nn.ReLU(),
                nn.Conv2d(128, 768, 2, bias=False),
                *last,
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(768, outputs),
            )

    def forward(self, x: Tensor) -> Any:
        previous = now = self.stem(x)
        if self.imagenet:
            now = self.stem1(previous)
        for position, cell in enumerate(self.cells):
            previous, now = now, cell(previous, now)
            if position == self.at and self.head is not None and self.training:
                auxiliary = self.head(now)
        logits = self.linear(now.mean((2, 3)))
        return (logits, auxiliary) if self.head is not None and self.training else logits


DARTS_CELLS = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('dil_conv_5x5', 1), ('skip_connect', 0), ('max_pool_3x3', 1), "
    "('sep_conv_5x5', 2), ('avg_pool_3x3', 0), ('dil_conv_3x3', 3), ('skip_connect', 4)], "
    "normal_concat=range(2, 6), reduce=[('skip_connect', 0), ('sep_conv_5x5', 1), ('max_pool_3x3', 0), "
    "('dil_conv_3x3', 2), ('avg_pool_3x3', 1), ('dil_conv_5x5', 0), ('skip_connect', 3), ('sep_conv_3x3', 1)], "
    "reduce_concat=range(2, 6))"
)


def genotype(text: str, name: str) -> list[list[tuple[int, str]]]:
    pairs = re.findall(r"\('(\w+)', (\d)\)", text.split(f"{name}=")[1].split("]")[0])
    flat = [(int(source), operation) for operation, source in pairs]
    return [flat[node : node + 2] for node in range(0, 8, 2)]


@pytest.mark.parametrize(
    ("side", "stem", "head", "count"), [(9, "cifar", False, 4), (32, "cifar", True, 3), (64, "imagenet", False, 3)]
)
def test_darts(side: int, stem: str, head: bool, count: int) -> None:
    space = Darts()
    normal, reduce = genotype(DARTS_CELLS, "normal"), genotype(DARTS_CELLS, "reduce")
    cells = [reduce if position in (count // 3, 2 * count // 3) else normal for position in range(count)]
    size = space.Size(channels=4, layers=count, stem=stem, auxiliary=head)
    reference = PlainDarts(cells, 4, 2, 3, stem == "imagenet", head)
    equal_networks(space, space.from_text(DARTS_CELLS), image(side), size, reference)


def test_darts_by_levels() -> None:
    """Cells before, between and after the reductions, and each reduction, have their own genotype."""
    space = Darts(levels=3)
    (arch,) = drawn(space, 1, seed=2)
    names = ["normal1", "normal1", "reduce1", "normal2", "reduce2", "normal3"]
    found = space.cells(arch)
    reference = PlainDarts([found[name] for name in names], 4, 2, 3, False, False)
    equal_networks(space, arch, image(8), space.Size(channels=4, layers=6), reference)


# --- NASNet: Zoph et al., CVPR 2018, section 3 and appendix A.4 ----------------------------------------------------


def nasnet_operation(name: str, c: int, stride: int) -> nn.Module:
    """ReLU, convolution, BN; separable ones twice, with nothing between depthwise and pointwise."""
    sides = [int(side) for side in re.findall(r"\d", name)]
    if name == "identity":
        return nn.Identity() if stride == 1 else Reduction(c, c)
    if "pool" in name:
        k = sides[0]
        return nn.MaxPool2d(k, stride, k // 2) if "max" in name else nn.AvgPool2d(k, stride, k // 2, False, False)
    if "sep" in name:
        k, parts = sides[0], list[nn.Module]()
        for step in (stride, 1):
            depthwise = nn.Conv2d(c, c, k, step, k // 2, groups=c, bias=False)
            parts += [nn.ReLU(), depthwise, nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)]
        return nn.Sequential(*parts)
    if len(sides) == 4:
        k = max(sides)
        rows = nn.Conv2d(c, c, (1, k), (1, stride), (0, k // 2), bias=False)
        columns = nn.Conv2d(c, c, (k, 1), (stride, 1), (k // 2, 0), bias=False)
        return nn.Sequential(nn.ReLU(), rows, columns, nn.BatchNorm2d(c))
    return relu_conv_bn(c, c, sides[0], stride, 2 if "dil" in name else 1)


class NasnetCell(nn.Module):
    def __init__(self, text: str, i_previous: int, i: int, c: int, reduce: bool, halve: bool) -> None:
        super().__init__()
        self.pre0 = Reduction(i_previous, c) if halve else relu_conv_bn(i_previous, c, 1)
        self.pre1 = relu_conv_bn(i, c, 1)
        self.blocks = [re.fullmatch(r"(\w+)~(\d)([+&])(\w+)~(\d)", block).groups() for block in text.split("|")]
        self.paths, self.joins = nn.ModuleList(), nn.ModuleList()
        for one, left, kind, other, right in self.blocks:
            for name, state in ((one, left), (other, right)):
                self.paths.append(nasnet_operation(name, c, 2 if reduce and int(state) < 2 else 1))
            self.joins.append(relu_conv_bn(2 * c, c, 1) if kind == "&" else nn.Identity())
        read = {int(state) for block in self.blocks for state in (block[1], block[4])}
        self.unread = [state for state in range(2 + len(self.blocks)) if state not in read]
        self.ends = nn.ModuleList(Reduction(c, c) if reduce and s < 2 else nn.Identity() for s in self.unread)

    def forward(self, previous: Tensor, x: Tensor) -> Tensor:
        states = [self.pre0(previous), self.pre1(x)]
        for number, (_, left, kind, _, right) in enumerate(self.blocks):
            one = self.paths[2 * number](states[int(left)])
            other = self.paths[2 * number + 1](states[int(right)])
            states.append(one + other if kind == "+" else self.joins[number](torch.cat([one, other], 1)))
        return torch.cat([end(states[state]) for end, state in zip(self.ends, self.unread, strict=True)], 1)


class PlainNasnet(nn.Module):
    """N normal cells, a reduction, N, a reduction, N; ReLU, mean, linear. For ImageNet two reductions come first."""

    def __init__(self, text: str, n: int, c: int, stem: int, imagenet: bool, head: bool, inputs: int, outputs: int):
        super().__init__()
        normal, reduction = (part.partition("=")[2] for part in text.split())
        plan = [(False, c)] * n + [(True, 2 * c)] + [(False, 2 * c)] * n + [(True, 4 * c)] + [(False, 4 * c)] * n
        plan = [(True, max(2, c // 4)), (True, max(2, c // 2)), *plan] if imagenet else plan
        self.stem = conv_bn(inputs, stem, 3, 2 if imagenet else 1)
        self.cells, previous, now, halve = nn.ModuleList(), stem, stem, False
        self.at = max(position for position, (reduce, _) in enumerate(plan) if reduce) - 1
        for position, (reduce, width) in enumerate(plan):
            cell = NasnetCell(reduction if reduce else normal, previous, now, width, reduce, halve)
            self.cells.append(cell)
            previous, now, halve = now, width * len(cell.unread), reduce
            if position == self.at:
                wide = now
        self.linear, self.head = nn.Linear(now, outputs), None
        if head:
            widths = (nn.Conv2d(wide, 128, 1, bias=False), nn.Conv2d(128, 768, 2, bias=False))
            norms = (nn.BatchNorm2d(128), nn.BatchNorm2d(768))
            self.head = nn.Sequential(
                nn.ReLU(), nn.AvgPool2d(5, 3), widths[0], norms[0], nn.ReLU(), widths[1], norms[1], nn.ReLU(),
                nn.Flatten(), nn.Linear(768, outputs),
            )  # fmt: skip

    def forward(self, x: Tensor) -> Any:
        previous = now = self.stem(x)
        for position, cell in enumerate(self.cells):
            previous, now = now, cell(previous, now)
            if position == self.at and self.head is not None and self.training:
                auxiliary = self.head(now)
        logits = self.linear(functional.relu(now).mean((2, 3)))
        return (logits, auxiliary) if self.head is not None and self.training else logits


NASNET_CELLS = (
    "normal=sep_conv_5x5~1+identity~0|conv_1x7_7x1~2&dil_conv_3x3~0|max_pool_5x5~1+conv_3x3~1 "
    "reduction=identity~1+max_pool_7x7~1|conv_1x3_3x1~2+conv_1x1~1|sep_conv_7x7~1&avg_pool_3x3~2"
)


@pytest.mark.parametrize(("side", "stem", "head"), [(9, "cifar", False), (16, "cifar", True), (33, "imagenet", False)])
def test_nasnet(side: int, stem: str, head: bool) -> None:
    space = NASNet(blocks=3)
    size = space.Size(cells=1, filters=4 * 24, stem=stem, stem_filters=3, auxiliary=head)
    reference = PlainNasnet(NASNET_CELLS, 1, 4, 3, stem == "imagenet", head, 2, 3)
    equal_networks(space, space.from_text(NASNET_CELLS), image(side), size, reference)


def test_nasnet_a() -> None:
    space = NASNet()
    arch = space.named["NASNet-A"]
    reference = PlainNasnet(space.to_text(arch), 1, 2, 3, False, False, 2, 3)
    equal_networks(space, arch, image(8), space.Size(cells=1, filters=2 * 24, stem_filters=3), reference)


# --- AE-CNN: Sun et al., IEEE TNNLS 2020, section III; RegNet: Radosavovic et al., CVPR 2020, figure 4 --------------


class Residual(nn.Module):
    """1x1, 3x3, 1x1, each with BN, ReLU after the first two and after the sum; a gate after the 3x3 (Y blocks)."""

    def __init__(self, i: int, o: int, stride: int = 1, inner: int = 0, groups: int = 1, squeezed: int = 0) -> None:
        super().__init__()
        inner = inner or o
        self.shortcut = nn.Identity() if i == o and stride == 1 else conv_bn(i, o, 1, stride)
        self.a, self.b = conv_bn(i, inner, 1), conv_bn(inner, inner, 3, stride, groups)
        self.gate = None
        if squeezed:
            self.gate = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(inner, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, inner, 1),
                nn.Sigmoid(),
            )  # fmt: skip
        self.c = conv_bn(inner, o, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.b(functional.relu(self.a(x))))
        y = y if self.gate is None else y * self.gate(y)
        return functional.relu(self.c(y) + self.shortcut(x))


class DenseLayer(nn.Module):
    def __init__(self, i: int, growth: int) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.BatchNorm2d(i), nn.ReLU(), nn.Conv2d(i, 4 * growth, 1, bias=False))
        wide = 4 * growth
        self.b = nn.Sequential(nn.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, growth, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.b(self.a(x))], 1)


def plain_ae_cnn(text: str, width: float, inputs: int, side: int, outputs: int) -> nn.Module:
    """Units one after the other. The widest input of dense units: 128, 64, 32 for growths 12, 20, 40."""
    parts, c = list[nn.Module](), inputs
    for unit in text.split(","):
        if unit.startswith("P"):
            parts.append(nn.MaxPool2d(2) if unit == "Pmax" else nn.AvgPool2d(2))
            side //= 2
            continue
        count, size = (int(number) for number in unit[1:].split("-"))
        if unit.startswith("R"):
            parts += [Residual(c if n == 0 else round(width * size), round(width * size)) for n in range(count)]
            c = round(width * size)
            continue
        most, growth = round(width * {12: 128, 20: 64, 40: 32}[size]), round(width * size)
        if c > most:
            parts += [nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, most, 1, bias=False)]
            c = most
        for _ in range(count):
            parts.append(DenseLayer(c, growth))
            c += growth
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(c * side**2, outputs))


@pytest.mark.parametrize("text", ["R3-64,Pmax,D4-20,Pavg,R4-128", "D3-40,Pavg,D3-12,R3-64,Pmax"])
def test_ae_cnn(text: str) -> None:
    space = AeCnn()
    reference = plain_ae_cnn(text, 0.125, 2, 8, 3)
    equal_networks(space, space.from_text(text), image(8), space.Size(width_scale=0.125), reference)


@pytest.mark.parametrize(("arguments", "stride"), [({}, 1), ({"bottleneck": 2, "se": False, "stages": 3}, 2)])
def test_regnet(arguments: dict[str, Any], stride: int) -> None:
    """Stem with ReLU, blocks (the first of a stage of stride 2; the gate has a quarter of the block's input), mean."""
    space = RegNet(**{"max_depth": 8, **arguments})
    (arch,) = drawn(space, 1, seed=1)
    parts, c = [conv_bn(2, 8, 3, stride), nn.ReLU()], 8
    for stage in space.stages(arch):
        for number in range(stage.depth):
            squeezed = round(0.25 * c) if arguments.get("se", True) else 0
            parts.append(Residual(c, stage.width, 1 if number else 2, stage.inner, stage.groups, squeezed))
            c = stage.width
    reference = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 3))
    equal_networks(space, arch, image(8), space.Size(stem_width=8, stem_stride=stride), reference)


# --- Stages: ResNet's plan, He et al., CVPR 2016; ResNeXt: Xie et al., CVPR 2017; SKNet: Li et al., CVPR 2019 -------


class PlainSelective(nn.Module):
    """Residual bottleneck; 3x3s of dilation 1, 2, ... on all of the input; attention over them per channel."""

    def __init__(self, i: int, o: int, stride: int, inner: int, groups: int, branches: int, squeezed: int) -> None:
        super().__init__()
        self.shortcut = nn.Identity() if i == o and stride == 1 else conv_bn(i, o, 1, stride)
        self.a = conv_bn(i, inner, 1)
        self.maps = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inner, inner, 3, stride, d, dilation=d, groups=groups, bias=False), nn.BatchNorm2d(inner)
            )
            for d in range(1, branches + 1)
        )
        self.w = conv_bn(inner, squeezed, 1)
        self.select = nn.ModuleList(nn.Conv2d(squeezed, inner, 1, bias=False) for _ in range(branches))
        self.c = conv_bn(inner, o, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.a(x))
        maps = [functional.relu(branch(y)) for branch in self.maps]
        u = maps[0]
        for other in maps[1:]:
            u = u + other
        z = functional.relu(self.w(functional.adaptive_avg_pool2d(u, 1)))
        odds = [torch.exp(row(z)) for row in self.select]
        y = torch.zeros_like(u)
        for odd, branch in zip(odds, maps, strict=True):
            y = y + branch * odd / sum(odds)
        return functional.relu(self.c(y) + self.shortcut(x))


def plain_resnet(
    block: Callable[[int, int, int], nn.Module], widths: Sequence[int], stem: int, photo: bool
) -> nn.Module:
    """Depths 3, 4, 6, 3; the first block of a stage has stride 2, but for the first stage."""
    parts = [conv_bn(2, stem, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)] if photo else [conv_bn(2, stem, 3), nn.ReLU()]
    c = stem
    for stage, (depth, width) in enumerate(zip((3, 4, 6, 3), widths, strict=True)):
        for number in range(depth):
            parts.append(block(c, width, 2 if stage and number == 0 else 1))
            c = width
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 3))


def plain_resnext(i: int, o: int, stride: int) -> nn.Module:
    inner = 32 * max(1, (o // 4) * 4 // 64)
    return Residual(i, o, stride, inner, 32)


def plain_sknet(i: int, o: int, stride: int) -> nn.Module:
    inner = 32 * max(1, (o // 4) * 4 // 64)
    return PlainSelective(i, o, stride, inner, 32, 2, max(inner // 16, 32))


@pytest.mark.parametrize("photo", [False, True])
@pytest.mark.parametrize(("name", "block"), [("ResNeXt-50", plain_resnext), ("SKNet-50", plain_sknet)])
def test_named_networks_of_stages(name: str, block: Callable[[int, int, int], nn.Module], photo: bool) -> None:
    space = Stages()
    size = space.Size(width_scale=0.25, stem="imagenet" if photo else "cifar")
    reference = plain_resnet(block, (64, 128, 256, 512), 16, photo)
    equal_networks(space, space.named[name], image(40 if photo else 9), size, reference)


def test_stages_of_other_blocks() -> None:
    space = Stages(stages=2)
    values = {
        "stage1/block": "bottleneck", "stage1/depth": 2, "stage1/width": 64, "stage1/bottleneck/ratio": 2,
        "stage1/bottleneck/group_width": 8, "stage1/bottleneck/squeeze": 0.25,
        "stage2/block": "selective-kernel", "stage2/depth": 1, "stage2/width": 128,
        "stage2/selective-kernel/cardinality": 4, "stage2/selective-kernel/base_width": 8,
        "stage2/selective-kernel/branches": 3, "stage2/selective-kernel/reduction": 8,
    }  # fmt: skip
    blocks = [Residual(64, 64, 1, 32, 4, 16), Residual(64, 64, 1, 32, 4, 16), PlainSelective(64, 128, 2, 16, 4, 3, 32)]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 3))
    reference = nn.Sequential(conv_bn(2, 64, 3), nn.ReLU(), *blocks, *head)
    equal_networks(space, Architecture(space.name, values), image(7), space.Size(), reference)


# --- NAS-Bench-Graph: Qin et al., NeurIPS 2022, section 3; its operations as algebra of matrices ---------------------


def graph_operation(name: str, layer: nn.Module, x: Tensor, a: Tensor) -> Tensor:
    """`a[i, j]` is 1 where an edge leads from j to i; no node has an edge to itself."""
    if name == "skip":
        return x
    p = dict(layer.named_parameters())
    eye = torch.eye(len(a), dtype=a.dtype)

    def normalised(a: Tensor, degree: Tensor) -> Tensor:
        scale = torch.where(degree > 0, degree.clamp(min=1) ** -0.5, 0.0)
        return scale[:, None] * a * scale

    if name == "gat":
        hidden = x @ p["lin.weight"].T
        heads = []
        for head, part in enumerate(hidden.chunk(2, 1)):
            scores = (part @ p["att_dst"][0, head])[:, None] + (part @ p["att_src"][0, head])
            scores = functional.leaky_relu(scores, 0.2).masked_fill(a + eye == 0, -torch.inf)
            heads.append(scores.softmax(1) @ part)
        return torch.cat(heads, 1) + p["bias"]
    if name == "gcn":  # Kipf and Welling, eq. 2
        looped = a + eye
        return normalised(looped, looped.sum(1)) @ x @ p["lin.weight"].T + p["bias"]
    if name == "gin":  # Xu et al., eq. 4.1 with epsilon 0
        return (x + a @ x) @ p["linear.weight"].T + p["bias"]
    if name == "fc":
        return x @ p["weight"].T + p["bias"]
    one, other, bias = x @ p["neighbours.weight"].T, x @ p["itself.weight"].T, p["bias"]
    if name == "sage":  # Hamilton et al., mean
        return a @ one / a.sum(1, keepdim=True).clamp(min=1) + other + bias
    if name == "graph":  # Morris et al., k = 1
        return a @ one + other + bias
    if name == "cheb":  # Defferrard et al., K = 2, largest eigenvalue 2: L - I = -D^-1/2 A D^-1/2
        return other - normalised(a, a.sum(0)) @ one + bias
    assert name == "arma"  # Bianchi et al., eq. 5 with one stack
    return functional.relu(normalised(a, a.sum(1)) @ one + other + bias)


class PlainGraph(nn.Module):
    """Reads the weights of the network itself, layer by layer; BN, ReLU before operations on hidden features."""

    def __init__(self, network: Any, links: Sequence[int], operations: Sequence[str], a: Tensor) -> None:
        super().__init__()
        self.links, self.names, self.a = links, operations, a
        self.operations, self.norms, self.linears = network.operations, network.norms, (network.join, network.classify)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        states, raw = [x], {0}
        for node, (link, name) in enumerate(zip(self.links, self.names, strict=True), 1):
            state = states[link]
            if link not in raw:
                norm = self.norms[node - 1]
                state = functional.relu(
                    functional.batch_norm(
                        state,
                        norm.running_mean.clone(),
                        norm.running_var.clone(),
                        norm.weight,
                        norm.bias,
                        self.training,
                    )
                )
            elif name == "skip":
                raw.add(node)
            states.append(graph_operation(name, self.operations[node - 1], state, self.a))
        leaves = [states[node] for node in range(1, 5) if node not in self.links]
        join, classify = self.linears
        hidden = functional.linear(functional.relu(torch.cat(leaves, 1)), join.weight, join.bias)
        return functional.linear(hidden, classify.weight, classify.bias)


@pytest.mark.parametrize("operation", GRAPH_OPERATIONS)
@pytest.mark.parametrize("links", ["0012", "0123"])
def test_nasbench_graph(operation: str, links: str) -> None:
    """On a directed graph with nodes that nothing reaches, each operation on raw and on hidden features."""
    space = NasBenchGraph()
    others = {"0012": ["gcn", operation, operation, "sage"], "0123": [operation, "fc", operation, "arma"]}[links]
    arch = space.from_text(f"{links}:{','.join(others)}")
    values = space.assignment(arch)
    draws = torch.Generator().manual_seed(1)
    a = (torch.rand(12, 12, generator=draws) < 0.25).double()
    a.fill_diagonal_(0)
    a[3] = 0.0
    target, source = a.nonzero().T
    task = Task(kind="node-classification", input_shape=(5,), outputs=3, nodes=12, edges=len(source))
    network = randomised(space.build(arch, task, space.Size(hidden=4, dropout=0.0)))
    inputs = torch.randn(12, 5, generator=draws, dtype=torch.float64), torch.stack([source, target])
    reference = PlainGraph(
        network,
        [int(digit) for digit in str(values["topology"])],
        [str(values[f"node{node}/operation"]) for node in range(1, 5)],
        a,
    )
    for training in (False, True):
        reference.train(training)
        wanted = reference(*inputs)
        answer = network.train(training)(*inputs)
        torch.testing.assert_close(answer, wanted, rtol=1e-9, atol=1e-9)
        parameters = list(network.parameters())
        gradients = [torch.autograd.grad(y.square().sum(), parameters, allow_unused=True) for y in (answer, wanted)]
        for one, other in zip(*gradients, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
