"""The folders of trials: made for an evaluation, kept while a training may go on, removed after."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from nas_core.evaluation import Fidelity
from nas_core.failures import ATTEMPTS
from nas_core.strategy import Proposal, State
from studies.records import Study
from studies.search.trial import Asked, Told
from studies.store.store import Store
from training.transfer import BEGINS_WITH, LEAVES, bring

T = TypeVar("T")


class Workdirs:
    """The folders of a study's trials, of an evaluator of this fidelity. `keeps`: what trials have learned stays there
    while a later one may begin with it."""

    def __init__(self, store: Store, study: Study, fidelity: Fidelity | None, keeps: bool) -> None:
        self._store, self._study, self._fidelity, self.keeps = store, study, fidelity, keeps
        self._donors: set[int] = set()  # trials whose weights are there
        self._root = store.folder(study)
        self._holders: dict[int, int] = {}  # of trials that reuse another one's result, where trainings go on
        self._kept: set[int] = set()  # trials whose training may go on

    def of(self, number: int) -> Path:
        return self._root / f"trial-{number}"

    def learn(self, told: Told) -> None:
        """Take in a trial that has ended, whether it was told yet or not."""
        if self.keeps and told.state == State.COMPLETE:
            self._donors.add(told.number)
        if self._fidelity is None or not self._fidelity.continues:
            return
        if told.state == State.REUSED and told.reuses is not None:
            self._holders[told.number] = told.reuses
        if self.continuable(told, told.state):
            self._kept.add(told.number)
        if told.continues is not None and told.state == State.COMPLETE:
            self._kept.discard(self.holder(told.continues))

    def holder(self, number: int) -> int:
        """The trial that has the files of a told trial: itself, or the one whose result it reuses."""
        if self._fidelity is not None and self._fidelity.continues:
            return self._holders.get(number, number)
        run = self._store.trial(self._study, number)
        return run.reuses if run.state == State.REUSED and run.reuses is not None else number

    def origin(self, number: int, proposal: Proposal) -> int:
        """The trial with which a training began: what it draws at random stays the same when it goes on."""
        while proposal.continues is not None:
            number = self.holder(proposal.continues)
            proposal = self._store.trial(self._study, number).proposal
        return number

    def prepared(self, number: int, proposal: Proposal) -> Path:
        """The folder in which a proposal is evaluated, with the checkpoint of the trial that it continues. Without one
        the training starts over, to the same result."""
        workdir = self.of(number)
        if proposal.continues is not None:
            from training.checkpoint import adopt

            before = self.of(self.holder(proposal.continues))
            adopt(before, workdir)
            bring(before / BEGINS_WITH, workdir / BEGINS_WITH)
        if proposal.transfer is not None:
            bring(self.of(self.holder(proposal.transfer)) / LEAVES, workdir / BEGINS_WITH)
        return workdir

    def keep_weights_of(self, numbers: Collection[int]) -> None:
        """Remove what trials have learned that nobody begins with any more: all but these."""
        gone = self._donors.difference(map(self.holder, numbers))
        self._donors -= gone
        for number in gone:
            (self.of(number) / LEAVES).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a checkpoint is there too
                self.of(number).rmdir()

    def continuable(self, proposal: Asked, state: State) -> bool:
        """Whether a strategy may ask for more of a finished training."""
        fidelity = self._fidelity
        if state != State.COMPLETE or fidelity is None or not fidelity.continues:
            return False
        return proposal.budget is not None and proposal.budget < fidelity.high

    def release(self, number: int, proposal: Proposal, state: State) -> None:
        """Remove what nobody needs once a trial has ended so."""
        complete = state == State.COMPLETE
        if not self.continuable(proposal, state):
            self._clear(number, weights=self.keeps and complete)
        if proposal.continues is not None and complete:
            before = self.holder(proposal.continues)
            self._clear(before, weights=before in self._donors)

    def _clear(self, number: int, *, weights: bool) -> None:
        """Remove a folder, or all of it but what was learned."""
        if not weights:
            shutil.rmtree(self.of(number), ignore_errors=True)
            return
        for path in self.of(number).glob("*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LEAVES:
                path.unlink(missing_ok=True)

    def sweep(self, unfinished: Collection[int], end: int) -> None:
        """Remove what killed processes left of trials before number `end`, but of those that are unfinished, or whose
        training may go on, or whose weights another one may begin with."""
        kept = self._kept.union(unfinished, self._donors)
        for child in self._root.glob("trial-*"):
            number = child.name.removeprefix("trial-")
            if number.isdecimal() and int(number) < end and int(number) not in kept:
                shutil.rmtree(child, ignore_errors=True)

    def attempt(self, key: str, work: Callable[[], T]) -> T | int:
        """What `work` answers, or the number of processes that have ended in it, where those are too many: nothing is
        stored of candidate `key` yet, and whatever code a user wrote may be at work, so they are counted in a file."""
        mark = self._root / "judging"
        known, _, tries = mark.read_text().partition(" ") if mark.is_file() else ("", "", "")
        ended = int(tries) if known == key and tries.isdecimal() else 0
        if ended >= ATTEMPTS:
            return ended
        with contextlib.suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(f"{key} {ended + 1}")
        try:
            return work()
        finally:
            mark.unlink(missing_ok=True)
