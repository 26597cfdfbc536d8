"""What budgets come to, in full evaluations."""

from __future__ import annotations

from nas_core.strategy import Proposal, State
from studies.search.trial import Asked, Told
from studies.setup.assemble import StudyObjects


class SpentBudget:
    """Adds up what a study's trials have cost: 1 is one full evaluation, and 5 epochs of 20 a quarter of it.

    A trial that continues another pays for what it adds. Reused trials are free, and so are those that are rejected
    before their evaluation; one that this rejects, a pruned one, and one that its own patience has ended, pays for the
    steps that it came to.
    """

    def __init__(self, parts: StudyObjects) -> None:
        fidelity = parts.evaluator.fidelity
        self._own, self._fidelity = parts.budget, fidelity
        self._full = parts.budget or (fidelity.high if fidelity else None)
        self._budgets: dict[int, float] = {}  # of trials that may be continued
        self.total = 0.0

    def resolved(self, proposal: Proposal) -> tuple[float | None, float]:
        """The budget of a proposal (None: the full one), and the step of its final report."""
        budget = self._own if proposal.budget is None else proposal.budget
        return budget, budget if budget is not None else self._fidelity.high if self._fidelity else 0.0

    def of(self, proposal: Asked, budget: float | None = None) -> float:
        """What a proposal costs, or would if it ended at `budget`."""
        reached = proposal.budget if budget is None else budget
        if self._full is None or reached is None:
            return 1.0
        before = 0.0 if proposal.continues is None else self._budgets.get(proposal.continues, 0.0)
        return max(0.0, reached - before) / self._full

    def learn(self, told: Told) -> None:
        """Take in an outcome. The steps that it came to count of one that may have ended before its budget, and of one
        that its evaluation has rejected."""
        state, reached = told.state, told.reached
        if state == State.REJECTED and reached is not None and self._full is not None:
            self.total += self.of(told, reached)
        steps = reached if state in (State.PRUNED, State.COMPLETE) else None
        if told.budget is not None and state in (State.COMPLETE, State.REUSED):
            self._budgets[told.number] = told.budget if steps is None else steps
        if state in (State.COMPLETE, State.FAILED, State.PRUNED):
            self.total += self.of(told, steps)
