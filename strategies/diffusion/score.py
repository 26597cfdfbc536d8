"""The score network of DiffusionNAG: a transformer over the nodes of operation matrices, and its training.

An et al., "DiffusionNAG: Predictor-guided Neural Architecture Generation with Diffusion Models", ICLR 2024, section 3.1
and the published code: rows are embedded, sinusoidal embeddings of their positions in topological order and of the
noise are added, nodes attend to those that they reach (and to themselves), and the outputs of all blocks together give
the output.

Two parametrisations. "score", as published: the network reads x_t and its standard deviation and gives the score, and
the loss is E |std s + z|^2. "edm", the default: an entry is brought to mean 0, and what is read and what is learned to
variance 1 at every noise level (Karras et al., NeurIPS 2022, table 1 and appendix B.6), by the mean and the standard
deviation that this entry has among the matrices; an entry that never varies is then known exactly. That needs a small
part of the training. Deviations: by default two layers after the blocks are narrower (256 units instead of 1,536, which
are 9 of 10 operations), there is no dropout, and the learning rate is higher and falls by a cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.seeds import derive
from strategies.diffusion.config import ScoreConfig
from strategies.diffusion.sde import SCHEDULES, Laplace, Levels, LogNormal, Schedule, UniformTime
from training import steps
from training.steps import Plan, Steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float32]
    Matrices = Callable[[], Floats]

FINER = 64.0
"""Factor of ln(sigma) / 4, the noise input of EDM: sines as steep as those of positions then tell levels apart."""

CHECKPOINT = 100
"""Training steps after which a network is kept, to go on from there."""

FORMAT = 1
"""To be raised where the same configuration would be trained to other weights."""


class ScoreNetwork(nn.Module):
    """Matrices x [n, N, V] with a number each that tells their noise [n] to [n, N, V].

    `reach` [N, N]: to which nodes each attends. Initialised from `seed` alone, with zeros as the first outputs.
    """

    reach: Tensor
    positions: Tensor

    def __init__(self, operations: int, reach: NDArray[numpy.bool_], config: ScoreConfig, seed: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        width, nodes = config.width, len(reach)
        self.dropout = config.dropout
        self.register_buffer("reach", torch.from_numpy(reach | numpy.eye(nodes, dtype=bool)), persistent=False)
        self.register_buffer("positions", waves(torch.arange(nodes), width), persistent=False)
        self.embedding = _linear(operations, width, random)
        self.noise = nn.Sequential(_linear(width, 4 * width, random), nn.SiLU(), _linear(4 * width, width, random))
        self.blocks = nn.ModuleList(Block(config, random) for _ in range(config.blocks))
        self.head = nn.Sequential(
            _linear(config.blocks * width, config.head, random),
            nn.ELU(),
            _linear(config.head, config.head, random),
            nn.ELU(),
            _linear(config.head, operations, random, 0.0),
        )

    def forward(self, x: Tensor, noise: Tensor, random: torch.Generator | None = None) -> Tensor:
        """With dropout, drawn from `random`, where that is given."""
        state = self.embedding(x) + self.positions + self.noise(waves(noise, self.positions.shape[1])).unsqueeze(1)
        masks: list[Tensor | None] = [None] * (2 * len(self.blocks))
        if random is not None and self.dropout > 0:
            drawn = torch.rand(len(masks), *state.shape, generator=random) >= self.dropout
            masks = list((drawn / (1 - self.dropout)).unbind())
        states = []
        for place, block in enumerate(self.blocks):
            state = block(state, self.reach, *masks[2 * place : 2 * place + 2])
            states.append(state)
        found: Tensor = self.head(torch.cat(states, -1))
        return found


class Block(nn.Module):
    """Pre-LN transformer block: attention to the nodes `reach` [N, N] of each, then a hidden layer."""

    def __init__(self, config: ScoreConfig, random: torch.Generator) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.joined = _linear(width, 3 * width, random), _linear(width, width, random)
        self.hidden, self.out = _linear(width, config.hidden, random), _linear(config.hidden, width, random)

    def forward(
        self, state: Tensor, reach: Tensor, first: Tensor | None = None, second: Tensor | None = None
    ) -> Tensor:
        """State [n, N, width] to the same; what the two parts add is multiplied by `first` and `second`."""
        parts = self.attention(self.before(state)).unflatten(2, (3 * self.heads, -1)).transpose(1, 2).chunk(3, 1)
        seen = functional.scaled_dot_product_attention(*parts, attn_mask=reach)
        joined = self.joined(seen.transpose(1, 2).flatten(2))
        state = state + (joined if first is None else joined * first)
        out = self.out(functional.gelu(self.hidden(self.between(state))))
        return state + (out if second is None else out * second)


class Score:
    """The gradient of the log-density of x = x_0 + sigma z: `score(x [n, N, V], sigma [n])`.

    `schedule` is the forward process, `levels` draws noise levels as they are met in training. `mean` and `deviation`
    [N, V] are those of the entries of x_0; "score" has no use of them.
    """

    def __init__(self, network: ScoreNetwork, config: ScoreConfig, mean: Tensor, deviation: Tensor) -> None:
        self.network, self.mean, self.deviation = network, mean, deviation
        self.schedule: Schedule = SCHEDULES[config.process]()
        levels: dict[str, Levels] = {"uniform": UniformTime(self.schedule), "edm": LogNormal(), "laplace": Laplace()}
        self.levels = levels[config.noise]
        self._edm = config.parametrisation == "edm"

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        with torch.no_grad():  # a guide may need gradients where this is read
            if self._edm:
                return (self.denoised(x, sigma) - x) / sigma[:, None, None].square()
            return self._raw(x, sigma)

    def denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x], as it was learned or by Tweedie's formula x + sigma^2 s."""
        if not self._edm:
            return x + sigma[:, None, None].square() * self._raw(x, sigma)
        skip, out, into = preconditioning(sigma[:, None, None], self.deviation)
        away = x - self.mean
        return self.mean + skip * away + out * self.network(into * away, FINER * sigma.log() / 4)

    def loss(self, clean: Tensor, sigma: Tensor, z: Tensor, random: torch.Generator | None = None) -> Tensor:
        """Denoising score matching at x = clean + sigma z [n, N, V]: the mean of |sigma s + z|^2 over all entries; for
        "edm" of the squared error of what the network gives, over the entries that vary."""
        level = sigma[:, None, None]
        if not self._edm:
            return (level * self._raw(clean + level * z, sigma, random) + z).square().mean()
        skip, out, into = preconditioning(level, self.deviation)
        away = clean - self.mean + level * z
        varies = (self.deviation > 0).expand_as(clean)
        target = ((clean - self.mean - skip * away) / out)[varies]
        given = self.network(into * away, FINER * sigma.log() / 4, random)
        return (given[varies] - target).square().mean()

    def _raw(self, x: Tensor, sigma: Tensor, random: torch.Generator | None = None) -> Tensor:
        """The network reads x_t = alpha x and its standard deviation, and gives the gradient by x_t."""
        alpha = self.schedule.scale(sigma)
        wide = alpha[:, None, None]
        return wide * self.network(wide * x, alpha * sigma, random)


