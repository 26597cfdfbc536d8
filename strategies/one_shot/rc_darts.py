"""RC-DARTS (Jin et al., 2019): DARTS between bounds on the costs of the network.

The cost of a network is expected under the softmax of every group. After each epoch of DARTS the architecture
parameters are moved to the nearest point whose expected costs are within the bounds (`projection`); what is derived at
the end is counted, and repaired where it is not within them. So the result satisfies its constraints or there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from nas_core.architecture import Architecture
from nas_core.batch import Batch, Data
from nas_core.errors import InfeasibleError
from nas_core.one_shot import Compute, Progress
from nas_core.relax import Mix
from nas_core.strategy import Setting
from search_spaces.supernet.supernet import Supernet, relaxable
from strategies.one_shot.alphas import Alphas, AlphasConfig, plain
from strategies.one_shot.bilevel import pairs
from strategies.one_shot.bounds import Bounds, check_metrics
from strategies.one_shot.darts import entropy
from strategies.one_shot.projection import Matrix, Solver, project, softmax
from strategies.one_shot.weights import SharedWeights, WeightsConfig, mean

WARM_UP = 15
ROUNDS = 5
"""Projections in a row at most, where each changes which edges are kept."""


class RcDarts:
    """First-order DARTS whose bounds are the constraints on "params" and "macs" (of one sample), upper and lower. They
    are those of the network at its final size, which may be larger than the supernet.

    A warm-up trains the weights alone. Every later epoch is one of DARTS (an unconstrained phase), then a projection.
    Adam's state is dropped where a projection has moved the parameters: it points out of the bounds.

    While the softmax is flat, the expected cost is that of an average network, whatever is ahead by a little. An upper
    bound below it moves all groups towards their cheap candidates at once, one above it does nothing: then the repair
    decides. A lower bound near to the upper one keeps either from ending far below it.

    Without `none`, it neither is derived nor counts: the expectation is over the other candidates, given that it is one
    of them. Where a space has `none` in its mix but never derives it (DARTS' own), that is what a network will cost.

    With `edges` "kept" the expected cost counts the groups that take part in what would be derived now (of a DARTS cell
    two edges per node); with "all" every group, which overestimates the network in such spaces.

    Without `projection` it is the baseline that the paper argues against: the relative violation of the bounds by the
    expected cost enters the architecture's loss, times `penalty`. What it derives is neither projected nor repaired,
    and need not be within the bounds. Without constraints it is DARTS with a warm-up.

    The paper's body was not at hand: bounds, expectation and alternation are its abstract's, everything else (duration
    of the phases, solver, warm-up, repair) is a choice of ours.
    """

    class Config(WeightsConfig, AlphasConfig):
        """Defaults as DARTS, and of the projection."""

        warm_up_epochs: int | None = Field(
            default=None,
            ge=0,
            description=f"at the start, in which only the weights learn; default: {WARM_UP}, "
            "but at most 30% of all epochs",
        )
        bilevel: bool = Field(
            default=True, description="false: both levels learn from the same batches, of all the training data"
        )
        none: bool = Field(
            default=True,
            description="an edge may end up with no operation, where the space has that; "
            "false: nor does that count in the expected cost",
        )
        edges: Literal["kept", "all"] = Field(
            default="kept", description="which count in the expected cost: those that are derived now, or all"
        )
        projection: bool = Field(default=True, description="false: penalty only; bounds may be missed (baseline)")
        penalty: float = Field(
            default=1.0, gt=0, le=1e6, description="of the relative violation: first in a projection; fixed without"
        )
        doublings: int = Field(default=10, ge=0, le=60, description="of the penalty in a projection, at most")
        tolerance: float = Field(default=0.01, gt=0, lt=1, description="relative violation at which doubling ends")
        projection_steps: int = Field(default=100, ge=1, le=100_000, description="of Adam, for every penalty")
        projection_lr: float = Field(default=0.01, gt=0, le=1, description="of that Adam")

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if self.warm_up >= self.epochs:
                raise ValueError(
                    f"warm_up_epochs {self.warm_up} leaves none of {self.epochs} epochs for the architecture"
                )
            return self

        @property
        def halves(self) -> bool:
            return self.bilevel

        @property
        def warm_up(self) -> int:
            if self.warm_up_epochs is None:
                return min(WARM_UP, 3 * self.epochs // 10)
            return self.warm_up_epochs

        @property
        def solver(self) -> Solver:
            return Solver(self.penalty, self.doublings, self.tolerance, self.projection_steps, self.projection_lr)

    supernet: Supernet
    weights: SharedWeights
    alphas: Alphas
    bounds: Bounds

    def __init__(self, setting: Setting, config: Config) -> None:
        """Raises UsageError for a space that is not relaxable, and for constraints on other metrics."""
        relaxable(setting.space)
        check_metrics(setting.constraints)
        self.setting, self.config = setting, config

    def start(self, make: Callable[[], Any], data: Data, compute: Compute) -> None:
        """Raises UsageError and InfeasibleError for bounds that cannot be met (`Bounds`)."""
        self.weights = SharedWeights(make(), data, self.config, compute)
        self.supernet = self.weights.supernet
        self.alphas = Alphas(self.supernet.groups, self.config, self.weights.device)
        self.bounds = Bounds(self.supernet, self.setting.constraints, self.config.none, self.setting.network)
        self._masks = {
            name: torch.tensor(counted[: len(group.options)], dtype=torch.float32, device=self.weights.device)
            for (name, group), counted in zip(self.supernet.groups.items(), self.bounds.counted, strict=True)
        }
        self._tables = {
            metric: {name: costs.to(self.weights.device, torch.float32) for name, costs in found.operations.items()}
            for metric, found in self.bounds.costs.items()
        }

    def step(self, epoch: int) -> Progress:
        self.weights.begin(epoch)
        search = epoch >= self.config.warm_up
        if not search:
            metrics = self._weights_alone(epoch)
        else:
            metrics = self._bilevel(epoch) if self.config.bilevel else self._single_level(epoch)
        if search and self.config.projection and self.bounds.metrics:
            metrics["projected"] = self._project()
        strengths = self._strengths()
        arch = self._derived(strengths)
        metrics |= {f"expected_{name}": value for name, value in self.expected().items()}
        metrics |= {f"derived_{name}": self.bounds.cost(arch, name) for name in self.bounds.metrics}
        return Progress({**metrics, "entropy": entropy(strengths)}, plain(strengths), arch)

    def expected(self) -> dict[str, float]:
        """The expected costs at the present architecture parameters, of the metrics that are bounded."""
        theta = self._theta()
        p = softmax(theta, self.bounds.counted)
        bands = self.bounds.bands(self.bounds.counted, self._kept(theta))
        return {metric: band.expected(p) for metric, band in zip(self.bounds.metrics, bands, strict=True)}

    def relaxed(self) -> Mix:
        """The mix at the present architecture parameters; differentiable in them."""
        return self.supernet.mix(self.alphas.softmax())

    def result(self) -> Sequence[Architecture]:
        """What is derived, repaired and counted anew. Raises InfeasibleError where it is not within the bounds;
        without `projection` it is neither repaired nor checked."""
        strengths = self._strengths()
        arch = self.supernet.derive(strengths, self.config.none)
        if self.config.projection:
            arch = self.bounds.repair(arch, strengths)
            self.bounds.verify(arch)
        return [arch]

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights.state_dict(), "alphas": self.alphas.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights.load_state_dict(state["weights"])
        self.alphas.load_state_dict(state["alphas"])

    def _bilevel(self, epoch: int) -> dict[str, float]:
        weights_loss = alphas_loss = torch.zeros((), device=self.weights.device)
        kept = None if self.config.projection else self._kept(self._theta())
        count = 0
        for train, valid in pairs(self._batches("weights", epoch), self._batches("alphas", epoch)):
            alphas_loss = alphas_loss + self._alpha_step(valid, kept)
            weights_loss = weights_loss + self.weights.step(train, self.supernet.mix(self._strengths()))
            count += 1
        return {
            "train_loss": mean(weights_loss, count, "training loss"),
            "alpha_loss": mean(alphas_loss, count, "architecture's loss"),
        }

    def _alpha_step(self, batch: Batch, kept: Mapping[str, bool] | None) -> Tensor:
        """`kept`: the groups whose expected costs are penalised; None: no penalty. The loss of the data alone."""
        self.alphas.zero_grad()
        mix = self.relaxed()
        with self.weights.frozen():
            loss = self.weights.loss(batch, mix)
            total = loss if kept is None else loss + self.config.penalty * self._violation(mix.weights, kept)
            total.backward()
        self.alphas.step()
        return loss.detach()

    def _single_level(self, epoch: int) -> dict[str, float]:
        kept = None if self.config.projection else self._kept(self._theta())
        total, count = torch.zeros((), device=self.weights.device), 0
        for batch in self._batches("train", epoch)():
            self.alphas.zero_grad()
            total = total + self.weights.step(batch, self.relaxed())
            if kept is not None:
                (self.config.penalty * self._violation(self.alphas.softmax(), kept)).backward()
            self.alphas.step()
            count += 1
        return {"train_loss": mean(total, count, "training loss")}

    def _violation(self, weights: Mapping[str, Tensor], kept: Mapping[str, bool]) -> Tensor:
        """The sum of the relative violations by the expected costs; differentiable in the weights."""
        total = torch.zeros((), device=self.weights.device)
        for metric, table in self._tables.items():
            parts = [
                (weights[name] * self._masks[name] * costs).sum() / (weights[name] * self._masks[name]).sum()
                for name, costs in table.items()
                if kept[name]
            ]
            expected = torch.stack(parts).sum() + self.bounds.costs[metric].fixed
            lower, upper = self.bounds.limits(metric)
            if upper < np.inf:
                total = total + torch.relu(expected - upper) / (abs(upper) or 1.0)
            if lower > -np.inf:
                total = total + torch.relu(lower - expected) / (abs(lower) or 1.0)
        return total

    def _weights_alone(self, epoch: int) -> dict[str, float]:
        total, count, mix = torch.zeros((), device=self.weights.device), 0, self.supernet.mix(self._strengths())
        for batch in self._batches("weights" if self.config.bilevel else "train", epoch)():
            total = total + self.weights.step(batch, mix)
            count += 1
        return {"train_loss": mean(total, count, "training loss")}

    def _project(self) -> float:
        """Move the architecture parameters into the bounds; how far."""
        begun = theta = self._theta()
        counted = self.bounds.counted
        for _ in range(ROUNDS):
            kept = self._kept(theta)
            theta = project(theta, counted, self.bounds.bands(counted, kept), self.config.solver).theta
            if self._kept(theta) == kept:
                break
        if theta is begun:
            return 0.0
        with torch.no_grad():
            for vector, values in zip(self.alphas, self._rows(theta), strict=True):
                vector.copy_(torch.tensor(values))
        self.alphas.optimizer.state.clear()
        return float(np.linalg.norm(theta - begun))

    def _theta(self) -> Matrix:
        """The logits as a matrix of the host [groups, candidates], 0 where there is no candidate."""
        theta = np.zeros(self.bounds.present.shape)
        theta[self.bounds.present] = torch.cat([vector.detach() for vector in self.alphas]).double().cpu().numpy()
        return theta

    def _rows(self, matrix: Matrix) -> list[list[float]]:
        return [row[present].tolist() for row, present in zip(matrix, self.bounds.present, strict=True)]

    def _kept(self, theta: Matrix) -> dict[str, bool]:
        """Which groups count in the expected costs."""
        if self.config.edges == "all":
            return dict.fromkeys(self.supernet.groups, True)
        strengths = dict(zip(self.supernet.groups, self._rows(softmax(theta, self.bounds.counted)), strict=True))
        assignment = self.setting.space.assignment(relaxable(self.setting.space).derive(strengths))
        return {name: assignment[name] is not None for name in self.supernet.groups}

    def _derived(self, strengths: Mapping[str, Tensor]) -> Architecture:
        """What would be the result now; where a repair finds nothing, what it started from."""
        arch = self.supernet.derive(strengths, self.config.none)
        if not self.config.projection:
            return arch
        try:
            return self.bounds.repair(arch, strengths)
        except InfeasibleError:
            return arch

    def _batches(self, part: str, epoch: int) -> Callable[[], Any]:
        return lambda: self.weights.data.batches(part, epoch, self.setting.seed)

    def _strengths(self) -> dict[str, Tensor]:
        with torch.no_grad():
            return self.alphas.softmax()
