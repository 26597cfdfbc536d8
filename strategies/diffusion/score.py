"""The score network of DiffusionNAG: a transformer over the nodes of operation matrices, and its training.

An et al., "DiffusionNAG: Predictor-guided Neural Architecture Generation with Diffusion Models", ICLR 2024, section 3.1
and appendix A: operations are embedded, positions in topological order and the noise level are added, nodes attend to
those that they reach, and the outputs of all blocks together give the output. Two parametrisations: "score", as
published, where the output is the score and the loss E |sigma s(x, sigma) + z|^2; and "edm", the default, where it is
preconditioned so that what is learned has unit size at every noise level (Karras et al., NeurIPS 2022, table 1). The
second needs a small part of the training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.kept import alone
from nas_core.seeds import derive
from strategies.diffusion.config import ScoreConfig
from strategies.diffusion.sde import SCHEDULES, Laplace, Levels, LogNormal, Schedule, UniformTime
from training.threads import thread_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrices = Callable[[], NDArray[numpy.float32]]

SPREAD = 1.0
"""Root mean square of the entries of the matrices, which are -1 or 1: sigma_data of EDM."""

FAST = 20.0
"""The slowest of the waves that show a noise level has this many logarithms of sigma per radian, the fastest 1/20."""

CHECKPOINT = 100
"""Training steps after which a network is kept, to go on from there."""


class ScoreNetwork(nn.Module):
    """Matrices x [n, N, V] and noise levels sigma [n] to [n, N, V]. `reach` [N, N]: to which nodes each attends."""

    reach: Tensor
    positions: Tensor

    def __init__(self, nodes: int, operations: int, reach: NDArray[numpy.bool_], config: ScoreConfig) -> None:
        super().__init__()
        width = config.width
        self.register_buffer("reach", torch.from_numpy(reach | numpy.eye(nodes, dtype=bool)), persistent=False)
        self.register_buffer("positions", _waves(torch.arange(nodes), width, 1.0, 1e4), persistent=False)
        self.embedding = nn.Linear(operations, width)
        self.noise = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        joined = config.blocks * width
        self.output = nn.Sequential(
            nn.Linear(joined, 2 * joined), nn.ELU(), nn.Linear(2 * joined, 2 * joined), nn.ELU(),
            nn.Linear(2 * joined, operations),
        )  # fmt: skip

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        width = self.positions.shape[1]
        noise = self.noise(_waves(sigma.log(), width, 1 / FAST, FAST))
        state = self.embedding(x) + self.positions + noise.unsqueeze(1)
        states = []
        for block in self.blocks:
            state = block(state, self.reach)
            states.append(state)
        found: Tensor = self.output(torch.cat(states, -1))
        return found


class Block(nn.Module):
    """Pre-LN transformer block with an attention mask."""

    def __init__(self, config: ScoreConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.before, self.between = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.attention, self.joined = nn.Linear(config.width, 3 * config.width), nn.Linear(config.width, config.width)
        self.hidden, self.out = nn.Linear(config.width, config.hidden), nn.Linear(config.hidden, config.width)

    def forward(self, state: Tensor, reach: Tensor) -> Tensor:
        parts = self.attention(self.before(state)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(*parts, attn_mask=reach).transpose(1, 2).flatten(2)
        state = state + functional.dropout(self.joined(seen), self.dropout, self.training)
        hidden = self.out(functional.gelu(self.hidden(self.between(state))))
        return state + functional.dropout(hidden, self.dropout, self.training)


class Score:
    """The gradient of the log-density of noisy matrices, `score(x [n, N, V], sigma [n])`.

    `schedule` is the forward process, `levels` draws noise levels as they were trained.
    """

    def __init__(self, network: ScoreNetwork, config: ScoreConfig) -> None:
        self.network = network
        self.schedule: Schedule = SCHEDULES[config.process]()
        levels: dict[str, Levels] = {"uniform": UniformTime(self.schedule), "edm": LogNormal(), "laplace": Laplace()}
        self.levels = levels[config.noise]
        self._edm = config.parametrisation == "edm"

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        with torch.no_grad():  # what it gives may be read by a guide that needs gradients
            if not self._edm:
                return self.network(x, sigma)
            return (self.denoised(x, sigma) - x) / sigma[:, None, None] ** 2

    def denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x]: by Tweedie's formula, or as it was learned."""
        if not self._edm:
            return x + sigma[:, None, None] ** 2 * self.network(x, sigma)
        skip, out, into = preconditioning(sigma[:, None, None])
        return skip * x + out * self.network(into * x, sigma)

    def loss(self, clean: Tensor, sigma: Tensor, z: Tensor) -> Tensor:
        """Denoising score matching at x = clean + sigma z: the mean of |sigma s + z|^2 over all entries, for "edm" with
        its weight, so that the target of the network has unit variance."""
        s = sigma[:, None, None]
        x = clean + s * z
        if not self._edm:
            return (s * self.network(x, sigma) + z).square().mean()
        skip, out, into = preconditioning(s)
        return (self.network(into * x, sigma) - (clean - skip * x) / out).square().mean()


