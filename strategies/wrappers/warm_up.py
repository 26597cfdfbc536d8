"""Warm-up: the first candidates are the best-scored of a random pool, and another strategy goes on from them.

Abdelfattah, Mehrotra, Dudziak and Lane, "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, section 4: many random
architectures are scored, and the search starts from the best of them.

The inner strategy learns from them as if it had proposed them itself: each has the note and the budget of the
proposal with which a new inner strategy would begin, which makes it a founder of a population, the start of a climb,
or a draw from a policy that has not learned yet. Where a note depends on the architecture the strategy writes it
(`strategies/wrappers/inner.py`). The inner strategy is asked once `first` proposals were made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from nas_core.strategy import Outcome, Pending, Proposal, Setting, Snapshots, Transfers
from strategies.basic.random_search import known_to
from strategies.parts.scored_pool import SCORED, ScoredPool
from strategies.wrappers.inner import InnerConfig, adopt


class WarmUp:
    """The best of a pool, then another strategy; it has snapshots where that has them."""

    class Config(InnerConfig):
        """The pool, and what follows."""

        inner: str = Field(
            "regularized-evolution", description="strategy that goes on from them: a name, or FILE.py:CLASS"
        )
        predictor: str = Field("vote", description='a score, or a ranking of the pool such as "vote"')
        pool: int = Field(300, ge=1, le=100_000, description="random candidates that are scored")
        first: int = Field(10, ge=1, le=SCORED, description="of them, best first, that are evaluated")

    def __init__(self, setting: Setting, config: Config) -> None:
        """Raises UsageError for a setting without the predictor's scores."""
        self._setting, self._first = setting, config.first
        self._pool = ScoredPool(setting, "warm-up", config.predictor, config.pool)
        self.inner = config.make(setting)
        self._new = config.make(setting)  # is never told anything
        self._known: set[str] = set()
        self._told = 0
        if isinstance(self.inner, Snapshots):
            self.state_dict, self.load_state_dict = self._state_dict, self._load_state_dict
        if isinstance(self.inner, Transfers):
            self.donors = self.inner.donors

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        if self._told + len(pending) < self._first:
            known = known_to(self._setting, self._known, pending)
            begin = self._new.ask(number, ())
            arch = next((arch for arch in self._pool.best if not known(self._setting.identity(arch))), None)
            if arch is not None and begin is not None:
                return adopt(self.inner, begin, arch)
        return self.inner.ask(number, pending)

    def tell(self, outcome: Outcome) -> None:
        self._told += 1
        if self._told < self._first:
            self._known.add(self._setting.identity(outcome.proposal.arch))
        self.inner.tell(outcome)

    def _state_dict(self) -> dict[str, Any]:
        inner: Any = self.inner
        return {"told": self._told, "known": sorted(self._known), "inner": inner.state_dict()}

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        inner: Any = self.inner
        self._told, self._known = int(state["told"]), set(state["known"])
        inner.load_state_dict(state["inner"])