def preconditioning(sigma: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip, c_out and c_in of EDM for entries of mean 0 with these standard deviations (sigma_data)."""
    total = (sigma.square() + deviation.square()).sqrt()
    return (deviation / total).square(), sigma * deviation / total, 1 / total


def training_of(score: Score, matrices: Floats, config: ScoreConfig, seed: int) -> Steps:
    """Adam on the loss of denoising score matching, with warm-up, clipped gradients, and an exponential mean of the
    weights that is short at first, as published."""
    rows = torch.from_numpy(matrices)

    def loss(step: int) -> Tensor:
        random = torch.Generator().manual_seed(derive(seed, "score", step))
        clean = rows[torch.randint(len(rows), (config.batch,), generator=random)]
        sigma, z = score.levels(config.batch, random), torch.randn(clean.shape, generator=random)
        return score.loss(clean, sigma, z, random)

    plan = Plan(config.steps, config.rate, warm_up=config.warm_up, clip=1.0, mean=config.mean)
    return Steps(score.network, loss, plan)


def load(score: Score, weights: Mapping[str, Any]) -> None:
    """Take weights by name."""
    score.network.load_state_dict({name: torch.tensor(weight) for name, weight in weights.items()})


def untrained(matrices: Floats, reach: NDArray[numpy.bool_], config: ScoreConfig, seed: int) -> Score:
    """A network for matrices like these [M, N, V], with weights that depend on the seed alone."""
    mean, deviation = (torch.from_numpy(of(matrices, axis=0, dtype=numpy.float64)) for of in (numpy.mean, numpy.std))
    network = ScoreNetwork(matrices.shape[2], reach, config, seed)
    return Score(network, config, mean.float(), deviation.float())


def trained(
    matrices: Matrices,
    reach: NDArray[numpy.bool_],
    config: ScoreConfig,
    cache: MutableMapping[str, Mapping[str, Any]],
    key: str,
) -> Score:
    """The score of matrices [M, N, V], which are made only where it has to be trained.

    It depends on what the key names alone: that is its seed, and under it an earlier one is found in `cache`, where it
    is put every `CHECKPOINT` steps. On one thread; the same for any number of threads.
    """
    key = f"{key}/{FORMAT}"
    known: list[Score] = []

    def begin() -> Steps:
        found = matrices()
        known.append(untrained(found, reach, config, derive(key, "weights")))
        return training_of(known[0], found, config, derive(key, "steps"))

    def finished(training: Steps) -> Mapping[str, Any]:
        (score,) = known
        entries = {"mean": score.mean.numpy().copy(), "deviation": score.deviation.numpy().copy()}
        return {"step": training.step, "parameters": training.weights(), **entries}

    state = steps.trained(cache, key, begin, finished, config.steps, CHECKPOINT)
    mean, deviation = torch.tensor(state["mean"]), torch.tensor(state["deviation"])
    score = Score(ScoreNetwork(mean.shape[1], reach, config, 0), config, mean, deviation)
    load(score, state["parameters"])
    score.network.requires_grad_(False)
    return score


def waves(values: Tensor, width: int) -> Tensor:
    """Sines and cosines [n, width] of numbers [n], of frequencies from 1 to 1e-4 in a geometric row (Vaswani et al.,
    NeurIPS 2017, section 3.5)."""
    frequencies = torch.logspace(0, -4, width // 2)
    angles = values.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def _linear(inputs: int, outputs: int, random: torch.Generator, gain: float = 1.0) -> nn.Linear:
    """Drawn from `random`; torch's global generator is left alone."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    with torch.no_grad():
        layer.weight.normal_(0, gain / math.sqrt(inputs), generator=random)
        layer.bias.zero_()
    return layer
