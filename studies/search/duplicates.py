"""Which proposals repeat a candidate that the study has already, and what they are answered with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from nas_core.records import Verdict
from nas_core.strategy import Proposal, State
from studies.records import Study
from studies.search.trial import Asked, Told, Trial, paid
from studies.search.verdicts import Verdicts
from studies.store.store import Store

KEPT = 100_000  # trials whose metrics stay at hand

Names = tuple[str, ...]
Known = tuple[str | None, Names, tuple[float, ...]]  # why it was rejected, and its metrics

Same = str | tuple[str, float | None, int | None, int | None]


class Duplicates:
    """The candidates of a study that are known: evaluated ones by identity, budget, continued trial and
    the one whose weights they begin with, those that were rejected before that by their architecture."""

    def __init__(self, store: Store, study: Study, verdicts: Verdicts, holder: Callable[[int], int]) -> None:
        self._store, self._study, self._verdicts, self._holder = store, study, verdicts, holder
        self._evaluated: dict[Same, int] = {}
        self._screened: dict[Same, int] = {}  # rejected by their evaluation
        self._rejected: dict[str, int] = {}
        self._lately: dict[int, Known] = {}  # what trials that ended or were reused lately came to
        self._names: dict[Names, Names] = {}  # those of their metrics, once for all that have the same

    def learn(self, told: Told) -> bool:
        """Take in an outcome; whether it was rejected as before."""
        if told.state == State.COMPLETE:
            self._evaluated.setdefault(self._same(told, told.identity), told.number)
        if told.state != State.REJECTED:
            return False
        same = self._same(told, told.identity)
        again = told.key in self._rejected or same in self._screened
        if told.paid:
            self._screened.setdefault(same, told.number)
        else:
            self._rejected.setdefault(told.key, told.number)
        return again

    def source(self, proposal: Proposal, identity: str, pending: Iterable[Trial]) -> int | None:
        """The trial that a proposal repeats: one that is complete, rejected by its evaluation, or pending."""
        same = self._same(proposal, identity)
        known = self._evaluated.get(same, self._screened.get(same))
        if known is not None:
            return known
        for trial in pending:  # whatever has become of it meanwhile: timing must not matter
            if trial.counts and self._same(trial.proposal, trial.identity) == same:
                return trial.number
        return None

    def rejected(self, proposal: Proposal) -> int | None:
        """The trial in which the same architecture was rejected without an evaluation."""
        return self._rejected.get(proposal.arch.key)

    def answer(
        self, proposal: Proposal, source: int, costs: Mapping[str, float]
    ) -> tuple[Verdict, Mapping[str, float]] | None:
        """The learned metrics of the source and the architecture's own costs, or its rejection; None: neither is."""
        known = self._known(source)
        if known is None:
            return None
        rejected, names, values = known
        if rejected is not None:
            return Verdict(State.REJECTED, rejected), costs
        metrics = self._verdicts.reuse(dict(zip(names, values, strict=True)), proposal.arch, costs)
        verdict = self._verdicts.after(metrics, 0.0)
        if verdict.state == State.COMPLETE:
            verdict = replace(verdict, state=State.REUSED, reason=f"same as trial {source}")
        return verdict, metrics

    def remember(self, number: int, metrics: Mapping[str, float]) -> None:
        """What a complete trial came to, where that is all that it has reported: nobody has to look it up."""
        self._keep(number, self._known_as(None, metrics))

    def _known(self, number: int) -> Known | None:
        """What a trial came to, which stays for ever. A search that repeats itself asks for the same few again and
        again, and a query costs more than all the rest of a reused trial."""
        known = self._lately.pop(number, None)
        if known is None:
            run = self._store.trial(self._study, number)
            if run.state != State.COMPLETE and not paid(run.verdict):
                return None
            known = self._known_as(None if run.state == State.COMPLETE else run.verdict.reason, run.metrics)
        self._keep(number, known)
        return known

    def _known_as(self, rejected: str | None, metrics: Mapping[str, float]) -> Known:
        names = tuple(sorted(metrics))
        return rejected, self._names.setdefault(names, names), tuple(metrics[name] for name in names)

    def _keep(self, number: int, known: Known) -> None:
        self._lately[number] = known  # the newest at the end
        if len(self._lately) > KEPT:
            del self._lately[next(iter(self._lately))]

    def _same(self, proposal: Asked, identity: str) -> Same:
        """What must be equal for two proposals to be one evaluation."""
        trials = proposal.continues, proposal.transfer
        if proposal.budget is None and trials == (None, None):
            return identity
        continued, begun_with = (None if number is None else self._holder(number) for number in trials)
        return identity, proposal.budget, continued, begun_with