def preconditioning(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """c_skip, c_out and c_in of EDM for data of size `SPREAD`; c_noise is part of the network."""
    total = sigma**2 + SPREAD**2
    return SPREAD**2 / total, sigma * SPREAD / total.sqrt(), 1 / total.sqrt()


class Training:
    """Adam with warm-up, clipped gradients, and an exponential mean of the weights.

    What a step does depends on its number, the seed and the state before it: a training that goes on from a
    `state_dict` ends as one that was never interrupted, bit for bit.
    """

    def __init__(self, score: Score, matrices: NDArray[numpy.float32], config: ScoreConfig, seed: int) -> None:
        self.step = 0
        self._score, self._config, self._seed = score, config, seed
        self._matrices = torch.from_numpy(matrices)
        self._parameters = dict(score.network.named_parameters())
        self._means = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._optimizer = torch.optim.Adam(self._parameters.values(), config.rate, (0.9, 0.99), fused=True)

    def advance(self, step: int) -> None:
        """Train until so many steps are done."""
        with thread_count(1), torch.random.fork_rng():
            self._score.network.train()
            while self.step < step:
                self._advance()
                self.step += 1
            self._score.network.eval()

    def _advance(self) -> None:
        config = self._config
        seed = derive(self._seed, "score", self.step)
        torch.manual_seed(seed)  # of dropout
        random = torch.Generator().manual_seed(seed)
        clean = self._matrices[torch.randint(len(self._matrices), (config.batch,), generator=random)]
        sigma, z = self._score.levels(config.batch, random), torch.randn(clean.shape, generator=random)
        rate = min(1.0, (self.step + 1) / config.warm_up) * 0.5 * (1 + math.cos(math.pi * self.step / config.steps))
        for group in self._optimizer.param_groups:
            group["lr"] = config.rate * rate
        self._optimizer.zero_grad(set_to_none=True)
        self._score.loss(clean, sigma, z).backward()
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), 1.0)
        self._optimizer.step()
        decay = min(config.mean, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self._means.values()), [p.detach() for p in self._parameters.values()], 1 - decay)

    def means(self) -> dict[str, NDArray[numpy.float32]]:
        """The exponential mean of the weights, by name."""
        return {name: mean.numpy().copy() for name, mean in self._means.items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain data and arrays, as in `nas_core.strategy.Snapshots`."""
        weights = {name: parameter.detach().numpy().copy() for name, parameter in self._parameters.items()}
        moments: dict[str, dict[str, NDArray[numpy.float32]]] = {"exp_avg": {}, "exp_avg_sq": {}}
        for name, parameter in self._parameters.items():
            for moment, found in moments.items():
                if parameter in self._optimizer.state:
                    found[name] = self._optimizer.state[parameter][moment].numpy().copy()
        return {"step": self.step, "parameters": weights, "means": self.means(), **moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = int(state["step"])
        load(self._score, state["parameters"])
        self._means = {name: torch.tensor(state["means"][name]) for name in self._parameters}
        self._optimizer.state.clear()
        for name in state["exp_avg"]:
            self._optimizer.state[self._parameters[name]] = {
                "step": torch.tensor(float(self.step)),
                "exp_avg": torch.tensor(state["exp_avg"][name]),
                "exp_avg_sq": torch.tensor(state["exp_avg_sq"][name]),
            }


def load(score: Score, weights: Mapping[str, Any]) -> None:
    """Take weights by name."""
    score.network.load_state_dict({name: torch.tensor(weight) for name, weight in weights.items()})


def untrained(nodes: int, operations: int, reach: NDArray[numpy.bool_], config: ScoreConfig, seed: int) -> Score:
    """A network with weights that depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Score(ScoreNetwork(nodes, operations, reach, config).eval(), config)


def trained(
    matrices: Matrices,
    reach: NDArray[numpy.bool_],
    operations: int,
    config: ScoreConfig,
    kept: MutableMapping[str, Mapping[str, Any]],
    key: str,
) -> Score:
    """The score of matrices [M, N, V], which are made only where it has to be trained.

    It depends on what the key names alone: that is its seed, and under it an earlier one is found in `kept`, where it
    is put every `CHECKPOINT` steps.
    """
    score = untrained(len(reach), operations, reach, config, derive(key, "weights"))
    with alone(kept, key):
        state = kept.get(key)
        if state is None or "exp_avg" in state:
            training = Training(score, matrices(), config, derive(key, "steps"))
            if state is not None:
                training.load_state_dict(state)
            while training.step + CHECKPOINT < config.steps:
                training.advance(training.step + CHECKPOINT)
                kept[key] = training.state_dict()
            training.advance(config.steps)
            state = kept[key] = {"step": config.steps, "parameters": training.means()}
        load(score, state["parameters"])
    return score


def _waves(values: Tensor, width: int, slowest: float, fastest: float) -> Tensor:
    """Sines and cosines [n, width] of numbers [n], with periods from `slowest` to `fastest` in a geometric row."""
    periods = torch.logspace(math.log10(slowest), math.log10(fastest), width // 2)
    angles = values.float()[:, None] / periods
    return torch.cat([angles.sin(), angles.cos()], 1)
