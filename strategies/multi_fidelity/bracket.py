"""Brackets: many candidates are evaluated with a small budget, and the best of them again with a larger one.

What successive halving, Hyperband and asynchronous successive halving share. The budgets are a ladder of rungs,
each about `eta` times the one below. An inner strategy proposes the candidates, which enter at the bottom of their
bracket; the bracket decides which of them climb. Where the evaluator can continue, a promoted candidate goes on from
where it stopped; where it cannot, the whole larger budget is paid.

What the inner strategy learns: the outcome of each of its proposals, once, at the budget with which it entered.
Budgets are never mixed in what one instance of it sees: where brackets start at different rungs, each starting rung
has an instance of its own. It never sees what a promotion came to, and it does not know that there are budgets.

Who climbs: candidates whose evaluation at the rung is complete or reused, those first that are beaten by the fewest
others of the rung (feasibility, then Pareto dominance, as in `nas_core.pareto`), the lower number of equals. Failed,
rejected and pruned trials never do.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.config import Config as BaseConfig
from nas_core.errors import UsageError
from nas_core.evaluation import Fidelity
from nas_core.pareto import better
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, Snapshots, State, Strategy
from strategies.wrappers.inner import InnerConfig, adopt

BRACKET, RUNG, PROMOTES = "bracket", "rung", "promotes"
"""Keys of a proposal's note: the bracket and the rung, both from 0, and the number of the trial that is promoted."""


class BracketConfig(InnerConfig):
    """What all brackets can be told."""

    eta: int = Field(3, ge=2, le=1_000, description="1 of so many climbs; the ratio of the budgets of two rungs")
    minimum: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="budget of the lowest rung; none: the least the evaluator takes"
    )

    @classmethod
    def find(cls, reference: str) -> Any:
        """Raises UsageError, also for a bracket."""
        kind = super().find(reference)
        if isinstance(kind, type) and issubclass(kind, Bracket):
            raise UsageError(
                f"strategy: inner: '{reference}' is a bracket itself; name a strategy that proposes candidates"
            )
        return kind


def ladder(fidelity: Fidelity | None, eta: int, minimum: float | None = None) -> tuple[float, ...]:
    """The budgets of the rungs, rising: minimum * eta^i, and at the top the full budget.

    The number of rungs is such that the ratio below the top is nearest to eta. Budgets are whole where the bounds of
    the fidelity are; where only some levels can be evaluated each rung is at the level with the nearest ratio, and
    rungs at the same level are one. Raises UsageError where less than two rungs are left.
    """
    if fidelity is None:
        raise UsageError(f"a bracket needs budgets to choose from, and this evaluator has one only; {_REMEDY}")
    levels = fidelity.levels or (fidelity.low, fidelity.high)
    low, high = min(levels), max(levels)
    if low >= high:
        raise UsageError(f"a bracket needs budgets to choose from; all there is is {high:g} {fidelity.unit}; {_REMEDY}")
    bottom = low if minimum is None else minimum
    if bottom <= 0:
        raise UsageError(f"strategy: minimum: budgets start at {bottom:g} {fidelity.unit}; set one above 0")
    if not low <= bottom < high:
        raise UsageError(f"strategy: minimum: {bottom:g} {fidelity.unit} is not from {low:g} to below {high:g}")
    steps = max(1, round(math.log(high / bottom, eta)))
    budgets = [*(bottom * eta**step for step in range(steps)), high]
    if fidelity.levels:
        above = [level for level in levels if level >= bottom]
        budgets = [min(above, key=lambda level: abs(math.log(level / budget))) for budget in budgets]
    elif float(low).is_integer() and float(high).is_integer():
        budgets = [float(round(budget)) for budget in budgets]
    rungs = tuple(sorted({float(budget) for budget in budgets}))
    if len(rungs) < 2:
        raise UsageError(
            f"strategy: minimum: at {bottom:g} {fidelity.unit} and above all there is is {high:g}; lower it"
        )
    return rungs


_REMEDY = "train by epochs (--evaluator train), or name a table with several schedules"


