"""A pre-norm transformer for sequences: of each block a self-attention and a feed-forward layer.

Vaswani et al., NeurIPS 2017, arXiv 1706.03762, with the normalisation before each layer as in Radford et al., 2019, and
rotary positions (Su et al., "RoFormer", 2021, arXiv 2104.09864, equation 34). Where the task is causal, as language
modelling is, a position attends to itself and to those before it alone. Where its sequences are padded, padding is
seen by no layer: none attends to it, none routes it, and no answer is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.task import Task
from search_spaces.moe.backbones import FFN
from search_spaces.moe.residual import PreNorm, tellable

HEAD = 16  # features of an attention head, about
BASE = 10_000.0  # of the wavelengths of rotary positions
NOWHERE = -50.0  # a logit of padding: its softmax is nothing beside a real one's, and exports can still be compared


class Attention(nn.Module):
    """Self-attention with rotary positions, `[n, t, width]` to the same; `causal`: to no later position; with `real [n,
    t]`: to these alone."""

    rates: Tensor

    def __init__(self, width: int, causal: bool) -> None:
        super().__init__()
        self.heads = next(heads for heads in range(max(1, width // HEAD), 0, -1) if width % heads == 0)
        self.causal = causal
        self.inputs, self.outputs = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.half = width // self.heads // 2  # pairs of features that are rotated; an odd one is not
        rates = BASE ** (-torch.arange(self.half) / max(1, self.half))
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        query, key, value = self.inputs(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        angles = torch.outer(torch.arange(x.shape[1], dtype=self.rates.dtype, device=x.device), self.rates)
        query, key = self.rotated(query, angles), self.rotated(key, angles)
        seen = None if real is None else real[:, None, None]
        found = functional.scaled_dot_product_attention(query, key, value, seen, is_causal=self.causal)
        return self.outputs(found.transpose(1, 2).flatten(2))

    def rotated(self, x: Tensor, angles: Tensor) -> Tensor:
        """Each pair of features (i, i + half) turned by its angle at the position, `[n, heads, t, features]`."""
        cos, sin = angles.cos(), angles.sin()
        first, second, rest = x[..., : self.half], x[..., self.half : 2 * self.half], x[..., 2 * self.half :]
        turned = (first * cos - second * sin, first * sin + second * cos, rest)
        return torch.cat(turned, -1)


class TextNetwork(nn.Module):
    """Integers `[n, t]` to `[n, t, outputs]`. With `padding`, which stands for no token, a sample has the same answers
    however much of it follows, those there are `NOWHERE`, and blocks are told where tokens are `real [n, t]`."""

    def __init__(
        self, vocabulary: int, width: int, blocks: Sequence[nn.Module], outputs: int, padding: int | None = None
    ) -> None:
        super().__init__()
        self.padding = padding
        self.stem = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.padding is None:
            return self.head(self.norm(self.blocks(self.stem(tokens))))
        real = tokens != self.padding
        real[:, 0] = True  # of padding alone something is computed
        x = self.stem(tokens)
        for block in self.blocks:
            x = block(x, real=real)
        return self.head(self.norm(x)).masked_fill(~real.unsqueeze(-1), NOWHERE)


def network(task: Task, width: int, depth: int, layer: Callable[[int, str, int], nn.Module]) -> nn.Module:
    """`(n, length)` to `(n, length, task.outputs)`. Raises UsageError where no sequences are learned from."""
    _, vocabulary = task.tokens()
    causal, padding = task.causal, task.padding
    blocks: list[nn.Module] = []
    for block in range(1, depth + 1):
        blocks.append(PreNorm(width, Attention(width, causal)))
        forward = layer(block, FFN, width)
        blocks.append(PreNorm(width, forward if padding is None else tellable(forward)))
    return TextNetwork(vocabulary, width, blocks, task.outputs, padding)
