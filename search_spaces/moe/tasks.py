"""The mixer of patches (`patches`) for images of which each is asked for one of several tasks: every router is told the
task of a sample. One head per task, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nas_core.task import Task
from search_spaces.moe.backbones import CHANNELS, TOKENS
from search_spaces.moe.patches import sides
from search_spaces.moe.residual import PreNorm, tellable


class TaskNetwork(nn.Module):
    """Images `[n, channels, h, w]` and the numbers of their tasks `[n]` to the logits of all heads `[n, outputs]`."""

    def __init__(
        self, channels: int, patch: int, width: int, blocks: Sequence[nn.Module], outputs: Sequence[int]
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, patch, patch)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, count) for count in outputs)

    def forward(self, image: Tensor, task: Tensor) -> Tensor:
        tokens = self.stem(image).flatten(2).transpose(1, 2)  # [n, patches, width]
        for block in self.blocks:
            tokens = block(tokens, condition=task)
        features = self.norm(tokens).mean(1)
        return torch.cat([head(features) for head in self.heads], 1)


def network(task: Task, width: int, depth: int, layer: Callable[[int, str, int], nn.Module]) -> nn.Module:
    """`(n, channels, h, w), (n,)` to `(n, task.outputs)`. Raises UsageError where no tasks are given."""
    channels, patch, patches = sides(task.asked())
    blocks: list[nn.Module] = []
    for block in range(1, depth + 1):
        blocks.append(PreNorm(width, tellable(layer(block, TOKENS, patches)), across=True))
        blocks.append(PreNorm(width, tellable(layer(block, CHANNELS, width))))
    return TaskNetwork(channels, patch, width, blocks, [head.outputs for head in task.heads])
