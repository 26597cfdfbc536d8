"""Why a search ends."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from nas_core.records import StopAt
from nas_core.strategy import State

REUSED_IN_A_ROW = 1_000
REJECTED_IN_A_ROW = 10_000


class Ending(StrEnum):
    """Why a search ended."""

    TRIALS = "all trials are done"
    TIME = "the time is over"
    SPENT = "the budget is spent"
    EXHAUSTED = "there is nothing left to try"
    REJECTED = f"{REJECTED_IN_A_ROW:,} candidates in a row were rejected"
    INTERRUPTED = "interrupted"
    DERIVED = "what the supernet derived is evaluated"
    SUPERNET = "the supernet is trained"


def reached(stop_at: StopAt, trials: int, spent: float, streak: Mapping[State, int]) -> Ending | None:
    """The end that a search has come to by its `trials`, what it has `spent`, or a `streak` that taught nothing."""
    if stop_at.trials is not None and trials >= stop_at.trials:
        return Ending.TRIALS
    if stop_at.spent is not None and spent >= stop_at.spent - 1e-9:
        return Ending.SPENT
    if streak[State.REUSED] >= REUSED_IN_A_ROW:
        return Ending.EXHAUSTED
    return Ending.REJECTED if streak[State.REJECTED] >= REJECTED_IN_A_ROW else None
