"""Torch layers of DARTS (Liu et al., ICLR 2019, section 3.1.1 and appendix A): operations, cell, network.

Operations read a node as `Features`, so that ReLU, poolings and the halves of a factorised reduction are computed once
for all edges that leave it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.choice import Value
from nas_core.relax import Picker, Style
from search_spaces.darts.genotype import AVG_POOL, MAX_POOL, NODES, NONE, OPERATIONS, SKIP
from search_spaces.darts.plan import EDGES, KERNELS, Layer, edge_group
from search_spaces.layers.drop_path import DropPath
from search_spaces.layers.features import Features, total
from search_spaces.nasbench201.network import scaled_norm
from search_spaces.nasnet.network import AUXILIARY_WIDTHS, AuxiliaryHead


class Operation(nn.Module):
    """An operation on a node `[b, i, h, w]`, to `[b, o, ceil(h / stride), ceil(w / stride)]`: its `response`. None: it
    adds nothing."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def response(self, node: Features) -> Tensor | None:
        """The result before it is normalised."""
        raise NotImplementedError

    def forward(self, node: Features) -> Tensor | None:
        return self.response(node)

    def zeros(self, node: Features) -> Tensor:
        """What an operation that adds nothing stands for."""
        return torch.zeros_like(node.value[:, :, :: self.stride, :: self.stride])


class Normalised(Operation):
    """An operation whose response is normalised, where there is a norm, and may be dropped as a path."""

    def __init__(self, stride: int = 1, norm: nn.BatchNorm2d | None = None, drop_path: DropPath | None = None) -> None:
        super().__init__(stride)
        self.norm, self.drop_path = norm, drop_path

    def forward(self, node: Features) -> Tensor | None:
        x = self.response(node)
        return self._dropped(x if x is None or self.norm is None else self.norm(x))

    def weighted(self, weight: Tensor, node: Features) -> Tensor | None:
        """`weight * self(node)`, where the normalisation scales by the weight: no pass over the map of its own."""
        x = self.response(node)
        if x is not None:
            x = weight * x if self.norm is None else scaled_norm(self.norm, x, weight)
        return self._dropped(x)

    def _dropped(self, x: Tensor | None) -> Tensor | None:
        return x if x is None or self.drop_path is None else self.drop_path(x)


class Zero(Operation):
    """Nothing."""

    zero = True

    def response(self, node: Features) -> None:
        return None


class Skip(Operation):
    """The node itself; it is never dropped."""

    skip = True

    def response(self, node: Features) -> Tensor | None:
        return node.x


class Pool(Normalised):
    """Pooling of 3x3, where padding does not count."""

    def __init__(self, name: str, stride: int, norm: nn.BatchNorm2d | None, drop_path: DropPath | None) -> None:
        super().__init__(stride, norm, drop_path)
        self.name = name
        self.pool = (
            nn.MaxPool2d(3, stride, 1) if name == MAX_POOL else nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        )

    def plain(self) -> nn.Module:
        return self.pool if self.norm is None and self.drop_path is None else self

    def response(self, node: Features) -> Tensor | None:
        pooled = node.once((self.name, self.stride), self.pool)
        # An empty node has no stride: only the inputs of a cell are reduced, and they are never empty.
        return node.value if pooled is None and self.norm is not None else pooled


