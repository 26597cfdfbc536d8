"""A network of one's own that reads texts: a causal transformer, which is trained by

nas train examples/my_language_model.py:transformer --data 'text:corpus.txt?window=64'
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.task import Task


class Block(nn.Module):
    """Attention to a position and those before it, then a feed-forward layer, each beside a shortcut and after a
    normalisation (Radford et al. 2019)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        x = x + self.out(found.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Numbers of characters `[n, length]` to the logits `[n, length, vocabulary]` of the characters after them."""

    def __init__(self, length: int, vocabulary: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.blocks(self.tokens(tokens) + self.places(places))))


def transformer(task: Task, width: int = 64, depth: int = 3, heads: int = 4) -> Transformer:
    """For the texts of a task: `task` is given because the signature names it."""
    length, vocabulary = task.tokens()
    return Transformer(length, vocabulary, width, depth, heads)
