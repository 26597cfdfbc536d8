"""A graph network as a surrogate: it reads the architecture's graph and needs no encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from nas_core.architecture import Architecture
from nas_core.config import Config as BaseConfig
from nas_core.errors import UsageError
from nas_core.seeds import derive
from predictors.surrogate import Problem
from predictors.surrogates.gin import GIN, Graphing, Graphs, Labels
from predictors.surrogates.neural import Fitted, Outputs, batches, steps_for, train

if TYPE_CHECKING:
    from predictors.surrogate import Floats


class GraphConfig(BaseConfig):
    """What the surrogates on graphs can be told."""

    members: int = Field(3, ge=1, le=32, description="networks whose disagreement is the uncertainty")
    layers: int = Field(3, ge=1, le=16, description="rounds of messages between neighbours")
    hidden: int = Field(64, ge=4, le=1024, description="units of a node's state")
    steps: int = Field(120, ge=1, description="training steps; more where that is fewer than 40 passes")
    batch: int = Field(32, ge=2, description="architectures of a step")
    rate: float = Field(8e-3, gt=0, allow_inf_nan=False, description="learning rate")
    decay: float = Field(0.01, ge=0, allow_inf_nan=False, description="weight decay")


class GraphNetwork:
    """An ensemble of graph isomorphism networks (see `gin`), trained on the normal scores of the values.

    Each member leaves out its part of the observations, by which the uncertainty is calibrated. Labels that it was
    not fitted to count by their form and numbers alone.
    """

    Config: ClassVar[type[BaseConfig]] = GraphConfig

    def __init__(self, problem: Problem, config: Any) -> None:
        self._graphs, self._config = Graphing(problem.space), config
        self._seed = derive(problem.seed, "graph-network")
        self._fitted: Fitted | None = None

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        self._fitted = Fitted.to(archs, values, self._config.members, self._seed, self._learn)

    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """Raises UsageError before `fit`."""
        if self._fitted is None:
            raise UsageError("the graph network has not been fitted")
        return self._fitted.predict(archs)

    def _learn(self, archs: Sequence[Architecture], targets: Tensor, learned: Tensor) -> Outputs:
        config, graphing = self._config, self._graphs
        graphs = graphing(archs)
        labels = Labels(graphs)
        observed = labels.batch(graphs)
        network = Regressor(config, labels.width, self._seed)

        def loss(chosen: Tensor) -> Tensor:
            off = (network(observed[chosen]) - targets[chosen]).square()
            return (off * learned[:, chosen]).sum() / len(chosen)

        steps = steps_for(len(archs), config.steps, config.batch)
        positions = batches(len(archs), config.batch, steps, self._seed)
        train(network, loss, positions, steps, config.rate, config.decay)

        def outputs(wanted: Sequence[Architecture]) -> Tensor:
            with torch.no_grad():
                found: Tensor = network(labels.batch(graphing(wanted)))
            return found

        return outputs


class Regressor(GIN):
    """One number per member and graph."""

    def __init__(self, config: GraphConfig, features: int, seed: int) -> None:
        super().__init__(config.members, features, config.hidden, config.layers, seed)
        self.inner, self.inner_bias = self.weight(2 * config.hidden, config.hidden), self.bias(config.hidden)
        self.outer, self.outer_bias = self.weight(config.hidden, 1, 0.3), self.bias(1)

    def forward(self, graphs: Graphs) -> Tensor:
        inner = torch.relu(torch.baddbmm(self.inner_bias, self.embed(graphs), self.inner))
        return torch.baddbmm(self.outer_bias, inner, self.outer)[..., 0]
