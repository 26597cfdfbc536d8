"""Hyperband: brackets of successive halving that start with many candidates and little, up to few and everything.

Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband: A Novel Bandit-Based Approach to Hyperparameter
Optimization", JMLR 18 (2018), Algorithm 1: for s = s_max, ..., 0 a bracket of n = ceil((s_max + 1) / (s + 1) eta^s)
candidates starts s rungs below the top. The brackets are repeated in this order until the search ends.
"""

from __future__ import annotations

from nas_core.strategy import Setting
from strategies.multi_fidelity.bracket import BracketConfig, Halving


class Hyperband(Halving):
    """Brackets of every start. A proposal's note says its bracket, its rung, and the trial that it promotes."""

    Config = BracketConfig
    enter_anywhere = True

    def __init__(self, setting: Setting, config: BracketConfig) -> None:
        super().__init__(setting, config)
        self.plans = plans(len(self.budgets), self.eta)


def plans(rungs: int, eta: int) -> tuple[tuple[int, int], ...]:
    """The starting rung and the number of candidates of each bracket, most candidates first."""
    return tuple((rungs - 1 - s, -(-rungs * eta**s // (s + 1))) for s in reversed(range(rungs)))