class Convolutions(Normalised):
    """`repeats` times ReLU, depthwise convolution, 1x1 convolution, normalisation; the stride is in the first."""

    def __init__(
        self,
        channels: int,
        kernel: int,
        stride: int,
        dilation: int,
        repeats: int,
        style: Style,
        drop_path: DropPath | None,
    ) -> None:
        super().__init__(stride, drop_path=drop_path)
        padding, affine = dilation * (kernel // 2), style == Style.STANDALONE
        layers: list[nn.Module] = []
        for number in range(repeats):
            layers += [nn.BatchNorm2d(channels, affine=affine), nn.ReLU(inplace=True)] if number else []
            step = 1 if number else stride
            layers += [
                nn.Conv2d(channels, channels, kernel, step, padding, dilation, groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1, bias=False),
            ]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def response(self, node: Features) -> Tensor:
        response: Tensor = self.layers(rectified(node))
        return response


class SeparableConvolution(Convolutions):
    """ReLU, depthwise convolution, 1x1 convolution, normalisation; then the same again without the stride."""

    def __init__(self, channels: int, kernel: int, stride: int, style: Style, drop_path: DropPath | None) -> None:
        super().__init__(channels, kernel, stride, 1, 2, style, drop_path)


class DilatedConvolution(Convolutions):
    """ReLU, depthwise convolution that reads every second pixel, 1x1 convolution, normalisation."""

    def __init__(self, channels: int, kernel: int, stride: int, style: Style, drop_path: DropPath | None) -> None:
        super().__init__(channels, kernel, stride, 2, 1, style, drop_path)


class Pointwise(Normalised):
    """ReLU, 1x1 convolution, normalisation: `[b, inputs, h, w]` to `[b, outputs, h, w]`."""

    def __init__(self, inputs: int, outputs: int, style: Style) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=style == Style.STANDALONE)

    def response(self, node: Features) -> Tensor:
        response: Tensor = self.conv(rectified(node))
        return response


class FactorisedReduction(Normalised):
    """ReLU; half of the filters see the pixels of even, half those of odd rows and columns, by 1x1 convolutions;
    normalisation. `[b, inputs, h, w]` to `[b, outputs, ceil(h / 2), ceil(w / 2)]`, at least two outputs.

    As an operation it is the skip of a reduction cell, and counts as parameter-free like every skip.
    """

    skip = True

    def __init__(self, inputs: int, outputs: int, style: Style, drop_path: DropPath | None = None) -> None:
        super().__init__(2, drop_path=drop_path)
        self.even = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=style == Style.STANDALONE)

    def response(self, node: Features) -> Tensor:
        # Only the inputs of a cell are reduced, and they are never empty.
        x = rectified(node)
        even, odd = node.once("even", lambda _: x[:, :, ::2, ::2]), node.once("odd", lambda _: _odd(x))
        return torch.cat([self.even(even), self.odd(odd)], dim=1)


def _odd(x: Tensor) -> Tensor:
    return functional.pad(x[:, :, 1::2, 1::2], (0, x.size(3) % 2, 0, x.size(2) % 2))


def rectified(node: Features) -> Tensor:
    """ReLU of a node, zeros for an empty one."""
    return node.value if node.relu is None else node.relu


def operation(name: str, channels: int, stride: int, style: Style, drop_path: DropPath | None) -> Operation:
    """An operation of an edge between nodes of `channels`. In the style of supernets pooling is normalised."""
    if name == NONE:
        return Zero(stride)
    if name == SKIP:
        return FactorisedReduction(channels, channels, style, drop_path) if stride == 2 else Skip()
    if name in (MAX_POOL, AVG_POOL):
        return Pool(
            name, stride, nn.BatchNorm2d(channels, affine=False) if style == Style.SUPERNET else None, drop_path
        )
    kind = DilatedConvolution if name.startswith("dil") else SeparableConvolution
    return kind(channels, KERNELS[name], stride, style, drop_path)


class Cell(nn.Module):
    """A cell: nodes 0 and 1 are the fitted outputs of the two cells before it, nodes 2 to 5 sum their incoming edges,
    and their values are concatenated.

    The outputs of the two cells before, `[b, layer.channels, h, w]` (the earlier one twice as large with
    `layer.halve`), to `[b, layer.outputs, *layer.output_shape]`.
    """

    def __init__(self, picker: Picker, layer: Layer, drop_path: DropPath | None) -> None:
        super().__init__()
        (previous, current), width, style = layer.channels, layer.width, picker.style
        fit = FactorisedReduction if layer.halve else Pointwise
        self.layer = layer
        self.variant = layer.cell  # how its class is called where a network is written as source
        self.fit_previous = fit(previous, width, style)
        self.fit_current = Pointwise(current, width, style)
        self.edges = nn.ModuleDict()
        for source, node in EDGES:
            operations: dict[Value, Callable[[], nn.Module]] = {
                name: partial(operation, name, width, layer.path_stride(source), style, drop_path)
                for name in OPERATIONS
            }
            chosen = picker.module(edge_group(layer.cell, source, node), operations)
            if chosen is not None:
                self.edges[f"{source}-{node}"] = chosen

    def forward(self, previous: Features, current: Features) -> Tensor:
        nodes = [Features(self.fit_previous(previous)), Features(self.fit_current(current))]
        stride = self.layer.stride
        like = nodes[1].value[:, :, ::stride, ::stride]
        for node in NODES:
            names = ((source, f"{source}-{node}") for source in range(node))
            terms = (self.edges[name](nodes[source]) for source, name in names if name in self.edges)
            nodes.append(Features(total(terms), like=like))
        return torch.cat([node.value for node in nodes[2:]], dim=1)


