"""Predictors that read noisy operation matrices, and whose gradients guide continuous diffusion.

An et al., "DiffusionNAG: Predictor-guided Neural Architecture Generation with Diffusion Models", ICLR 2024, section
3.2: a predictor f(x_t, t) is trained on matrices with the noise of the forward process, so that the gradient of what
it predicts can be added to the score all along the reverse process. The network is the published directed graph
convolution (Wen et al., "Neural Predictor for Neural Architecture Search", ECCV 2020, section 2), with a mean over
the nodes and two linear layers. Deviations: an ensemble, whose members train side by side; narrower by default (48
units instead of 144, 64 before the output instead of 128); no dropout, as every step draws new noise; no data set is
read. Beside the noisy row, scaled to unit variance, and the noise level a node reads what its label is, judged by its
row alone: how sharply that depends on the row is a matter of the noise level that layers of sums learn badly.

Matrices are x = x_0 + sigma z with entries of x_0 in {-1, 1}; a process that scales x_0 is brought to this form first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core import moves
from nas_core.seeds import derive, generator
from predictors.surrogates.neural import Parameters
from strategies.diffusion.config import NoisyConfig
from strategies.diffusion.guide import CompleteBound
from strategies.diffusion.sde import Levels
from strategies.diffusion.slots import Slots
from training.steps import Plan, Steps
from training.threads import thread_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nas_core.architecture import Architecture
    from nas_core.strategy import Wanted
    from strategies.diffusion.operation_matrix import Masks, OperationMatrix

    Floats = NDArray[numpy.floating]

CLEAN = 0.1
"""A noise level at which entries of -1 and 1 are as good as clean: the least of the published process."""

FREQUENCIES = 8
"""Waves, of sines and of cosines, that show the noise level."""

EXAMPLES = 4_000
"""Random architectures whose number is judged for a bound."""

BOUND = NoisyConfig(members=1, steps=1_500, batch=128)
"""How a bound is learned: from more examples than an objective has."""


class Predictors(Parameters):
    """Matrices x [n, N, V] with noise levels sigma [n] to outputs [members, n]."""

    def __init__(self, matrix: OperationMatrix, config: NoisyConfig, seed: int) -> None:
        super().__init__(config.members, seed)
        self._support = torch.from_numpy(matrix.support)
        self._reads, self._read = _averaging(matrix.adjacency.T), _averaging(matrix.adjacency)
        widths = [2 * len(matrix.vocabulary) + 2 * FREQUENCIES, *[config.hidden] * config.layers]
        self.ahead = nn.ParameterList(self.weight(*pair) for pair in pairwise(widths))
        self.back = nn.ParameterList(self.weight(*pair) for pair in pairwise(widths))
        self.inner, self.inner_bias = self.weight(config.hidden, config.linear), self.bias(config.linear)
        self.outer, self.outer_bias = self.weight(config.linear, 1, 0.3), self.bias(1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        n, nodes, _ = x.shape
        level = sigma[:, None, None]
        likely = (2 * x / level.square()).masked_fill(~self._support, -math.inf).softmax(-1)
        noise = _embedded(sigma)[:, None].expand(n, nodes, -1)
        rows = torch.cat([x / (1 + level.square()).sqrt(), likely, noise], -1)
        state = rows.transpose(0, 1).flatten(0, 1).expand(self.members, -1, -1)  # node by node
        for ahead, back in zip(self.ahead, self.back, strict=True):
            sent = [torch.bmm(state, weight).view(self.members, nodes, -1) for weight in (ahead, back)]
            joined = torch.relu(self._reads @ sent[0]) + torch.relu(self._read @ sent[1])
            state = (joined / 2).view(self.members, nodes * n, -1)
        pooled = state.view(self.members, nodes, n, -1).mean(1)
        inner = torch.relu(torch.baddbmm(self.inner_bias, pooled, self.inner))
        return torch.baddbmm(self.outer_bias, inner, self.outer)[..., 0]


class NoisyEnsemble:
    """f(x, sigma): what is to be expected of an architecture of which only a noisy matrix x is known."""

    def __init__(self, matrix: OperationMatrix, config: NoisyConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        with thread_count(1):
            self._network = Predictors(matrix, config, seed)

    def fit(self, x: Floats, targets: Floats, levels: Levels) -> None:
        """Learn targets [n] of about unit scale of clean matrices x [n, N, V]; one fit per instance."""

        def loss(outputs: Tensor, wanted: Tensor) -> Tensor:
            return (outputs - wanted).square().mean(1).sum()

        _learn(self._network, x, targets, self._config, levels, self._seed, loss)

    def predict(self, x: Floats, sigma: float = CLEAN) -> tuple[Floats, Floats]:
        """Mean and standard deviation over the members, [n] each, at matrices [n, N, V] of one noise level."""
        with torch.inference_mode(), thread_count(1):
            rows = torch.from_numpy(numpy.asarray(x, numpy.float32))
            found = self._network(rows, torch.full((len(rows),), sigma)).double().numpy()
        return found.mean(axis=0), found.std(axis=0)

    def gradient(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Of the mean by x [n, N, V], at noise levels sigma [n]."""
        return _gradient(lambda rows: self._network(rows, sigma).mean(0), x)


