"""DropNAS (Hong et al., IJCAI 2020): single-level DARTS where every step drops operations, class by class.

On every edge the candidates with parameters and those without are two classes that are dropped independently, so that
those that learn fast do not starve the others. What is dropped in a step stays as it was: its weights and their
momentum, its architecture parameters and their moments, and its share of the softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from nas_core.architecture import Architecture
from nas_core.batch import Data
from nas_core.one_shot import Compute, Progress
from nas_core.relax import Group, Mix
from nas_core.seeds import generator
from nas_core.strategy import Setting
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.alphas import Alphas, AlphasConfig, plain
from strategies.one_shot.weights import SharedWeights, WeightsConfig, mean, unconstrained

Masks = dict[str, np.ndarray[Any, np.dtype[np.bool_]]]


class DropNas:
    """Grouped operation dropout, partial decay and adjustment of the architecture parameters (section 3).

    - Classes are the candidates with and without parameters (`Group.weighted`). Where a group has only one of them
      its candidates are one class: plain operation dropout. `one_class` names such groups, and the metric `one_class`
      counts them where there are any.
    - The mixing weights are a softmax over what is kept; what is dropped is not run.
    - Decay is applied once, by the mask: SGD skips weights without a gradient together with their decay and momentum.
      (The published code takes a second step for the decay of `rate * |w|^2`, which doubles the rate and applies the
      momentum twice, and tells what took part by gradients that are not 0.)
    - Entries of dropped candidates and their Adam moments are put back after the step. Adam counts the steps of a
      group, not of an entry: the bias corrections of an entry that was dropped are those of its neighbours.
    - The architecture is derived as in DARTS, by the mixing weights and without `none`, also where a space could have
      it (NAS-Bench-201). (The published code compares the logits when it
      chooses between edges.)

    Raises UsageError for a space that is not relaxable, and for constraints, of which its loss knows nothing.
    """

    class Config(WeightsConfig, AlphasConfig):
        """The defaults are those of the published code."""

        epochs: int = Field(default=76, ge=1, le=100_000, description="of the supernet's training")
        batch_size: int = Field(default=96, ge=2, le=65_536, description="of images; a graph is always one batch")
        lr: float = Field(default=0.0375, gt=0, le=10, description="of the weights, at the start of the cosine")
        lr_end: float = Field(default=0.0015, ge=0, le=10, description="of the weights, at the end")
        grad_clip: float | None = Field(
            default=3.0, gt=0, description="largest norm of the weights' gradient; null: any"
        )
        rate: float = Field(
            default=3e-5,
            ge=0,
            le=0.9,
            description="chance that all of a class are dropped, before redrawing; 0: no drops",
        )

        none: bool = Field(default=False, description="an edge may end up with no operation, where the space has that")

        @property
        def halves(self) -> bool:
            return False

    supernet: Supernet
    weights: SharedWeights
    alphas: Alphas

    def __init__(self, setting: Setting, config: Config) -> None:
        unconstrained(setting, "dropnas")
        self.setting, self.config = setting, config

    def start(self, make: Callable[[], Any], data: Data, compute: Compute) -> None:
        self.weights = SharedWeights(make(), data, self.config, compute)
        self.supernet = self.weights.supernet
        self.alphas = Alphas(self.supernet.groups, self.config, self.weights.device)
        self.classes = {name: classes(group) for name, group in self.supernet.groups.items()}
        self.one_class = tuple(name for name, parts in self.classes.items() if len(parts) == 1)

    def step(self, epoch: int) -> Progress:
        self.weights.begin(epoch)
        rng = generator(self.setting.seed, epoch, "dropnas")
        losses, count = torch.zeros((), device=self.weights.device), 0
        for batch in self.weights.data.batches("train", epoch, self.setting.seed):
            masks = {name: draw(parts, self.config.rate, rng) for name, parts in self.classes.items()}
            kept = self._on_device(masks)
            self.alphas.zero_grad()
            losses += self.weights.step(batch, self.mix(masks, kept))
            step_kept(self.alphas, masks, kept)
            count += 1
        strengths = self._strengths()
        metrics = {"train_loss": mean(losses, count, "training loss")}
        if self.one_class:
            metrics["one_class"] = float(len(self.one_class))
        return Progress(metrics, plain(strengths), self.supernet.derive(strengths, self.config.none))

    def mix(self, masks: Masks, kept: Mapping[str, Tensor]) -> Mix:
        """The kept candidates, at a softmax over their logits; `kept` are the masks on the device."""
        active = {name: tuple(np.flatnonzero(mask).tolist()) for name, mask in masks.items()}
        weights = {
            name: vector.masked_fill(~kept[name], -torch.inf).softmax(0) for name, vector in self.alphas.vectors.items()
        }
        return Mix(active, weights)

    def relaxed(self) -> Mix:
        """All candidates at a softmax over all logits; differentiable in the alphas."""
        return self.supernet.mix(self.alphas.softmax())

    def result(self) -> Sequence[Architecture]:
        return [self.supernet.derive(self._strengths(), self.config.none)]

    def state_dict(self) -> Mapping[str, Any]:
        return {"weights": self.weights.state_dict(), "alphas": self.alphas.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights.load_state_dict(state["weights"])
        self.alphas.load_state_dict(state["alphas"])

    def _strengths(self) -> dict[str, Tensor]:
        with torch.no_grad():
            return self.alphas.softmax()

    def _on_device(self, masks: Masks) -> dict[str, Tensor]:
        """All masks in one transfer."""
        sizes = [len(mask) for mask in masks.values()]
        flat = torch.from_numpy(np.concatenate(list(masks.values()))).to(self.weights.device)
        return dict(zip(masks, flat.split(sizes), strict=True))


def classes(group: Group) -> tuple[tuple[int, ...], ...]:
    """Positions of the candidates with parameters, and of those without; a class without members is left out."""
    positions = range(len(group.options))
    parts = (tuple(p for p in positions if group.weighted[p] is kind) for kind in (True, False))
    return tuple(part for part in parts if part)


def draw(parts: Sequence[Sequence[int]], rate: float, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which candidates of a group are kept [candidates] (section 3.2).

    In a class g each is dropped with probability `rate ** (1 / |g|)`, redrawn until one is kept; so the only member of
    a class is never dropped.
    """
    mask = np.ones(sum(map(len, parts)), dtype=np.bool_)
    for part in parts:
        if len(part) == 1:
            continue
        chance = rate ** (1 / len(part))
        kept = rng.random(len(part)) >= chance
        while not kept.any():
            kept = rng.random(len(part)) >= chance
        mask[list(part)] = kept
    return mask


