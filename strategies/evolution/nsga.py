"""NSGA-II and NSGA-III: genetic algorithms for several objectives, with constraints by constrained dominance.

NSGA-II: Deb, Pratap, Agarwal and Meyarivan, IEEE TEC 6(2), 2002. Survivors are the best fronts of parents and
offspring; of the front that does not fit, the least crowded. Mating tournaments compare fronts, then crowding.

NSGA-III: Deb and Jain, IEEE TEC 18(4), 2014, with the constraints of Jain and Deb (ibid.) and the niching tournament
of U-NSGA-III (Seada and Deb, IEEE TEC 20(3), 2016), without which one objective would have no selection of parents.
Of the front that does not fit, those survive that lie near reference directions with few members.

With one objective both are (mu + lambda) genetic algorithms. Generations, and how children that are known already are
replaced: `strategies/evolution/genetic.py`. Crossover and mutation are those of the space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from typing import TYPE_CHECKING, Any

import numpy
from pydantic import Field

from nas_core.pareto import crowding, fronts, ranks
from nas_core.strategy import Outcome, Pending, Proposal, Setting
from strategies.evolution.genetic import Beats, Generations, Rates

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

EDGE = 1e-6
"""Weight of the other objectives where an axis' extreme point is sought (Deb and Jain 2014, equation 4)."""


class Nsga2:
    """Fronts and crowding."""

    class Config(Rates):
        """A population of 20 suits some hundreds of evaluations; the paper's 100 some ten thousand."""

        mutation: float = Field(0.5, ge=0, le=1, description="probability that a child is mutated")

    def __init__(self, setting: Setting, config: Config) -> None:
        self._generations = Generations(setting, config, Crowding())

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        return self._generations.ask(number, pending)

    def tell(self, outcome: Outcome) -> None:
        self._generations.tell(outcome)

    def state_dict(self) -> dict[str, Any]:
        return self._generations.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._generations.load_state_dict(state)


class Nsga3:
    """Fronts and reference directions."""

    class Config(Rates):
        """As NSGA-II; the directions follow from the population unless `divisions` is given."""

        mutation: float = Field(0.5, ge=0, le=1, description="probability that a child is mutated")
        divisions: int | None = Field(
            None, ge=1, le=1_000, description="of each objective's axis; by default as many as the population fills"
        )

    def __init__(self, setting: Setting, config: Config) -> None:
        count = len(setting.objectives)
        divisions = config.divisions or _filled(count, config.population)
        self._generations = Generations(setting, config, Niches(directions(count, divisions)))

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        return self._generations.ask(number, pending)

    def tell(self, outcome: Outcome) -> None:
        self._generations.tell(outcome)

    def state_dict(self) -> dict[str, Any]:
        return self._generations.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._generations.load_state_dict(state)


# -- NSGA-II --------------------------------------------------------------------------------------------------


class Crowding:
    """Selection by front, then by crowding distance."""

    def survivors(self, pool: Sequence[Outcome], size: int, rng: Generator) -> list[Outcome]:
        chosen: list[Outcome] = []
        for front in fronts(pool):
            order = numpy.argsort(-_distances(front), kind="stable")[: size - len(chosen)]
            chosen += [front[position] for position in sorted(order.tolist())]
        return chosen

    def beats(self, members: Sequence[Outcome]) -> Beats:
        keys = [(0, 0.0)] * len(members)
        found = numpy.array(ranks(members))
        for rank in set(found.tolist()):
            positions = numpy.flatnonzero(found == rank).tolist()
            for position, distance in zip(positions, _distances([members[p] for p in positions]), strict=True):
                keys[position] = (rank, -float(distance))
        return lambda one, other: keys[one] < keys[other]


def _distances(front: Sequence[Outcome]) -> NDArray[numpy.float64]:
    """Crowding distances of a front; 0 where nothing was measured."""
    if front[0].values is None:
        return numpy.zeros(len(front))
    return crowding([outcome.values or () for outcome in front])


# -- NSGA-III -------------------------------------------------------------------------------------------------


def directions(objectives: int, divisions: int) -> NDArray[numpy.float64]:
    """The points of Das and Dennis (1998): all with coordinates k / divisions that sum to 1.

    Shape `[comb(objectives + divisions - 1, divisions), objectives]`, in lexicographic order.
    """
    points: list[list[int]] = [[]]
    for _ in range(objectives - 1):
        points = [[*point, part] for point in points for part in range(divisions - sum(point) + 1)]
    return numpy.array([[*point, divisions - sum(point)] for point in points]) / divisions