class NoisyPropertyBound:
    """How likely a number will be as it is wanted, given a noisy matrix: as a guide it is Bayes' rule.

    `guide.CompleteBound` says of complete architectures how likely; here networks learn the mean of that over what a
    noisy matrix can have been, from random architectures."""

    def __init__(
        self, matrix: OperationMatrix, wanted: Wanted, levels: Levels, seed: int, config: NoisyConfig | None = None
    ) -> None:
        config = config or BOUND
        self._slots = Slots(matrix.space)
        self._bound = CompleteBound(self._slots, wanted, seed)
        rng = generator(seed, "examples")
        archs = [moves.sample(matrix.space, rng) for _ in range(EXAMPLES)]
        chances = numpy.exp(self._bound.log_probability(self._slots.encode(archs)))

        def loss(outputs: Tensor, likely: Tensor) -> Tensor:
            return functional.binary_cross_entropy_with_logits(outputs, likely.expand(outputs.shape))

        self._network = Predictors(matrix, config, derive(seed, "chance"))
        _learn(self._network, matrix.encode(archs), chances, config, levels, derive(seed, "chance"), loss)

    def met(self, archs: Sequence[Architecture]) -> NDArray[numpy.bool_]:
        """Which of these architectures [n] probably are as wanted."""
        return numpy.asarray(self._bound.log_probability(self._slots.encode(archs)) > math.log(0.5))

    def log_probability(self, x: Tensor, sigma: Tensor) -> Tensor:
        """[n], of matrices [n, N, V] with noise levels sigma [n]."""
        return functional.logsigmoid(self._network(x, sigma).mean(0))

    def gradient(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Of the log-probability by x, [n, N, V]."""
        return _gradient(lambda rows: self.log_probability(rows, sigma), x)


def _learn(
    network: Predictors,
    x: Floats,
    targets: Floats,
    config: NoisyConfig,
    levels: Levels,
    seed: int,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """`loss(outputs [members, b], targets [b])`, at noise that is drawn anew; Adam with a rate that falls by a cosine.

    On one thread; depends on the arguments alone.
    """
    random = torch.Generator().manual_seed(derive(seed, "noise"))
    clean, wanted = torch.from_numpy(numpy.asarray(x, numpy.float32)), torch.from_numpy(targets).float()

    def of_step(_: int) -> Tensor:
        chosen = torch.randint(len(clean), (config.batch,), generator=random)
        sigma = levels(config.batch, random)
        noise = torch.randn((config.batch, *clean.shape[1:]), generator=random)
        return loss(network(clean[chosen] + sigma[:, None, None] * noise, sigma), wanted[chosen])

    Steps(network, of_step, Plan(config.steps, config.rate, betas=(0.9, 0.999))).advance(config.steps)
    network.requires_grad_(False)


def _gradient(of: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.enable_grad():
        rows = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(of(rows).sum(), rows)
    return found


def _averaging(edges: Masks) -> Tensor:
    """[N, N]: row i takes the mean of node i and the nodes that `edges` has in row i."""
    weights = edges.astype(numpy.float32) + numpy.eye(len(edges), dtype=numpy.float32)
    return torch.from_numpy(weights / weights.sum(1, keepdims=True))


def _embedded(sigma: Tensor) -> Tensor:
    """Noise levels [n] as waves of their logarithm [n, 2 * FREQUENCIES]."""
    angles = sigma.log()[:, None] / 4 * math.pi * torch.arange(1, FREQUENCIES + 1)
    return torch.cat([angles.sin(), angles.cos()], 1)
