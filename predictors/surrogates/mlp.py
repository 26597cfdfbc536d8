"""An ensemble of multilayer perceptrons on encoded architectures.

White, Neiswanger and Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture
Search", AAAI 2021, section 4: five networks with their own initialisation, trained on the mean absolute error; their
disagreement is the uncertainty. Deviations: three layers of 64 units, not ten of 20; targets that are half a normal
score, half the value; each member leaves out a fifth of the observations, by which the uncertainty is
calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy
import torch
from pydantic import Field
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.config import Config as BaseConfig
from nas_core.errors import UsageError
from nas_core.seeds import derive
from predictors.encodings import DEFAULT, Encoder
from predictors.surrogate import Problem
from predictors.surrogates.neural import Fitted, Outputs, Parameters, batches, steps_for, train

if TYPE_CHECKING:
    from predictors.surrogate import Floats

FARTHEST = 5.0  # standard deviations that a column may be off in what is predicted


class MLPConfig(BaseConfig):
    """What the networks read, and how they are trained."""

    blocks: tuple[str, ...] = Field(DEFAULT, description="blocks of columns (see predictors.encodings)")
    proxies: tuple[str, ...] = Field((), description="proxies whose ranks are columns too; needs scores")
    members: int = Field(5, ge=1, le=64, description="networks whose disagreement is the uncertainty")
    layers: int = Field(3, ge=1, le=32, description="hidden layers")
    hidden: int = Field(64, ge=1, le=4096, description="units of a hidden layer")
    share: float = Field(0.5, ge=0, lt=1, description="of a target that is the value itself, not its normal score")
    steps: int = Field(600, ge=1, description="training steps; more where that is fewer than 40 passes")
    batch: int = Field(32, ge=1, description="architectures of a step")
    rate: float = Field(5e-3, gt=0, allow_inf_nan=False, description="learning rate")
    decay: float = Field(1.0, ge=0, allow_inf_nan=False, description="weight decay")


class MLPEnsemble:
    """Perceptrons on standardised columns."""

    Config: ClassVar[type[BaseConfig]] = MLPConfig

    def __init__(self, problem: Problem, config: Any) -> None:
        self._config = config
        self._encoder = Encoder(problem, config.blocks, config.proxies)
        self._seed = derive(problem.seed, "mlp")
        self._fitted: Fitted | None = None

    def fit(self, archs: Sequence[Architecture], values: Sequence[float]) -> None:
        config = self._config
        self._fitted = Fitted.to(archs, values, config.members, self._seed, self._learn, config.share)

    def predict(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """Raises UsageError before `fit`."""
        if self._fitted is None:
            raise UsageError("the MLP ensemble has not been fitted")
        return self._fitted.predict(archs)

    def _learn(self, archs: Sequence[Architecture], targets: Tensor, learned: Tensor) -> Outputs:
        config, encoder = self._config, self._encoder
        rows = encoder.encode(archs)
        mean, scale = rows.mean(axis=0), rows.std(axis=0)
        scale[scale == 0] = numpy.inf  # a column that says nothing here is not used

        def columns(wanted: Floats) -> Tensor:
            return torch.from_numpy(((wanted - mean) / scale).clip(-FARTHEST, FARTHEST)).float()

        network = Perceptrons(config, rows.shape[1], self._seed)
        observed = columns(rows)

        def loss(chosen: Tensor) -> Tensor:
            off = (network(observed[chosen]) - targets[chosen]).abs()
            return (off * learned[:, chosen]).sum() / len(chosen)

        steps = steps_for(len(archs), config.steps, config.batch)
        positions = batches(len(archs), config.batch, steps, self._seed)
        train(network, loss, positions, steps, config.rate, config.decay)

        def outputs(wanted: Sequence[Architecture]) -> Tensor:
            with torch.no_grad():
                found: Tensor = network(columns(encoder.encode(wanted)))
            return found

        return outputs


class Perceptrons(Parameters):
    """[n, columns] to [members, n]."""

    def __init__(self, config: MLPConfig, columns: int, seed: int) -> None:
        super().__init__(config.members, seed)
        widths = [columns, *[config.hidden] * config.layers, 1]
        self.weights = nn.ParameterList([self.weight(*pair) for pair in pairwise(widths)])
        self.biases = nn.ParameterList([self.bias(width) for width in widths[1:]])

    def forward(self, columns: Tensor) -> Tensor:
        state = columns.expand(self.members, -1, -1)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            state = torch.baddbmm(bias, torch.relu(state) if layer else state, weight)
        return state[..., 0]
