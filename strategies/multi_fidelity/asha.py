"""Asynchronous successive halving (ASHA): nobody waits for a rung to be full.

Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht and Talwalkar, "A System for Massively Parallel
Hyperparameter Tuning", MLSys 2020, Algorithm 2: a worker that is free promotes a candidate from the best 1/eta of
those that have completed a rung, the highest rung first; where there is none it starts a new one at the lowest. Early
on this promotes some candidates that would not have been among the best of a full rung.
"""

from __future__ import annotations

from collections.abc import Sequence

from nas_core.strategy import Exhausted, Pending, Proposal
from strategies.multi_fidelity.bracket import Bracket, BracketConfig


class Asha(Bracket):
    """One bracket without end. A proposal's note says its rung, and the trial that it promotes."""

    Config = BracketConfig

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        for rung in reversed(range(len(self.budgets) - 1)):
            found = self.promotion(rung, len(self.rungs[rung].entries) // self.eta, pending)
            if found is not None:
                return found
        try:
            return self.inners[0].ask(number, pending, self.bracket)
        except Exhausted:
            if pending:
                return None  # what is under way may yet bring a promotion
            raise
