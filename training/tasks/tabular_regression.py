"""Rows of a table with one number each, which is predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.task import TABULAR_REGRESSION, InputSpec, Task
from training.inputs.tables import TableInputs
from training.metrics import PartMetric
from training.tasks.tables import EXAMPLE, RECIPES, Table

if TYPE_CHECKING:
    from torch import Tensor


def rmse(outputs: Tensor, targets: Tensor) -> float:
    """The root of the mean squared error, in the unit of the targets [n, 1]."""
    return math.sqrt(float((outputs.double() - targets.double()).square().mean()))


def absolute(outputs: Tensor, targets: Tensor) -> Tensor:
    """The absolute error of each sample [n]."""
    return (outputs - targets).abs().mean(1)


def r2(outputs: Tensor, targets: Tensor) -> float:
    """The share of the targets' variance that is explained; 1 is all of it, nan where they do not vary."""
    outputs, targets = outputs.double(), targets.double()
    spread = float((targets - targets.mean()).square().sum())
    return 1 - float((targets - outputs).square().sum()) / spread if spread else math.nan


class TabularRegression(Table):
    """Outputs and targets are numbers [b, 1], in training standardised; metrics are in the targets' own unit."""

    name = TABULAR_REGRESSION
    pipeline = "tabular-regression"
    example: ClassVar[Task] = Task(
        kind=TABULAR_REGRESSION,
        inputs=(InputSpec(name="x", shape=(sum(EXAMPLE),), categories=EXAMPLE),),
        outputs=1,
        metric="rmse",
    )
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {**fields, "loss": "mse_loss"} for name, fields in RECIPES.items()
    }
    losses: ClassVar[Mapping[str, tuple[str, ...]]] = {"mse_loss": (), "l1_loss": (), "smooth_l1_loss": ()}
    metrics: ClassVar[tuple[PartMetric, ...]] = (
        PartMetric("rmse", rmse, "min"),
        PartMetric("mae", absolute, "min", per_sample=True),
        PartMetric("r2", r2),
    )
    answers: ClassVar[str] = "numbers"

    def examples(self) -> tuple[Task, ...]:
        return (self.task((1, 1), 1),)

    def bunch(self) -> Any:
        from sklearn.datasets import load_diabetes

        return load_diabetes(as_frame=True, scaled=False)

    def predicts(self, inputs: TableInputs) -> list[tuple[str, str]]:
        return [("output", f"{inputs.target_mean:.6g} + {inputs.target_deviation:.6g} x answer of the network")]


KIND = TabularRegression()
