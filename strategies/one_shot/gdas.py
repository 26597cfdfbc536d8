"""GDAS: one operation per group and pass, drawn by a differentiable sampler.

Dong and Yang, "Searching for A Robust Neural Architecture in Four GPU Hours", CVPR 2019, section 3.2. Per group of
logits `alpha` and pass through the network:

    o = log_softmax(alpha) + g,   g = -log(Exp(1)),       (Gumbel noise; eq. 4)
    p = softmax(o / tau),
    h = onehot(argmax p) - p.detach() + p.

The value of `h` is one-hot and its gradient that of `p`. Only the drawn candidate is run. The entries of the others,
which are zero, are added to the output as numbers, so that they get a gradient too: this is what the published code
does and the paper does not say; with `scalars=false` the drawn entry alone is part of the loss. Where a group routes
tensors (`nas_core.relax.Route`) what is taken is multiplied with its entry; those of the others enter where the space's
description adds them (`Route.scalar`), and otherwise through `p`, which couples all logits. As published, all is drawn
again while noise or probabilities are not finite.

Every batch: a step of the weights on "weights", then one of `alpha` on "alphas", each with a draw of its own. `tau`
falls linearly over the epochs. The strongest candidates by softmax(alpha) are derived. Where the weights are trained
the drawn candidates are taken in full, without a factor of 1. Candidates that are not drawn get no gradient, so that
unlike in the published code neither decay nor momentum moves them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.batch import Batch, Data
from nas_core.errors import TrialError
from nas_core.one_shot import Compute, Progress
from nas_core.relax import Mix
from nas_core.strategy import Setting
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.alphas import Alphas, AlphasConfig, plain
from strategies.one_shot.bilevel import pairs
from strategies.one_shot.weights import SharedWeights, WeightsConfig, mean, unconstrained

TRIES = 100  # draws, before the logits themselves count as not finite


class Gdas:
    """Differentiable sampling of one path (`nas_core.one_shot.OneShot`).

    Raises UsageError for a space that is not relaxable, and for constraints, of which its loss knows nothing.
    """

    one_path: ClassVar[bool] = True  # what a pass needs of memory

    class Config(WeightsConfig, AlphasConfig):
        """The defaults are those of NAS-Bench-201 (Dong and Yang, ICLR 2020)."""

        epochs: int = Field(default=250, ge=1, le=100_000, description="of the supernet's training")
        nesterov: bool = True
        weight_decay: float = Field(default=5e-4, ge=0, le=1, description="of the weights")
        tau: float = Field(default=10.0, gt=0, le=1e6, description="temperature of the sampler in the first epoch")
        tau_end: float = Field(default=0.1, gt=0, le=1e6, description="temperature in the last epoch")
        scalars: bool = Field(default=True, description="entries that are not drawn are part of the loss, as published")

    supernet: Supernet

    def __init__(self, setting: Setting, config: Config) -> None:
        unconstrained(setting, "gdas")
        self.setting, self.config = setting, config

    def start(self, make: Callable[[], nn.Module], data: Data, compute: Compute) -> None:
        supernet = make()
        assert isinstance(supernet, Supernet)
        self.data = data
        self.weights = SharedWeights(supernet, data, self.config, compute)
        self.supernet = self.weights.supernet
        self.alphas = Alphas(supernet.groups, self.config, self.weights.device)

    def temperature(self, epoch: int) -> float:
        """`tau` of an epoch: linear from the first to the last."""
        config = self.config
        return config.tau + (config.tau_end - config.tau) * epoch / max(config.epochs - 1, 1)

    def step(self, epoch: int) -> Progress:
        tau = self.temperature(epoch)
        self.weights.begin(epoch)
        sums, count = torch.zeros(2, device=self.weights.device), 0
        for training, validation in pairs(self._batches("weights", epoch), self._batches("alphas", epoch)):
            _, drawn = draw(self.alphas.vectors, tau)
            sums[0] += self.weights.step(training, Mix(only(drawn)))
            with self.weights.frozen():
                hard, positions = draw(self.alphas.vectors, tau)
                mix = hard_mix(hard, positions) if self.config.scalars else Mix(only(positions), hard)
                loss = self.weights.loss(validation, mix)
            self.alphas.zero_grad()
            if loss.requires_grad:  # without scalars, a path cut off by `none` depends on no entry
                loss.backward()
                self.alphas.step()
            sums[1] += loss.detach()
            count += 1
        metrics = {
            "train_loss": mean(sums[0], count, "training loss"),
            "alpha_loss": mean(sums[1], count, "loss of the architecture"),
            "temperature": tau,
        }
        weights = self.alphas.softmax()
        return Progress(metrics, plain(weights), self.supernet.derive(weights), epoch + 1 >= self.config.epochs)

    def result(self) -> Sequence[Architecture]:
        return [self.supernet.derive(self.alphas.softmax())]

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights.state_dict(), "alphas": self.alphas.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights.load_state_dict(state["weights"])
        self.alphas.load_state_dict(state["alphas"])

    def _batches(self, part: str, epoch: int) -> Callable[[], Iterator[Batch]]:
        return lambda: self.data.batches(part, epoch, self.setting.seed)


def draw(alphas: Mapping[str, Tensor], tau: float) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Per group `h` [candidates] and the position that was drawn, on the host: one transfer for all groups.

    Raises TrialError where the logits are not finite.
    """
    for _ in range(TRIES):
        hard, found = {}, []
        for name, alpha in alphas.items():
            noise = -torch.empty_like(alpha).exponential_().log()
            probs = ((alpha.log_softmax(0) + noise) / tau).softmax(0)
            index = probs.argmax()
            finite = torch.isfinite(noise).all() & torch.isfinite(probs).all()
            onehot = torch.zeros_like(probs).scatter_(0, index.view(1), 1.0)
            hard[name] = onehot - probs.detach() + probs
            found.append(torch.where(finite, index, -1))
        positions = dict(zip(alphas, torch.stack(found).tolist(), strict=True))
        if min(positions.values()) >= 0:
            return hard, positions
    raise TrialError("nan-loss", "the architecture parameters are not finite; lower the learning rates")


def hard_mix(hard: Mapping[str, Tensor], drawn: Mapping[str, int]) -> Mix:
    """The mix that runs what was drawn, times its entry, and adds the entries of the others."""
    others = {
        name: tuple(position for position in range(len(entries)) if position != drawn[name])
        for name, entries in hard.items()
    }
    return Mix(only(drawn), hard, others)


def only(drawn: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """`Mix.active` of one candidate per group."""
    return {name: (position,) for name, position in drawn.items()}
