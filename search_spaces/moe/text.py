"""A pre-norm transformer for sequences: of each block a self-attention and a feed-forward layer.

Vaswani et al., NeurIPS 2017, arXiv 1706.03762, with the normalisation before each layer as in Radford et al., 2019, and
rotary positions (Su et al., "RoFormer", 2021, arXiv 2104.09864, equation 34). Where the task is causal, as language
modelling is, a position attends to itself and to those before it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.task import Task
from search_spaces.moe.backbones import FFN
from search_spaces.moe.residual import PreNorm

HEAD = 16  # features of an attention head, about
BASE = 10_000.0  # of the wavelengths of rotary positions


class Attention(nn.Module):
    """Self-attention with rotary positions, `[n, t, width]` to the same; `causal`: to no later position."""

    def __init__(self, length: int, width: int, causal: bool) -> None:
        super().__init__()
        self.heads = next(heads for heads in range(max(1, width // HEAD), 0, -1) if width % heads == 0)
        self.causal = causal
        self.inputs, self.outputs = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.half = width // self.heads // 2  # pairs of features that are rotated; an odd one is not
        rates = BASE ** (-torch.arange(self.half) / max(1, self.half))
        angles = torch.outer(torch.arange(length), rates)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.inputs(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        query, key = self.rotated(query), self.rotated(key)
        found = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.outputs(found.transpose(1, 2).flatten(2))

    def rotated(self, x: Tensor) -> Tensor:
        """Each pair of features (i, i + half) turned by its angle at the position, `[n, heads, t, features]`."""
        first, second, rest = x[..., : self.half], x[..., self.half : 2 * self.half], x[..., 2 * self.half :]
        turned = (first * self.cos - second * self.sin, first * self.sin + second * self.cos, rest)
        return torch.cat(turned, -1)


class TextNetwork(nn.Module):
    """Integers `[n, t]` to `[n, t, outputs]`."""

    def __init__(self, vocabulary: int, width: int, blocks: Sequence[nn.Module], outputs: int) -> None:
        super().__init__()
        self.stem = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(tokens))))


def network(task: Task, width: int, depth: int, layer: Callable[[int, str, int], nn.Module]) -> nn.Module:
    """`(n, length)` to `(n, length, task.outputs)`. Raises UsageError where no sequences are learned from."""
    length, vocabulary = task.tokens()
    causal = task.causal
    blocks: list[nn.Module] = []
    for block in range(1, depth + 1):
        blocks.append(PreNorm(width, Attention(length, width, causal)))
        blocks.append(PreNorm(width, layer(block, FFN, width)))
    return TextNetwork(vocabulary, width, blocks, task.outputs)
