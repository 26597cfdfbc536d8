"""Which epoch of a training counts: the last one, or the best by a validation metric; and when to end early."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from nas_core.evaluation import Objective, Report
from training.recipe import Recipe


class Selection:
    """The best epoch so far, by `monitor`, and of `keep` best its weights.

    A value that is not a number is worse than any; of equal epochs the first is the best.
    """

    def __init__(self, recipe: Recipe, monitor: Objective) -> None:
        self.recipe, self.monitor = recipe, monitor
        self.weights: dict[str, Tensor] = {}
        self.report: Report | None = None  # of the best epoch

    def take(self, report: Report, model: nn.Module) -> None:
        """An epoch has ended, with the network `model` to be kept if it is the best."""
        if self.report is None or self._value(report) > self._value(self.report):
            self.report = report
            if self.recipe.keep == "best":
                self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def final(self, report: Report) -> Report:
        """The last report of a training, with the figures of the weights that are kept."""
        if self.recipe.keep == "last" or self.report is None:
            return report
        kept = {**report.metrics, **self.report.metrics, "kept_epoch": self.report.step}
        return replace(report, metrics=kept, detail=self.report.detail)

    def over(self, epoch: float) -> bool:
        """Whether the training has come to its end, after `epoch` epochs, without a better one for too long."""
        patience = self.recipe.patience
        return patience is not None and self.report is not None and epoch - self.report.step >= patience

    def resume(self, reports: Sequence[Report], weights: Mapping[str, Tensor]) -> None:
        """As it was after these epochs."""
        for report in reports:
            if self.report is None or self._value(report) > self._value(self.report):
                self.report = report
        self.weights = dict(weights)

    def _value(self, report: Report) -> float:
        value = report.metrics.get(self.monitor.metric, math.nan)
        return -math.inf if math.isnan(value) else self.monitor.orient(value)