def _filled(objectives: int, population: int) -> int:
    """The most divisions whose directions are no more than the population; at least 1."""
    divisions = 1
    while objectives > 1 and comb(objectives + divisions, divisions + 1) <= population:
        divisions += 1
    return divisions


class Niches:
    """Selection by front, then by how many members share the nearest reference direction.

    `axes`: reference directions `[directions, objectives]`, not negative.
    """

    def __init__(self, axes: NDArray[numpy.float64]) -> None:
        self._axes = axes / numpy.linalg.norm(axes, axis=1, keepdims=True)

    def survivors(self, pool: Sequence[Outcome], size: int, rng: Generator) -> list[Outcome]:
        chosen: list[Outcome] = []
        for front in fronts(pool):
            if len(chosen) + len(front) <= size:
                chosen += front
                continue
            if _placed(front[0]):
                chosen += self._fill(chosen, front, size - len(chosen), rng)
            else:  # of equal violation: the earliest
                chosen += front[: size - len(chosen)]
            break
        return chosen

    def beats(self, members: Sequence[Outcome]) -> Beats:
        """The niching tournament of U-NSGA-III: members of different niches do not beat each other."""
        found = ranks(members)
        placed = [position for position, outcome in enumerate(members) if _placed(outcome)]
        niche: dict[int, int] = {}
        distance: dict[int, float] = {}
        if placed:
            niches, distances = self._associate([members[position] for position in placed])
            niche = dict(zip(placed, niches.tolist(), strict=True))
            distance = dict(zip(placed, distances.tolist(), strict=True))

        def beats(one: int, other: int) -> bool:
            if one in niche and other in niche:
                keys = [(found[position], distance[position]) for position in (one, other)]
                return niche[one] == niche[other] and keys[0] < keys[1]
            return found[one] < found[other]

        return beats

    def _fill(self, chosen: list[Outcome], front: list[Outcome], count: int, rng: Generator) -> list[Outcome]:
        """`count` of the front, one by one from the niche with the fewest members (Algorithm 4)."""
        niches, distances = self._associate([*chosen, *front])
        members = numpy.bincount(niches[: len(chosen)], minlength=len(self._axes))
        niches, distances = niches[len(chosen) :], distances[len(chosen) :]
        left = numpy.ones(len(front), dtype=bool)
        for _ in range(count):
            open_ones = numpy.unique(niches[left])
            fewest = open_ones[members[open_ones] == members[open_ones].min()]
            niche = int(rng.choice(fewest))
            candidates = numpy.flatnonzero(left & (niches == niche))
            nearest = candidates[numpy.argmin(distances[candidates])]
            taken = int(rng.choice(candidates)) if members[niche] else int(nearest)
            left[taken] = False
            members[niche] += 1
        return [outcome for outcome, keep in zip(front, ~left, strict=True) if keep]

    def _associate(self, outcomes: Sequence[Outcome]) -> tuple[NDArray[numpy.int64], NDArray[numpy.float64]]:
        """The nearest direction of each outcome, and its distance from it, after normalisation (Algorithms 2, 3)."""
        places = normalised(numpy.array([outcome.values for outcome in outcomes]))
        along = places @ self._axes.T
        apart = numpy.linalg.norm(places[:, None, :] - along[:, :, None] * self._axes, axis=2)
        nearest = apart.argmin(axis=1)
        return nearest, apart[numpy.arange(len(places)), nearest]


def normalised(values: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Oriented values `[n, objectives]` as distances from the ideal point, 1 at the intercepts of the hyperplane.

    The hyperplane goes through the extreme point of every axis (Deb and Jain 2014, Algorithm 2); where they span
    none, or one that the axes do not meet on their positive side, the worst values take the intercepts' place.
    """
    lost = values.max(axis=0) - values
    count = values.shape[1]
    weights = numpy.where(numpy.eye(count, dtype=bool), 1.0, EDGE)
    extremes = lost[[int((lost / weight).max(axis=1).argmin()) for weight in weights]]
    worst = lost.max(axis=0)
    try:
        planes = numpy.linalg.solve(extremes, numpy.ones(count))
    except numpy.linalg.LinAlgError:
        planes = numpy.zeros(count)
    # An intercept beyond the worst value comes from nearly parallel extremes and would squeeze the axis.
    sound = bool((planes * worst >= 1 - EDGE).all())
    scale = 1 / planes if sound else worst
    return lost / numpy.where(scale > 0, scale, 1.0)


def _placed(outcome: Outcome) -> bool:
    """Whether an outcome is feasible and has a place in the space of objectives."""
    return outcome.values is not None and outcome.violation == 0
