"""Order among outcomes: feasibility first, then Pareto dominance."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nas_core.strategy import Outcome


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is nowhere worse and somewhere better (higher is better)."""
    pairs = list(zip(one, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def better(one: Outcome, other: Outcome) -> bool:
    """Deb's rule (Deb et al. 2002, Definition 1): less violation first, then dominance.

    An outcome without values is worse than one with values of the same violation; a failed one, of which
    nothing is known, is worse than all others.
    """
    mine, theirs = _violation(one), _violation(other)
    if mine != theirs:
        return mine < theirs
    if one.values is None or other.values is None:
        return one.values is not None and other.values is None
    return dominates(one.values, other.values)


def _violation(outcome: Outcome) -> float:
    failed = outcome.values is None and not outcome.violations
    return math.inf if failed else outcome.violation


def best(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome that is beaten by the fewest others; the first of equals. Raises ValueError when empty."""
    if not outcomes:
        raise ValueError("no outcome to choose from")
    return min(outcomes, key=lambda outcome: sum(better(other, outcome) for other in outcomes))


def front(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The feasible, measured outcomes that no other dominates, in the given order; O(n^2)."""
    feasible = [outcome for outcome in outcomes if outcome.values is not None and outcome.violation == 0]
    return [outcome for outcome in feasible if not any(better(other, outcome) for other in feasible)]
