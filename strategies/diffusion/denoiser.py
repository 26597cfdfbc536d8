"""The network of masked diffusion: what an undecided slot may be, given the slots that are decided.

Ou et al., "Your Absorbing Discrete Diffusion Secretly Models the Conditional Distributions of Clean Data", ICLR 2025
(RADD): the concrete score of an absorbing process is a factor of time times a conditional of clean data (section 3.1),
so the network has no time input. Here it is a pre-LN transformer over the slots without an order of its own: every slot
has an embedding that is learned, and values that mean the same share theirs, in and out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strategies.diffusion.config import CLASSES, DenoiserConfig
from strategies.diffusion.slots import Slots
from training.threads import thread_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from strategies.diffusion.slots import Tokens

    Floats = NDArray[numpy.float64]


class Denoiser(nn.Module):
    """c(x): a distribution over the tokens of each slot, given what is visible in x.

    Initialised from `seed` alone. The output embeddings begin at zero, so that an untrained network is uniform.
    """

    ids: Tensor
    support: Tensor

    def __init__(self, slots: Slots, config: DenoiserConfig, seed: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.slots = slots
        vocabulary, width = slots.vocabulary, config.width
        masked = numpy.full((slots.count, 1), vocabulary)  # MASK is one more value
        self.register_buffer("ids", torch.from_numpy(numpy.hstack([slots.ids, masked])), persistent=False)
        self.register_buffer("support", torch.from_numpy(slots.support), persistent=False)
        self.value = _embedding(vocabulary + 1, width, random)
        self.slot = _embedding(slots.count, width, random)
        self.condition = _embedding(CLASSES + 1, width, random)
        self.blocks = nn.ModuleList(Block(config, random) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Parameter(torch.zeros(vocabulary, width))
        self.bias = nn.Parameter(torch.zeros(slots.count, slots.width))

    def forward(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        """Log-probabilities [n, L, W], minus infinity outside `Slots.support`, for tokens [n, L] int64 with MASK.

        `condition` [n] int64: 0 none, 1 to `CLASSES` a quantile class, `CLASSES` the best; None: none for all.
        """
        n, count = tokens.shape
        states = self.states(tokens, condition).flatten(0, 1)
        return self.head(states, torch.arange(count).repeat(n)).unflatten(0, (n, count))

    def states(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        """What the blocks make of every slot [n, L, width]."""
        state = self._embed(tokens, condition)
        for block in self.blocks:
            state = block(state)
        return state[:, :-1]

    def head(self, states: Tensor, slots: Tensor) -> Tensor:
        """Log-probabilities [m, W] of the slots [m] whose states [m, width] these are."""
        scores = self.norm(states) @ self.output.T  # of all values, of which a slot has some
        logits = scores.gather(1, self.ids[slots, :-1]) + self.bias[slots]
        return logits.masked_fill(~self.support[slots], -math.inf).log_softmax(-1)

    def log_probabilities(self, tokens: Tokens, slots: Tokens, condition: Tokens | None = None) -> Floats:
        """Log-probabilities [n, W] of one slot `slots` [n] of each sequence `tokens` [n, L]; see `forward`.

        Without gradients, on one thread; the last block computes what these slots need only.
        """
        with torch.inference_mode(), thread_count(1):
            here = torch.from_numpy(slots)
            state = self._embed(torch.from_numpy(tokens), None if condition is None else torch.from_numpy(condition))
            for block in self.blocks[:-1]:
                state = block(state)
            found: Tensor = self.head(self.blocks[-1](state, here), here)
            return found.double().numpy()

    def _embed(self, tokens: Tensor, condition: Tensor | None) -> Tensor:
        """[n, L + 1, width]: the slots, and the condition behind them."""
        values = self.value[self.ids[torch.arange(self.slots.count), tokens]] + self.slot
        if condition is None:
            condition = tokens.new_zeros(len(tokens))
        return torch.cat([values, self.condition[condition].unsqueeze(1)], 1)


class Block(nn.Module):
    """Pre-LN transformer block: attention of all to all, then a hidden layer, each added to its input."""

    def __init__(self, config: DenoiserConfig, random: torch.Generator) -> None:
        super().__init__()
        width, depth = config.width, 1 / math.sqrt(2 * config.layers)
        self.heads = config.heads
        self.before = nn.LayerNorm(width)
        self.query = _linear(width, width, random)
        self.pair = _linear(width, 2 * width, random)  # keys and values
        self.mixed = _linear(width, width, random, depth)
        self.between = nn.LayerNorm(width)
        self.hidden = _linear(width, config.hidden, random)
        self.out = _linear(config.hidden, width, random, depth)

    def forward(self, state: Tensor, at: Tensor | None = None) -> Tensor:
        """State [n, positions, width] to the same, or to [n, width] of the positions `at` [n] alone."""
        normal = self.before(state)
        key, value = self._split(self.pair(normal)).chunk(2, 1)
        if at is not None:
            rows = torch.arange(len(state))
            normal, state = normal[rows, at].unsqueeze(1), state[rows, at].unsqueeze(1)
        mixed = F.scaled_dot_product_attention(self._split(self.query(normal)), key, value)
        state = state + self.mixed(mixed.transpose(1, 2).flatten(2))
        state = state + self.out(F.gelu(self.hidden(self.between(state))))
        return state if at is None else state[:, 0]

    def _split(self, rows: Tensor) -> Tensor:
        """[n, positions, parts * width] to [n, parts * heads, positions, width / heads]."""
        size = self.query.out_features // self.heads
        return rows.unflatten(2, (-1, size)).transpose(1, 2)


def _embedding(count: int, width: int, random: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(count, width, generator=random) / math.sqrt(width))


def _linear(inputs: int, outputs: int, random: torch.Generator, gain: float = 1.0) -> nn.Linear:
    """Drawn from `random`; torch's global generator is left alone."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    with torch.no_grad():
        layer.weight.normal_(0, gain / math.sqrt(inputs), generator=random)
        layer.bias.zero_()
    return layer
