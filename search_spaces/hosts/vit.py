"""A small transformer encoder on patches, with a slot in the place of the activation of every feed-forward layer.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, equations 1 to 4, with normalisation before attention
and before the feed-forward layer; these have no activation, and are only normalised. The slot is where GELU is. Ours
are the sizes, about 8 x 8 patches whatever the image, and the mean over the tokens in the place of the class token.
Tokens are positions of a sample.
There is no last normalisation: one over the tokens would take away what their mean says. The widths of the presets, 24
and 120, have 8 groups of 3 and of 15 channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas_core.task import Task
from search_spaces.hosts.host import Dims
from search_spaces.hosts.slot import ChannelsLast, Slot

SIDE = 8  # patches along the longer side of an image, about
EXPANSION = 4
HEADS = 4
HEAD_WIDTH = 8  # at least


class Attention(nn.Module):
    """Multi-head self-attention, `[n, t, width]` to the same shape (Vaswani et al., NeurIPS 2017, section 3.2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self.split(layer(x)) for layer in (self.query, self.key, self.value))
        weights = torch.softmax(query @ key.transpose(2, 3) / query.shape[-1] ** 0.5, dim=-1)  # [n, heads, t, t]
        return self.out((weights @ value).transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        """`[n, t, width]` to `[n, heads, t, width / heads]`."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Encoder(nn.Module):
    """A block of the encoder, `[n, t, width]` to the same shape."""

    def __init__(self, width: int, heads: int, slot: Slot) -> None:
        super().__init__()
        self.norm1 = ChannelsLast(slot(width, act=False))
        self.attention = Attention(width, heads)
        self.norm2 = ChannelsLast(slot(width, act=False))
        self.up = nn.Linear(width, EXPANSION * width)
        self.slot = ChannelsLast(slot(EXPANSION * width))
        self.down = nn.Linear(EXPANSION * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.down(self.slot(self.up(self.norm2(x))))


class PatchTransformer(nn.Module):
    """`(n, channels, h, w)` to `(n, outputs)`: patches as tokens with learned positions, blocks, mean over the
    tokens, linear classifier."""

    def __init__(self, shape: tuple[int, int, int], outputs: int, width: int, depth: int, slot: Slot) -> None:
        super().__init__()
        channels, height, breadth = shape
        patch = max(1, min(max(height, breadth) // SIDE, height, breadth))
        least = min(HEAD_WIDTH, width)
        self.embed = nn.Conv2d(channels, width, patch, patch)
        tokens = (height // patch) * (breadth // patch)
        self.position = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        heads = max(count for count in range(1, HEADS + 1) if width % count == 0 and width >= count * least)
        self.blocks = nn.Sequential(*(Encoder(width, heads, slot) for _ in range(depth)))
        self.classifier = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.position  # [n, t, width]
        return self.classifier(self.blocks(tokens).mean(1))


def network(task: Task, dims: Dims, slot: Slot) -> nn.Module:
    """`(n, channels, h, w)` to `(n, outputs)`: `dims.depth` blocks of `dims.width` channels."""
    return PatchTransformer(task.images(), task.outputs, dims.width, dims.depth, slot)
