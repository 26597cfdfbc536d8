"""The trainer of the small networks that searches bring: generators, guides, surrogates.

Steps of Adam on one thread. What a step does depends on its number and the state before it alone, so that a training
that goes on from a checkpoint ends as one that was never interrupted, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas_core.cache import alone
from training.threads import thread_count

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[numpy.float32]]

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Plan:
    """How a small network is trained: Adam, or AdamW (Loshchilov and Hutter 2019) with a `decay`; a rate that rises for
    `warm_up` steps and falls by a cosine; gradients clipped to a norm of `clip`; an exponential mean of the weights
    with the decay `mean`, which is shorter at first: `(1 + step) / (10 + step)`."""

    steps: int
    rate: float
    warm_up: float = 0.0
    decay: float | None = None
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float | None = None
    mean: float | None = None

    def learning_rate(self, step: int) -> float:
        """That of step `step` (from 0)."""
        warm = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        return self.rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))


class Steps:
    """A small network in training: `loss` (the number of the step) is what each minimises."""

    def __init__(self, network: nn.Module, loss: Callable[[int], Tensor], plan: Plan) -> None:
        self.step = 0
        self._loss, self._plan = loss, plan
        self._parameters = dict(network.named_parameters())
        self._means = {} if plan.mean is None else {name: one.detach().clone() for name, one in self._named()}
        given: dict[str, Any] = {"lr": plan.rate, "betas": plan.betas, "fused": True}
        if plan.decay is None:
            self._optimizer: torch.optim.Optimizer = torch.optim.Adam(self._parameters.values(), **given)
        else:
            self._optimizer = torch.optim.AdamW(self._parameters.values(), weight_decay=plan.decay, **given)

    def advance(self, step: int | None = None) -> None:
        """Train until so many steps are done, by default all."""
        with thread_count(1):
            while self.step < (self._plan.steps if step is None else step):
                self._advance()
                self.step += 1

    def _advance(self) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self._plan.learning_rate(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        self._loss(self.step).backward()
        if self._plan.clip is not None:
            nn.utils.clip_grad_norm_(self._parameters.values(), self._plan.clip)
        self._optimizer.step()
        if self._plan.mean is not None:
            decay = min(self._plan.mean, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                for name, parameter in self._named():
                    self._means[name].lerp_(parameter, 1 - decay)

    def weights(self) -> Arrays:
        """The weights by name: their exponential mean where there is one."""
        return {name: one.numpy().copy() for name, one in self._means.items()} or self._now()

    def state_dict(self) -> dict[str, Any]:
        """Plain data and arrays, as in `nas_core.strategy.Snapshots`."""
        stepped = {name: self._optimizer.state[one] for name, one in self._named() if one in self._optimizer.state}
        moments = {
            moment: {name: state[moment].numpy().copy() for name, state in stepped.items()} for moment in MOMENTS
        }
        means = {"means": self.weights()} if self._means else {}
        return {"step": self.step, "parameters": self._now(), **means, **moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave."""
        self.step = int(state["step"])
        with torch.no_grad():
            for name, parameter in self._named():
                parameter.copy_(torch.tensor(state["parameters"][name]))
        self._means = {name: torch.tensor(state["means"][name]) for name in self._means}
        self._optimizer.state.clear()
        for name in state[MOMENTS[0]]:
            found = {moment: torch.tensor(state[moment][name]) for moment in MOMENTS}
            self._optimizer.state[self._parameters[name]] = {"step": torch.tensor(float(self.step)), **found}

    def _named(self) -> Any:
        return self._parameters.items()

    def _now(self) -> Arrays:
        return {name: one.detach().numpy().copy() for name, one in self._named()}


def trained(
    cache: MutableMapping[str, Mapping[str, Any]],
    key: str,
    begin: Callable[[], Steps],
    finished: Callable[[Steps], Mapping[str, Any]],
    steps: int,
    every: int,
) -> Mapping[str, Any]:
    """What is `finished` under `key` in `cache`; made there where it is not, with a checkpoint after `every` steps."""
    with alone(cache, key):
        state = cache.get(key)
        if state is not None and MOMENTS[0] not in state:
            return state
        training = begin()
        if state is not None:
            training.load_state_dict(state)
        while training.step + every < steps:
            training.advance(training.step + every)
            cache[key] = training.state_dict()
        training.advance(steps)
        cache[key] = done = finished(training)
        return done
