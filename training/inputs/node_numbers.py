"""A graph as a deployed network gets it that predicts numbers of its nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from training.inputs.graphs import GraphInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray


class NodeNumberInputs(GraphInputs):
    """What the features of nodes are. A number is predicted in the unit of the training, `(target - target_mean) /
    target_deviation`, of all outputs alike."""

    classes: tuple[str, ...] = Field(default=(), max_length=0, description="none: outputs are numbers")
    target_mean: float = Field(default=0.0, allow_inf_nan=False, description="of the training part")
    target_deviation: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="standard deviation, likewise")

    def in_own_unit(self, answers: NDArray[Any]) -> NDArray[Any]:
        return answers.astype(np.float64) * self.target_deviation + self.target_mean
