"""Torch layers of NASNet (Zoph et al., CVPR 2018, section 3 and appendix): operations, cell, network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.layers.drop_path import DropPath
from search_spaces.nasnet.plan import ADD, CONCAT, IDENTITY, SPLIT, Layer, kernel, unread, weighted

AUXILIARY_WIDTHS = (128, 768)


class ConvBN(nn.Sequential):
    """Convolution without bias and BN, padded to keep the resolution; the input is rectified by the caller.
    `(n, inputs, h, w)` to `(n, outputs, ceil(h / stride), ceil(w / stride))`."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (size // 2)
        super().__init__(
            nn.Conv2d(inputs, outputs, size, stride, padding, dilation, bias=False), nn.BatchNorm2d(outputs)
        )


class Separable(nn.Sequential):
    """Depthwise and pointwise convolution with nothing between them, BN, ReLU; then the same again without stride
    and last ReLU. The input is rectified by the caller. `(n, width, h, w)` to
    `(n, width, ceil(h / stride), ceil(w / stride))`."""

    def __init__(self, width: int, size: int, stride: int) -> None:
        def once(stride: int) -> tuple[nn.Module, ...]:
            depthwise = nn.Conv2d(width, width, size, stride, size // 2, groups=width, bias=False)
            return depthwise, nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width)

        super().__init__(*once(stride), nn.ReLU(), *once(1))