class ImageNetHead(nn.Sequential):
    """The second classifier for photographs, as in the published program: 5x5 average pooling of stride 2, which leaves
    2x2 of the 7x7 of ImageNet, 1x1 to 128 filters, a convolution over all that is left to 768 without normalisation,
    linear. `(n, inputs, *shape)` to `(n, outputs)`. Where the image is smaller than 5, pooling covers it."""

    def __init__(self, inputs: int, shape: tuple[int, int], outputs: int) -> None:
        window = (min(5, shape[0]), min(5, shape[1]))
        left = ((shape[0] - window[0]) // 2 + 1, (shape[1] - window[1]) // 2 + 1)
        narrow, wide = AUXILIARY_WIDTHS
        super().__init__(
            nn.ReLU(),
            nn.AvgPool2d(window, 2),
            nn.Conv2d(inputs, narrow, 1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, wide, left, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(wide, outputs),
        )


def _normalised(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A 3x3 convolution of the stem, normalised."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


class DartsNetwork(nn.Module):
    """Stem, cells, mean over the image, linear classifier: `[b, inputs, h, w]` to `[b, outputs]`.

    Where a layer has the auxiliary head and the picker wants it, training mode gives `(logits, auxiliary logits)`; the
    loss is that of the first plus `auxiliary_weight` times that of the second. Otherwise the logits alone.

    `stem`: channels of its convolutions. One keeps the resolution, several halve it each; then the first cell reads the
    last two.
    """

    auxiliary_weight = 0.4

    def __init__(
        self,
        picker: Picker,
        layers: Sequence[Layer],
        inputs: int,
        stem: Sequence[int],
        outputs: int,
        drop_path: float,
        imagenet_head: bool = False,
    ) -> None:
        super().__init__()
        # The paper's search has no drop path.
        dropping = DropPath(drop_path) if picker.style == Style.STANDALONE and drop_path > 0 else None
        stride = 1 if len(stem) == 1 else 2
        first, *more = [_normalised(*pair, stride) for pair in pairwise([inputs, *stem])]
        *middle, last = more or [None]
        for step in middle:
            first = nn.Sequential(*first, nn.ReLU(inplace=True), *step)
        self.stem = first
        self.stem1 = None if last is None else nn.Sequential(nn.ReLU(), *last)
        self.cells = nn.ModuleList(Cell(picker, layer, dropping) for layer in layers)
        self.classifier = nn.Linear(layers[-1].outputs, outputs)
        self.auxiliary: nn.Module | None = None
        for position, layer in enumerate(layers):
            if layer.auxiliary and picker.auxiliary:
                self.auxiliary_cell = position
                head = ImageNetHead if imagenet_head else AuxiliaryHead
                self.auxiliary = head(layer.outputs, layer.output_shape, outputs)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        previous = current = Features(self.stem(x))
        if self.stem1 is not None:
            current = Features(self.stem1(previous.value))
        auxiliary = None
        for cell in self.cells:
            previous, current = current, Features(cell(previous, current))
            if self.training and self.auxiliary is not None and cell is self.cells[self.auxiliary_cell]:
                auxiliary = self.auxiliary(current.value)
        logits: Tensor = self.classifier(current.value.mean((2, 3)))
        return logits if auxiliary is None else (logits, auxiliary)
