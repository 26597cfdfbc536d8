"""Order among outcomes: feasibility first, then Pareto dominance.

Points are rows of oriented values: higher is better in every column. Fronts are those of Deb, Pratap, Agarwal and
Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE TEC 6(2), 2002: front 0 is dominated
by nothing, front k by members of the fronts before it only.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy

from nas_core.strategy import Outcome

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is nowhere worse and somewhere better (higher is better)."""
    better = False
    for a, b in zip(one, other, strict=True):
        if not a >= b:  # nan too
            return False
        better |= a > b
    return better


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
    """The first outcome that no other beats. Raises ValueError when empty."""
    if not outcomes:
        raise ValueError("no outcome to choose from")
    return next(outcome for outcome in outcomes if not any(better(other, outcome) for other in outcomes))


def front(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The feasible, measured outcomes that no other dominates, in the given order."""
    feasible = [outcome for outcome in outcomes if outcome.values is not None and outcome.violation == 0]
    if not feasible:
        return []
    kept = undominated(numpy.array([outcome.values for outcome in feasible]))
    return [outcome for outcome, keep in zip(feasible, kept.tolist(), strict=True) if keep]


def ranks(outcomes: Sequence[Outcome]) -> list[int]:
    """The front of every outcome, from 0, by constrained dominance (`better`).

    All fronts of a smaller violation come before those of a larger one; within one violation those with values
    come first, and outcomes without values share a front.
    """
    levels: dict[tuple[float, bool], list[int]] = {}
    for position, outcome in enumerate(outcomes):
        levels.setdefault((_violation(outcome), outcome.values is None), []).append(position)
    found = [0] * len(outcomes)
    start = 0
    for (_, unmeasured), positions in sorted(levels.items()):
        within = numpy.zeros(len(positions), dtype=int)
        if not unmeasured:
            within = layers(numpy.array([outcomes[position].values for position in positions]))
        for position, layer in zip(positions, within.tolist(), strict=True):
            found[position] = start + layer
        start += int(within.max()) + 1
    return found


def fronts(outcomes: Sequence[Outcome]) -> list[list[Outcome]]:
    """The outcomes by front (see `ranks`), best front first; each in the given order."""
    found = ranks(outcomes)
    result: list[list[Outcome]] = [[] for _ in range(max(found, default=-1) + 1)]
    for outcome, rank in zip(outcomes, found, strict=True):
        result[rank].append(outcome)
    return result


# -- points ---------------------------------------------------------------------------------------------------


def undominated(points: ArrayLike) -> NDArray[numpy.bool_]:
    """Which of the points `[n, objectives]` no other dominates; equal points stand or fall together.

    O(n log n) for one and two objectives, O(n * size of the front) for more.
    """
    values, back = _unique(points)
    kept = numpy.zeros(len(values), dtype=bool)
    if len(values) and values.shape[1] <= 2:
        # In falling order of the first value a point is dominated when the second has been reached before.
        reached = numpy.maximum.accumulate(values[:, -1])
        kept[0] = True
        kept[1:] = values[1:, -1] > reached[:-1]
        return kept[back]
    left = numpy.arange(len(values))
    while len(left):
        first = left[0]  # nothing that comes later in falling order can dominate it
        kept[first] = True
        left = left[~(values[left] <= values[first]).all(axis=1)]
    return kept[back]


def layers(points: ArrayLike) -> NDArray[numpy.int64]:
    """The front, from 0, of each of the points `[n, objectives]`.

    O(n log n) for one and two objectives, O(objectives * n^2) for more.
    """
    values, back = _unique(points)
    found = numpy.zeros(len(values), dtype=numpy.int64)
    if len(values) and values.shape[1] <= 2:
        # The largest second value of every front so far, negated; it falls from front to front.
        tails: list[float] = []
        for position, second in enumerate((-values[:, -1]).tolist()):
            layer = bisect_right(tails, second)
            tails[layer : layer + 1] = [second]
            found[position] = layer
        return found[back]
    left = numpy.arange(len(values))
    layer = 0
    while len(left):
        kept = undominated(values[left])
        found[left[kept]] = layer
        left = left[~kept]
        layer += 1
    return found[back]


def crowding(points: ArrayLike) -> NDArray[numpy.float64]:
    """Crowding distance of each of the points `[n, objectives]` of one front (Deb et al. 2002, Section III-B).

    Per objective, the distance between the two neighbours divided by the range; infinite at both ends. Of equal
    points the first has the distance, the others have 0.
    """
    given = numpy.asarray(points, dtype=float)
    values, back = _unique(given)
    distance = numpy.zeros(len(values))
    for column in values.T:
        order = numpy.argsort(column, kind="stable")
        ordered = column[order]
        spread = ordered[-1] - ordered[0]
        if spread > 0:
            distance[order[1:-1]] += (ordered[2:] - ordered[:-2]) / spread
            distance[order[[0, -1]]] = math.inf
    if len(values) == 1:
        distance[:] = math.inf
    found = numpy.zeros(len(given))
    _, first = numpy.unique(back, return_index=True)
    found[first] = distance
    return found


def _unique(points: ArrayLike) -> tuple[NDArray[numpy.float64], NDArray[numpy.int64]]:
    """The distinct points in falling lexicographic order, and the row of each given point among them."""
    values = numpy.asarray(points, dtype=float)
    rising, back = numpy.unique(values, axis=0, return_inverse=True)
    return rising[::-1], len(rising) - 1 - back.reshape(-1)


# -- hypervolume ----------------------------------------------------------------------------------------------


def hypervolume(points: ArrayLike, reference: Sequence[float]) -> float:
    """The volume that the points `[n, objectives]` dominate and that lies above the reference point; exact.

    The sum of what each point adds to the ones after it, as in the WFG algorithm (While, Bradstreet and Barone, "A
    Fast Way of Calculating Exact Hypervolumes", IEEE TEC 16(1), 2012), in rising order of the last objective: what
    is added then has one dimension less. Two objectives are one sweep. Points that are not above the reference in
    every objective add nothing. Raises ValueError for values that are not finite, and where the shapes do not fit.
    """
    corner, values = numpy.asarray(reference, dtype=float), numpy.asarray(points, dtype=float)
    if not values.size:
        return 0.0
    if corner.ndim != 1 or values.ndim != 2 or values.shape[1] != len(corner):
        raise ValueError(f"points of shape {values.shape} do not fit a reference of shape {corner.shape}")
    if not (numpy.isfinite(values).all() and numpy.isfinite(corner).all()):
        raise ValueError("points and reference must be finite numbers")
    return _volume(values[(values > corner).all(axis=1)] - corner)


def _volume(extents: NDArray[numpy.float64]) -> float:
    """Volume of the union of the boxes from the origin to each of the points."""
    if not len(extents):
        return 0.0
    if extents.shape[1] == 1:
        return float(extents.max())
    kept = numpy.unique(extents[undominated(extents)], axis=0)
    if extents.shape[1] == 2:
        # The first value rises and the second falls: one column of the staircase per point.
        return float((kept[:, 1] * numpy.diff(kept[:, 0], prepend=0.0)).sum())
    kept = kept[numpy.argsort(kept[:, -1], kind="stable")]
    total = 0.0
    for position, point in enumerate(kept):
        base, others = point[:-1], kept[position + 1 :, :-1]
        total += float(point[-1]) * (float(base.prod()) - _volume(numpy.minimum(others, base)))
    return total
