"""Which proposals repeat a candidate that the study has already, and what they are answered with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from nas_core.records import Verdict
from nas_core.strategy import Outcome, Proposal, State
from studies.records import Study
from studies.search.trial import Trial
from studies.search.verdicts import Verdicts
from studies.store.store import Store

KEPT = 1_000  # trials whose metrics stay at hand

Same = str | tuple[str, float | None, int | None]


class Duplicates:
    """The candidates of a study that are known: evaluated ones by identity, budget and continued trial, rejected ones
    by their architecture."""

    def __init__(self, store: Store, study: Study, verdicts: Verdicts) -> None:
        self._store, self._study, self._verdicts = store, study, verdicts
        self._evaluated: dict[Same, int] = {}
        self._rejected: dict[str, int] = {}
        self._metrics: dict[int, Mapping[str, float]] = {}  # of trials that were reused lately

    def learn(self, outcome: Outcome, identity: str) -> bool:
        """Take in an outcome; whether the same architecture was rejected before."""
        key = outcome.proposal.arch.key
        if outcome.state == State.COMPLETE:
            self._evaluated.setdefault(self._same(outcome.proposal, identity), outcome.number)
        again = outcome.state == State.REJECTED and key in self._rejected
        if outcome.state == State.REJECTED:
            self._rejected.setdefault(key, outcome.number)
        return again

    def source(self, proposal: Proposal, identity: str, pending: Iterable[Trial]) -> int | None:
        """The trial that a proposal repeats: a complete one, or one that is pending."""
        same = self._same(proposal, identity)
        if same in self._evaluated:
            return self._evaluated[same]
        for trial in pending:  # whatever has become of it meanwhile: timing must not matter
            if trial.counts and self._same(trial.proposal, trial.identity) == same:
                return trial.number
        return None

    def rejected(self, proposal: Proposal) -> int | None:
        """The trial in which the same architecture was rejected before."""
        return self._rejected.get(proposal.arch.key)

    def answer(
        self, proposal: Proposal, source: int, costs: Mapping[str, float]
    ) -> tuple[Verdict, Mapping[str, float]] | None:
        """The learned metrics of the source and the architecture's own costs; None: the source has none."""
        measured = self._measured(source)
        if measured is None:
            return None
        metrics = self._verdicts.reuse(measured, proposal.arch, costs)
        verdict = self._verdicts.after(metrics, 0.0)
        if verdict.state == State.COMPLETE:
            verdict = replace(verdict, state=State.REUSED, reason=f"same as trial {source}")
        return verdict, metrics

    def _measured(self, number: int) -> Mapping[str, float] | None:
        """The metrics of a complete trial, which are as they are for ever. A search that repeats itself asks for the
        same few again and again, and a query costs more than all the rest of a reused trial."""
        known = self._metrics.pop(number, None)
        if known is None:
            run = self._store.trial(self._study, number)
            if run.state != State.COMPLETE:
                return None
            known = run.metrics
        self._metrics[number] = known  # the newest at the end
        if len(self._metrics) > KEPT:
            del self._metrics[next(iter(self._metrics))]
        return known

    def holder(self, number: int) -> int:
        """The trial that has the files of trial `number`: itself, or the one whose result it reuses."""
        run = self._store.trial(self._study, number)
        return run.reuses if run.state == State.REUSED and run.reuses is not None else number

    def origin(self, number: int, proposal: Proposal) -> int:
        """The trial with which a training began: what it draws at random stays the same when it goes on."""
        while proposal.continues is not None:
            number = self.holder(proposal.continues)
            proposal = self._store.trial(self._study, number).proposal
        return number

    def _same(self, proposal: Proposal, identity: str) -> Same:
        """What must be equal for two proposals to be one evaluation."""
        if proposal.budget is None and proposal.continues is None:
            return identity
        holder = None if proposal.continues is None else self.holder(proposal.continues)
        return identity, proposal.budget, holder
