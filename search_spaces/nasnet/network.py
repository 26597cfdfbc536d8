"""Torch layers of NASNet (Zoph et al., CVPR 2018, section 3 and appendix): cell and network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.layers.drop_path import DropPath
from search_spaces.nasnet.plan import ADD, CONCAT, IDENTITY, OPERATIONS, Layer, unread, weighted
from search_spaces.operators.conv import RECTIFIED
from search_spaces.operators.conv.full import ConvBN
from search_spaces.operators.conv.halving import FactorisedReduction

OPERATORS = {name: RECTIFIED.operator(name) for name in OPERATIONS}
AUXILIARY_WIDTHS = (128, 768)


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
            nn.ModuleList(OPERATORS[name].make(width, layer.path_stride(state)) for state, name in block.paths)
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
