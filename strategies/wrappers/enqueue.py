"""Enqueued: named architectures of the space are evaluated first, and another strategy goes on from them.

What Optuna calls `enqueue_trial`. As in `warm_up.py` the inner strategy learns from them as if it had proposed them
itself: each has the note and the budget of the proposal with which a new inner strategy would begin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from nas_core.space import known_by_name
from nas_core.strategy import Outcome, Pending, Proposal, Setting, Snapshots, Transfers
from strategies.wrappers.inner import InnerConfig, adopt


class Enqueue:
    """Named architectures, then another strategy; it has snapshots where that has them."""

    class Config(InnerConfig):
        """What is known, and what follows."""

        inner: str = Field(
            "regularized-evolution", description="strategy that goes on from them: a name, or FILE.py:CLASS"
        )
        names: tuple[str, ...] = Field((), description="of the space's named architectures, in this order")

    def __init__(self, setting: Setting, config: Config) -> None:
        """Raises UsageError for names that the space does not know."""
        self._archs = tuple(known_by_name(setting.space, config.names).values())
        self.inner = config.make(setting)
        self._new = config.make(setting)  # is never told anything
        self._told = 0
        if isinstance(self.inner, Snapshots):
            self.state_dict, self.load_state_dict = self._state_dict, self._load_state_dict
        if isinstance(self.inner, Transfers):
            self.donors = self.inner.donors

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        place = self._told + len(pending)
        if place < len(self._archs):
            begin = self._new.ask(number, ())
            if begin is not None:
                return adopt(self.inner, begin, self._archs[place])
        return self.inner.ask(number, pending)

    def tell(self, outcome: Outcome) -> None:
        self._told += 1
        self.inner.tell(outcome)

    def _state_dict(self) -> dict[str, Any]:
        inner: Any = self.inner
        return {"told": self._told, "inner": inner.state_dict()}

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        inner: Any = self.inner
        self._told = int(state["told"])
        inner.load_state_dict(state["inner"])
