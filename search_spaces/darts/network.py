"""Torch layers of DARTS (Liu et al., ICLR 2019, section 3.1.1 and appendix A): cell and network.

Operations read a node as `Features`, so that ReLU, poolings and the halves of a factorised reduction are computed once
for all edges that leave it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from nas_core.choice import Value
from nas_core.relax import Picker, Style
from search_spaces.darts.genotype import NODES, OPERATIONS, SKIP
from search_spaces.darts.plan import EDGES, Layer, edge_group
from search_spaces.layers.drop_path import DropPath
from search_spaces.layers.features import Features, total
from search_spaces.nasnet.network import AUXILIARY_WIDTHS, AuxiliaryHead
from search_spaces.operators.conv import CELL
from search_spaces.operators.conv.operation import Normalised, rectified
from search_spaces.operators.conv.reduction import FactorisedReduction

OPERATORS = {name: CELL.operator(name) for name in OPERATIONS}


class Pointwise(Normalised):
    """ReLU, 1x1 convolution, normalisation: `[b, inputs, h, w]` to `[b, outputs, h, w]`."""

    def __init__(self, inputs: int, outputs: int, style: Style) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=style == Style.STANDALONE)

    def response(self, node: Features) -> Tensor:
        response: Tensor = self.conv(rectified(node))
        return response


def operation(name: str, channels: int, stride: int, style: Style, drop_path: DropPath | None) -> nn.Module:
    """An operation of an edge between nodes of `channels`; the skip of stride 2 is a factorised reduction."""
    if name == SKIP and stride == 2:
        return FactorisedReduction(channels, channels, style, drop_path)
    return OPERATORS[name].make(channels, stride, style, drop_path)


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
