"""A residual MLP for rows of a table: linear stem, pre-normalised feed-forward blocks, normalisation, linear head.

Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", NeurIPS 2021, arXiv 2106.11959, section 3.2, with
layer normalisation in the place of batch normalisation, so that routers see of a sample nothing but itself, and without
dropout. A row is a sample of one token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from nas_core.task import Task
from search_spaces.moe.backbones import FFN
from search_spaces.moe.residual import PreNorm


class TableNetwork(nn.Module):
    """Rows `[n, width of a row]` to `[n, outputs]`."""

    def __init__(self, inputs: int, width: int, blocks: Sequence[nn.Module], outputs: int) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.blocks(self.stem(x).unsqueeze(1))  # [n, 1, width]
        return self.head(self.norm(tokens.squeeze(1)))


def network(task: Task, width: int, depth: int, layer: Callable[[int, str, int], nn.Module]) -> nn.Module:
    """`(n, width of a row)` to `(n, task.outputs)`. Raises UsageError where no table is learned from."""
    blocks = [PreNorm(width, layer(block, FFN, width)) for block in range(1, depth + 1)]
    return TableNetwork(sum(task.table()), width, blocks, task.outputs)
