"""DARTS (Liu, Simonyan and Yang, ICLR 2019): architecture parameters and weights descend in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from nas_core.architecture import Architecture
from nas_core.batch import Batch, Data
from nas_core.errors import UsageError
from nas_core.one_shot import Compute, Progress
from nas_core.relax import Mix
from nas_core.strategy import Setting
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.alphas import Alphas, AlphasConfig, plain
from strategies.one_shot.bilevel import Descent, hypergradient, pairs, same_draws, untouched
from strategies.one_shot.weights import SharedWeights, WeightsConfig, mean, unconstrained


class Darts:
    """Every candidate runs, weighted by a softmax; the strongest ones are the result.

    For every minibatch first the architecture parameters take a step on the half "alphas" of the training data, then
    the weights one on the half "weights".
    """

    class Config(WeightsConfig, AlphasConfig):
        """The defaults are those of the paper, with its first order."""

        order: Literal[1, 2] = Field(
            default=1, description="2: the architecture's gradient looks one step of the weights ahead"
        )
        bilevel: bool = Field(
            default=True, description="false: both levels learn from the same batches, of all the training data"
        )
        warm_up_epochs: int = Field(default=0, ge=0, description="at the start, in which only the weights learn")
        none: bool = Field(default=True, description="an edge may end up with no operation, where the space has that")

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if self.order == 2 and not self.bilevel:
                raise ValueError("order 2 looks ahead from one half of the data to the other; it needs bilevel=true")
            if self.warm_up_epochs >= self.epochs:
                raise ValueError(
                    f"warm_up_epochs {self.warm_up_epochs} leaves none of {self.epochs} epochs for the architecture"
                )
            return self

        @property
        def halves(self) -> bool:
            return self.bilevel

        @property
        def float32_only(self) -> bool:
            return self.order == 2

    supernet: Supernet
    weights: SharedWeights
    alphas: Alphas

    def __init__(self, setting: Setting, config: Config) -> None:
        """Raises UsageError for a space that is not relaxable, and for constraints."""
        unconstrained(setting, "darts")
        self._seed, self._config = setting.seed, config

    def start(self, make: Callable[[], Any], data: Data, compute: Compute) -> None:
        """Raises UsageError for second order in bf16: its finite difference is smaller than bf16 resolves."""
        if self._config.order == 2 and compute.precision != "float32":
            raise UsageError(
                f"second order takes differences of gradients that {compute.precision} cannot hold; use float32, "
                "or order=1"
            )
        self.weights = SharedWeights(make(), data, self._config, compute)
        self.supernet = self.weights.supernet
        self.alphas = Alphas(self.supernet.groups, self._config, self.weights.device)

    def step(self, epoch: int) -> Progress:
        rate = self.weights.begin(epoch)
        search = epoch >= self._config.warm_up_epochs
        if not self._config.bilevel:
            losses = self._single_level(epoch, search)
        elif search:
            losses = self._bilevel(epoch, rate)
        else:
            losses = self._weights_alone(epoch, "weights")
        strengths = self._strengths()
        metrics = {**losses, "entropy": entropy(strengths)}
        return Progress(metrics, plain(strengths), self.supernet.derive(strengths, self._config.none))

    def result(self) -> Sequence[Architecture]:
        return [self.supernet.derive(self._strengths(), self._config.none)]

    def relaxed(self) -> Mix:
        """The mix at the present architecture parameters; differentiable in them."""
        return self.supernet.mix(self.alphas.softmax())

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights.state_dict(), "alphas": self.alphas.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights.load_state_dict(state["weights"])
        self.alphas.load_state_dict(state["alphas"])

    def hypergradient(self, train: Batch, valid: Batch, rate: float) -> tuple[list[Tensor], Tensor]:
        """The second-order gradient of every vector of architecture parameters, and the loss one step ahead. Leaves
        weights, statistics and torch's generator (but for one draw) as they are."""
        weights, config = self.weights, self._config
        seed = int(torch.randint(2**62, ()))

        def loss(batch: Batch) -> Tensor:
            with same_draws(seed, weights.device):
                return weights.loss(batch, self.relaxed())

        parameters = list(self.supernet.parameters())
        buffers = [weights.optimizer.state[parameter].get("momentum_buffer") for parameter in parameters]
        descent = Descent(rate, config.momentum, config.weight_decay, buffers)
        with untouched(self.supernet):
            return hypergradient(parameters, list(self.alphas), lambda: loss(train), lambda: loss(valid), descent)

    def _bilevel(self, epoch: int, rate: float) -> dict[str, float]:
        weights_loss = alphas_loss = torch.zeros((), device=self.weights.device)
        count = 0
        for train, valid in pairs(self._batches("weights", epoch), self._batches("alphas", epoch)):
            alphas_loss = alphas_loss + self._alpha_step(train, valid, rate)
            weights_loss = weights_loss + self.weights.step(train, self._fixed())
            count += 1
        return {
            "train_loss": mean(weights_loss, count, "training loss"),
            "alpha_loss": mean(alphas_loss, count, "architecture's loss"),
        }

    def _alpha_step(self, train: Batch, valid: Batch, rate: float) -> Tensor:
        self.alphas.zero_grad()
        if self._config.order == 2:
            gradients, loss = self.hypergradient(train, valid, rate)
            for vector, gradient in zip(self.alphas, gradients, strict=True):
                vector.grad = gradient
        else:
            with self.weights.frozen():
                loss = self.weights.loss(valid, self.relaxed())
                loss.backward()
        self.alphas.step()
        return loss.detach()

    def _single_level(self, epoch: int, search: bool) -> dict[str, float]:
        if not search:
            return self._weights_alone(epoch, "train")
        total, count = torch.zeros((), device=self.weights.device), 0
        for batch in self._batches("train", epoch)():
            self.alphas.zero_grad()
            total = total + self.weights.step(batch, self.relaxed())
            self.alphas.step()
            count += 1
        return {"train_loss": mean(total, count, "training loss")}

    def _weights_alone(self, epoch: int, part: str) -> dict[str, float]:
        total, count, mix = torch.zeros((), device=self.weights.device), 0, self._fixed()
        for batch in self._batches(part, epoch)():
            total = total + self.weights.step(batch, mix)
            count += 1
        return {"train_loss": mean(total, count, "training loss")}

    def _batches(self, part: str, epoch: int) -> Callable[[], Any]:
        return lambda: self.weights.data.batches(part, epoch, self._seed)

    def _strengths(self) -> dict[str, Tensor]:
        with torch.no_grad():
            return self.alphas.softmax()

    def _fixed(self) -> Mix:
        return self.supernet.mix(self._strengths())


def entropy(weights: Mapping[str, Tensor]) -> float:
    """Mean entropy of mixing weights over their groups, in nats: log of the number of candidates where nothing is
    decided, 0 where everything is."""
    return float(torch.stack([torch.special.entr(vector.detach()).sum() for vector in weights.values()]).mean())