def step_kept(alphas: Alphas, masks: Masks, kept: Mapping[str, Tensor]) -> None:
    """One Adam step of the kept entries alone, then their adjustment; groups without a drop step as they are.

    Dropped entries, their moments and their probabilities stay; `kept` are the masks on the device.
    """
    state = alphas.optimizer.state
    dropped = {
        name: vector for name, vector in alphas.vectors.items() if vector.grad is not None and not masks[name].all()
    }
    before = {name: vector.detach().clone() for name, vector in dropped.items()}
    moments = {
        name: {key: state[vector][key].clone() for key in ("exp_avg", "exp_avg_sq")}
        for name, vector in dropped.items()
        if state[vector]
    }
    alphas.step()
    with torch.no_grad():
        for name, vector in dropped.items():
            mask, old = kept[name], before[name]
            shift = adjustment(old, vector, mask)
            vector.copy_(torch.where(mask, vector + shift, old))
            for key in ("exp_avg", "exp_avg_sq"):
                moment = state[vector][key]
                moment.copy_(torch.where(mask, moment, moments[name][key] if name in moments else 0.0))


def adjustment(before: Tensor, after: Tensor, kept: Tensor) -> Tensor:
    """The constant k that, added to every kept logit, gives the kept ones their share rho of the softmax back.

    Equation of section 3.3: `k = ln(rho / (1 - rho) * S_drop / S_keep')`. As rho / (1 - rho) = S_keep / S_drop, this
    is the difference of two logarithms of sums: nothing overflows, and a share of almost 1 loses no digits.
    `before`, `after`: logits [candidates]; `kept`: mask [candidates].
    """
    masked = torch.stack((before, after)).masked_fill(~kept, -torch.inf).logsumexp(1)
    return masked[0] - masked[1]