class Split(nn.Sequential):
    """Convolution along the rows, then along the columns, and BN; the input is rectified by the caller.
    `(n, width, h, w)` to `(n, width, ceil(h / stride), ceil(w / stride))`."""

    def __init__(self, width: int, size: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(width, width, (1, size), (1, stride), (0, size // 2), bias=False),
            nn.Conv2d(width, width, (size, 1), (stride, 1), (size // 2, 0), bias=False),
            nn.BatchNorm2d(width),
        )


class FactorisedReduction(nn.Module):
    """Half of the filters see the pixels of even, half those of odd rows and columns, by 1x1 convolutions of stride 2;
    then BN. The input is rectified by the caller. `(n, inputs, h, w)` to `(n, outputs, ceil(h / 2), ceil(w / 2))`
    with at least two outputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        shifted = functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))


def operation(name: str, width: int, stride: int) -> nn.Module:
    """The layer of an operation; one with weights (`weighted`) gets a rectified input. `(n, width, h, w)` to
    `(n, width, ceil(h / stride), ceil(w / stride))`."""
    if name == IDENTITY:
        return FactorisedReduction(width, width) if stride == 2 else nn.Identity()
    size = kernel(name)
    if name.startswith("avg_pool"):
        return nn.AvgPool2d(size, stride, size // 2, count_include_pad=False)
    if name.startswith("max_pool"):
        return nn.MaxPool2d(size, stride, size // 2)
    if name.startswith("sep_conv"):
        return Separable(width, size, stride)
    if name in SPLIT:
        return Split(width, size, stride)
    return ConvBN(width, width, size, stride, dilation=2 if name.startswith("dil") else 1)


class Cell(nn.Module):
    """A cell: states 0 and 1 are the fitted outputs of the two cells before it, each block combines two paths from
    earlier states to a new one, and the states that no block reads are concatenated.

    `h_{i-1}` and `h_i`, each `(n, layer.channels, h, w)` (h_{i-1} twice as large with `layer.halve`), to
    `(n, layer.outputs, *layer.output_shape)`. A state is rectified once for all operations that read it.
    """

    def __init__(self, layer: Layer, drop_path: float) -> None:
        super().__init__()
        width, (previous, current) = layer.width, layer.channels
        self.layer = layer
        # How its class is called where a network is written as source.
        self.variant = "reduction" if layer.stride == 2 else "normal"
        self.fit_previous = FactorisedReduction(previous, width) if layer.halve else ConvBN(previous, width, 1)
        self.fit_current = ConvBN(current, width, 1)
        self.paths = nn.ModuleList(
            nn.ModuleList(operation(name, width, layer.path_stride(state)) for state, name in block.paths)
            for block in layer.cell
        )
        self.joins = nn.ModuleDict(
            {
                str(number): ConvBN(2 * width, width, 1)
                for number, block in enumerate(layer.cell)
                if block.combination == CONCAT
            }
        )
        self.unread = unread(layer.cell)
        self.reductions = nn.ModuleDict(
            {str(state): FactorisedReduction(width, width) for state in self.unread if layer.path_stride(state) == 2}
        )
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, previous: Tensor, current: Tensor) -> Tensor:
        states = [self.fit_previous(functional.relu(previous)), self.fit_current(functional.relu(current))]
        rectified: dict[int, Tensor] = {}

        def positive(state: int) -> Tensor:
            if state not in rectified:
                rectified[state] = functional.relu(states[state])
            return rectified[state]

        for number, block in enumerate(self.layer.cell):
            results = []
            for (state, name), path in zip(block.paths, self.paths[number], strict=True):
                with_weights = weighted(name, self.layer.path_stride(state))
                result = path(positive(state) if with_weights else states[state])
                results.append(result if name == IDENTITY else self.drop_path(result))
            if block.combination == ADD:
                states.append(results[0] + results[1])
            else:
                states.append(self.joins[str(number)](functional.relu(torch.cat(results, dim=1))))
        outputs = [
            self.reductions[str(state)](positive(state)) if str(state) in self.reductions else states[state]
            for state in self.unread
        ]
        return torch.cat(outputs, dim=1)


class AuxiliaryHead(nn.Sequential):
    """The second classifier of the published networks: 5x5 average pooling of stride 3, 1x1 to 128 filters, a
    convolution over all that is left to 768, linear. `(n, inputs, *shape)` to `(n, outputs)`.

    Where the image is smaller than 5, pooling covers it.
    """

    def __init__(self, inputs: int, shape: tuple[int, int], outputs: int) -> None:
        window = (min(5, shape[0]), min(5, shape[1]))
        left = ((shape[0] - window[0]) // 3 + 1, (shape[1] - window[1]) // 3 + 1)
        narrow, wide = AUXILIARY_WIDTHS
        super().__init__(
            nn.ReLU(),
            nn.AvgPool2d(window, 3),
            nn.Conv2d(inputs, narrow, 1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, wide, left, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(wide, outputs),
        )


class NASNetwork(nn.Module):
    """Stem, cells, ReLU, mean over the image, linear classifier: `(n, inputs, h, w)` to `(n, outputs)`.

    Where a layer has the auxiliary head, training mode gives `(logits, auxiliary logits)`; the loss is that of
    the first plus `auxiliary_weight` times that of the second. Evaluation mode gives the logits alone.
    """

    auxiliary_weight = 0.4

    def __init__(
        self, layers: Sequence[Layer], inputs: int, stem_filters: int, stem_stride: int, outputs: int, drop_path: float
    ) -> None:
        super().__init__()
        self.stem = ConvBN(inputs, stem_filters, 3, stem_stride)
        self.cells = nn.ModuleList(Cell(layer, drop_path) for layer in layers)
        self.classifier = nn.Linear(layers[-1].outputs, outputs)
        self.auxiliary: nn.Module | None = None
        for position, layer in enumerate(layers):
            if layer.auxiliary:
                self.auxiliary_cell = position
                self.auxiliary = AuxiliaryHead(layer.outputs, layer.output_shape, outputs)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        previous = x = self.stem(x)
        auxiliary = None
        for cell in self.cells:
            previous, x = x, cell(previous, x)
            if self.training and self.auxiliary is not None and cell is self.cells[self.auxiliary_cell]:
                auxiliary = self.auxiliary(x)
        logits = self.classifier(functional.relu(x).mean((2, 3)))
        return logits if auxiliary is None else (logits, auxiliary)
