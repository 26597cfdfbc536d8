"""Successive halving: of n candidates with a small budget the best 1/eta go on with eta times as much, and so on.

Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016, in
the form of Li et al., JMLR 18 (2018), Algorithm 1, lines 3-9: rung i holds floor(n eta^-i) candidates at r eta^i.
A rung starts when all of the one below is known, a bracket when the one before is over.
"""

from __future__ import annotations

from pydantic import Field

from nas_core.errors import UsageError
from nas_core.strategy import Setting
from strategies.multi_fidelity.bracket import BracketConfig, Halving


class SuccessiveHalving(Halving):
    """Brackets of one size. A proposal's note says its bracket, its rung, and the trial that it promotes."""

    class Config(BracketConfig):
        """What successive halving can be told."""

        configurations: int | None = Field(
            None,
            ge=2,
            le=1_000_000,
            description="candidates of a bracket (n); none: eta^(rungs - 1), one reaches the top",
        )

    def __init__(self, setting: Setting, config: Config) -> None:
        super().__init__(setting, config)
        least = self.eta ** (len(self.budgets) - 1)
        size = least if config.configurations is None else config.configurations
        if size < least:
            raise UsageError(
                f"strategy: configurations: none of {size} would reach the top of {len(self.budgets)} rungs; "
                f"at least {least} are needed, a smaller eta, or a larger minimum"
            )
        self.plans = ((0, size),)