class Rung:
    """The candidates that completed one budget, best first, and the numbers of those that climbed further."""

    def __init__(self) -> None:
        self.entries: list[Outcome] = []
        self.promoted: set[int] = set()
        self._beaten: dict[int, int] = {}  # by how many others; counted with several objectives

    def add(self, outcome: Outcome) -> None:
        """Rank a candidate among the others; O(n) comparisons, O(log n) with one objective: the order is total."""
        if len(outcome.values or ()) > 1:
            self._beaten[outcome.number] = 0
            for other in self.entries:
                if better(outcome, other):
                    self._beaten[other.number] += 1
                elif better(other, outcome):
                    self._beaten[outcome.number] += 1
            self.entries.append(outcome)
            self.entries.sort(key=lambda entry: (self._beaten[entry.number], entry.number))
        else:
            insort(self.entries, outcome, key=lambda e: (e.violation, *(-value for value in e.values or ()), e.number))

    def promotable(self, places: int, pending: Iterable[Pending]) -> Outcome | None:
        """The best of the first `places` whose promotion was neither told nor is `pending`."""
        climbing = {trial.proposal.note.get(PROMOTES) for trial in pending}
        for entry in self.entries[:places]:
            if entry.number not in self.promoted and entry.number not in climbing:
                return entry
        return None

    def state_dict(self) -> dict[str, Any]:
        entries = [
            {
                "number": entry.number,
                "arch": entry.proposal.arch.to_json(),
                "values": list(entry.values or ()),
                "violations": list(entry.violations),
                "beaten": self._beaten.get(entry.number, 0),
            }
            for entry in self.entries
        ]
        return {"entries": entries, "promoted": sorted(self.promoted)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.promoted = {int(number) for number in state["promoted"]}
        self._beaten = {int(entry["number"]): int(entry["beaten"]) for entry in state["entries"]}
        self.entries = [
            Outcome(
                int(entry["number"]),
                Proposal(Architecture.from_json(entry["arch"])),
                State.COMPLETE,
                tuple(entry["values"]),
                tuple(entry["violations"]),
            )
            for entry in state["entries"]
        ]


@dataclass(frozen=True, slots=True)
class Inner:
    """The inner strategy of the candidates that enter at one rung: it sees these alone."""

    strategy: Strategy
    rung: int
    budget: float

    def ask(self, number: int, pending: Sequence[Pending], bracket: int) -> Proposal | None:
        """A new candidate with the rung's budget. Raises Exhausted."""
        own = [Pending(trial.number, _bare(trial.proposal)) for trial in pending if self.entered(trial.proposal)]
        found = self.strategy.ask(number, own)
        if found is None:
            return None
        return replace(found, budget=self.budget, note={**found.note, BRACKET: bracket, RUNG: self.rung})

    def tell(self, outcome: Outcome) -> None:
        self.strategy.tell(replace(outcome, proposal=_bare(outcome.proposal)))

    def entered(self, proposal: Proposal) -> bool:
        """Whether it is a proposal of this strategy."""
        return proposal.note.get(RUNG) == self.rung and PROMOTES not in proposal.note


def _bare(proposal: Proposal) -> Proposal:
    """The proposal as the inner strategy made it."""
    note = {name: value for name, value in proposal.note.items() if name not in (BRACKET, RUNG)}
    return replace(proposal, budget=None, note=note)


class Bracket:
    """What all brackets share: the rungs of the present bracket, the inner strategies, promotions.

    Where the inner strategy has snapshots the bracket has them too; otherwise a replay is fast.
    """

    Config: ClassVar[type[BaseConfig]] = BracketConfig
    enter_anywhere: ClassVar[bool] = False  # whether candidates enter at every rung, or at the lowest only

    def __init__(self, setting: Setting, config: BracketConfig) -> None:
        """Raises UsageError for a setting without two budgets."""
        self.eta = config.eta
        self.budgets = ladder(setting.fidelity, config.eta, config.minimum)
        self.bracket = 0
        self.rungs = self.no_rungs()
        self._continues = setting.fidelity is not None and setting.fidelity.continues
        unaware = replace(setting, fidelity=None)
        entrances = range(len(self.budgets) if self.enter_anywhere else 1)
        self.inners = [Inner(config.make(unaware), rung, self.budgets[rung]) for rung in entrances]
        if isinstance(self.inners[0].strategy, Snapshots):
            self.state_dict, self.load_state_dict = self._state_dict, self._load_state_dict

    def tell(self, outcome: Outcome) -> None:
        note = outcome.proposal.note
        bracket, rung = int(note[BRACKET]), int(note[RUNG])
        if bracket > self.bracket:
            self.bracket, self.rungs = bracket, self.no_rungs()
        if PROMOTES in note:
            self.rungs[rung - 1].promoted.add(int(note[PROMOTES]))
        else:
            self.inners[rung].tell(outcome)
        if outcome.state in (State.COMPLETE, State.REUSED) and outcome.values is not None:
            self.rungs[rung].add(outcome)

    def adopt(self, proposal: Proposal, arch: Architecture) -> Proposal:
        return adopt(self.inners[int(proposal.note[RUNG])].strategy, proposal, arch)

    def no_rungs(self) -> list[Rung]:
        return [Rung() for _ in self.budgets]

    def promotion(self, rung: int, places: int, pending: Sequence[Pending]) -> Proposal | None:
        """The best of the first `places` of a rung that does not climb yet goes to the next one."""
        entry = self.rungs[rung].promotable(places, pending)
        if entry is None:
            return None
        return Proposal(
            entry.proposal.arch,
            budget=self.budgets[rung + 1],
            continues=entry.number if self._continues else None,
            note={BRACKET: self.bracket, RUNG: rung + 1, PROMOTES: entry.number},
        )

    def _state_dict(self) -> dict[str, Any]:
        return {
            "bracket": self.bracket,
            "rungs": [rung.state_dict() for rung in self.rungs],
            "inners": [inner.strategy.state_dict() for inner in self.inners],  # type: ignore[attr-defined]
        }

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.bracket = int(state["bracket"])
        for rung, kept in zip(self.rungs, state["rungs"], strict=True):
            rung.load_state_dict(kept)
        for inner, kept in zip(self.inners, state["inners"], strict=True):
            inner.strategy.load_state_dict(kept)  # type: ignore[attr-defined]


class Halving(Bracket):
    """Brackets one after the other, each of rungs one after the other: a rung starts when the one below is over.

    `plans` are repeated in turn: the rung at which a bracket starts, and with how many candidates.
    """

    plans: tuple[tuple[int, int], ...]

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        bracket = max([self.bracket, *(int(trial.proposal.note.get(BRACKET, 0)) for trial in pending)])
        start, size = self.plans[bracket % len(self.plans)]
        rungs = self.rungs if bracket == self.bracket else self.no_rungs()  # none of a bracket just opened is told
        climbing = {trial.proposal.note[RUNG] for trial in pending if PROMOTES in trial.proposal.note}
        entering = sum(self.inners[start].entered(trial.proposal) for trial in pending)
        entered = len(rungs[start].entries)
        if not climbing and not rungs[start].promoted:
            try:
                if entered + entering < size:  # failed and rejected candidates are replaced
                    return self.inners[start].ask(number, pending, bracket)
            except Exhausted:
                pass  # the bracket goes on with those it has
            if entering:
                return None
        for rung in range(start, len(self.budgets) - 1):
            places = max(1, min(size, entered) // self.eta ** (rung + 1 - start))
            found = self.promotion(rung, places, pending)
            if found is not None or rung + 1 in climbing:
                return found
        return self._open(number, bracket + 1)

    def _open(self, number: int, first: int) -> Proposal | None:
        """The first candidate of the next bracket whose inner strategy has any. Raises Exhausted."""
        for bracket in range(first, first + len(self.plans)):
            try:
                return self.inners[self.plans[bracket % len(self.plans)][0]].ask(number, (), bracket)
            except Exhausted as error:
                last = error
        raise last


def rank_correlation(outcomes: Sequence[Outcome], least: int = 5) -> dict[float, float]:
    """How well each smaller budget foretells the order at the largest: Kendall's tau-b by budget, -1 to 1.

    Of the candidates that reached the largest budget in `outcomes`, by the first objective. Budgets with fewer than
    `least` of them, or without any difference, are left out.
    """
    from scipy.stats import kendalltau

    by_number = {outcome.number: outcome for outcome in outcomes if outcome.values is not None}
    climbed = [outcome for outcome in by_number.values() if PROMOTES in outcome.proposal.note]
    top = max((outcome.proposal.budget or 0.0 for outcome in climbed), default=0.0)
    pairs: dict[float, list[tuple[float, float]]] = {}
    for final in climbed:
        if final.proposal.budget != top or final.state is State.REUSED:
            continue
        below: Outcome | None = final
        while below is not None and PROMOTES in below.proposal.note:
            below = by_number.get(int(below.proposal.note[PROMOTES]))
            if below is not None and below.values and final.values and below.proposal.budget is not None:
                pairs.setdefault(below.proposal.budget, []).append((below.values[0], final.values[0]))
    found = {}
    for budget, measured in sorted(pairs.items()):
        tau = float(kendalltau(*zip(*measured, strict=True)).statistic) if len(measured) >= least else math.nan
        if math.isfinite(tau):
            found[budget] = tau
    return found
