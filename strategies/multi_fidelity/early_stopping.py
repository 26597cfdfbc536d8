"""Early stopping of single candidates, by Optuna's pruners behind one adapter.

Akiba, Sano, Yanase, Ohta and Koyama, "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD 2019,
section 4.2; the median rule is that of Golovin et al., "Google Vizier", KDD 2017, section 3.4.1. Successive halving is
not among them: as a bracket (`strategies/multi_fidelity/asha.py`) it can train a stopped candidate on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nas_core.config import Config as BaseConfig

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

GROUP = "nas.pruners"

BUILTIN = {
    "median": "strategies.multi_fidelity.early_stopping:Median",
    "percentile": "strategies.multi_fidelity.early_stopping:Percentile",
    "threshold": "strategies.multi_fidelity.early_stopping:Threshold",
}

Curve = Sequence[tuple[float, float]]


class Late(BaseConfig):
    """When a pruner may act at all."""

    startup_trials: int = Field(5, ge=0, description="complete trials before any is stopped")
    warmup_steps: int = Field(1, ge=0, description="steps of a trial during which it is never stopped")
    interval_steps: int = Field(1, ge=1, description="steps between two looks at a trial")


class OptunaPruner(ABC):
    """One of Optuna's pruners (`nas_core.strategy.Pruner`), asked about an in-memory study of the given curves."""

    Config: ClassVar[type[BaseConfig]]

    def __init__(self, config: Any) -> None:
        self._pruner = self.make(config)

    @abstractmethod
    def make(self, config: Any) -> BasePruner:
        """Optuna's object with these settings."""

    def prune(self, curve: Curve, others: Sequence[Curve]) -> bool:
        """Whether to stop. To Optuna steps are whole numbers from 0, ours are from 1."""
        from optuna.trial import TrialState

        from strategies.parts.optuna_view import quiet, study, trial

        shown = [
            trial(number, TrialState.COMPLETE, (other[-1][1],), curve=_from_zero(other))
            for number, other in enumerate(others, 1)
            if other
        ]
        own = trial(len(others) + 1, TrialState.RUNNING, curve=_from_zero(curve))
        with quiet():
            return bool(self._pruner.prune(study([*shown, own]), own))


def _from_zero(curve: Curve) -> dict[int, float]:
    return {int(step) - 1: value for step, value in curve}


class Median(OptunaPruner):
    """Stops a trial whose best value so far is below the median of what the others had at that step."""

    class Config(Late):
        """The median rule has only its times to set."""

    def make(self, config: Config) -> BasePruner:
        from optuna.pruners import MedianPruner

        return MedianPruner(config.startup_trials, config.warmup_steps, config.interval_steps)


class Percentile(OptunaPruner):
    """Stops a trial whose best value so far is not among the best `percentile` of the others at that step."""

    class Config(Late):
        """How many are kept, and when."""

        percentile: float = Field(25.0, gt=0, lt=100, description="of the others; a trial below them is stopped")

    def make(self, config: Config) -> BasePruner:
        from optuna.pruners import PercentilePruner

        return PercentilePruner(config.percentile, config.startup_trials, config.warmup_steps, config.interval_steps)


class Threshold(OptunaPruner):
    """Stops a trial whose value is below `lower` (of a minimised objective: above -`lower`)."""

    class Config(BaseConfig):
        """The bound, and when."""

        lower: float = Field(allow_inf_nan=False, description="least value, higher being better")
        warmup_steps: int = Field(1, ge=0, description="steps of a trial during which it is never stopped")
        interval_steps: int = Field(1, ge=1, description="steps between two looks at a trial")

    def make(self, config: Config) -> BasePruner:
        from optuna.pruners import ThresholdPruner

        return ThresholdPruner(
            lower=config.lower, n_warmup_steps=config.warmup_steps, interval_steps=config.interval_steps
        )
