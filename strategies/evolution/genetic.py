"""Parts of genetic algorithms: tournaments, mating, and generations under the contract of ask and tell.

A generation ends when as many outcomes have been told as the population has members; survivors are then chosen
from parents and offspring. With one trial at a time that is the textbook's loop. With several in flight nothing
waits: what is asked before the last outcome of a generation has come is bred from the population that there is,
and competes in the generation in which its outcome comes.

No offspring is wasted: a child whose identity is known or pending is mutated again, up to `TRIES` times; then a
random candidate takes its place, and the search is exhausted when there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.config import Config
from nas_core.pareto import ranks
from nas_core.seeds import generator
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting
from strategies.basic.random_search import Known, known_to, sample_new
from strategies.parts.outcomes import restored, stored

if TYPE_CHECKING:
    from numpy.random import Generator

TRIES = 64
"""Mutations in a row that may lead to known candidates."""

Beats = Callable[[int, int], bool]
"""Whether the member at the first position beats the one at the second."""


class Rates(Config):
    """What every genetic algorithm can be told."""

    population: int = Field(20, ge=2, le=100_000, description="members of the population (P)")
    crossover: float = Field(0.9, ge=0, le=1, description="probability that parents are crossed over, not copied")
    mutation: float = Field(0.2, ge=0, le=1, description="probability that a child is mutated")


class Selection(Protocol):
    """What tells genetic algorithms apart."""

    def survivors(self, pool: Sequence[Outcome], size: int, rng: Generator) -> list[Outcome]:
        """`size` of the pool, or all where it is smaller: parents, then offspring in the order of their tells."""
        ...

    def beats(self, members: Sequence[Outcome]) -> Beats:
        """The order in which members are compared in a mating tournament."""
        ...


def tournament(count: int, beats: Beats, rng: Generator) -> int:
    """Binary tournament: the better of two distinct members of `count`, drawn uniformly; of equals the first drawn.

    A single member wins.
    """
    if count == 1:
        return 0
    one, other = (int(position) for position in rng.choice(count, 2, replace=False))
    return other if beats(other, one) else one


def couple(count: int, beats: Beats, rng: Generator) -> tuple[int, int]:
    """Two distinct parents: the winner of a tournament, and that of a tournament among the others.

    A single member is both.
    """
    if count == 1:
        return 0, 0
    one = tournament(count, beats, rng)
    others = [position for position in range(count) if position != one]
    return one, others[tournament(count - 1, lambda a, b: beats(others[a], others[b]), rng)]


class Tournaments:
    """Survival by tournament: the first outcome that nothing beats, then winners of binary tournaments.

    A winner leaves the pool, so nothing survives twice. Outcomes are compared by their fronts, which with one
    objective and no constraint is by value.
    """

    def survivors(self, pool: Sequence[Outcome], size: int, rng: Generator) -> list[Outcome]:
        found = ranks(pool)
        left = list(range(len(pool)))
        chosen: list[int] = []
        while left and len(chosen) < size:
            if chosen:
                winner = tournament(len(left), lambda a, b: found[left[a]] < found[left[b]], rng)
            else:
                winner = found.index(0)
            chosen.append(left.pop(winner))
        return [pool[position] for position in sorted(chosen)]

    def beats(self, members: Sequence[Outcome]) -> Beats:
        found = ranks(members)
        return lambda one, other: found[one] < found[other]


class Generations:
    """The generations of one search; a strategy passes its asks and tells on to it.

    `population`: the survivors of the last generation, empty during the first. A child's note names its parents:
    `of`, and `with` where they were crossed over.
    """

    def __init__(self, setting: Setting, rates: Rates, selection: Selection) -> None:
        self.population: list[Outcome] = []
        self._setting = setting
        self._rates = rates
        self._selection = selection
        self._variation = moves.variation(setting.space)
        self._offspring: list[Outcome] = []  # told since the last survival; failed trials are left out
        self._beats = selection.beats([])
        self._known: set[str] = set()
        self._told = 0

    def ask(self, number: int, pending: Sequence[Pending], litter: int = 0) -> Proposal:
        """The next offspring; never waits. Other litters come from other couples. Raises Exhausted."""
        serial = self._told + len(pending)
        known = known_to(self._setting, self._known, pending)
        if serial < self._rates.population or not self._parents:
            return self._founder(number, known)
        # Two children of a couple are asked one after the other: both asks draw the same couple.
        words = (litter,) if litter else ()
        child, note = self._children(generator(self._setting.seed, serial // 2, "couple", *words))[serial % 2]
        rng = generator(self._setting.seed, number, "child", *words)
        if rng.random() < self._rates.mutation:
            child = self._mutated(child, rng) or child
        for _ in range(TRIES):
            if not known(self._setting.identity(child)):
                return Proposal(child, note=note)
            mutant = self._mutated(child, rng)
            if mutant is None:
                break
            child = mutant
        return self._founder(number, known)

    def tell(self, outcome: Outcome) -> None:
        """Take in an outcome; every `population` of them a generation ends."""
        self._known.add(self._setting.identity(outcome.proposal.arch))
        self._told += 1
        if outcome.values is not None or outcome.violations:
            self._offspring.append(outcome)
        ended = self._told % self._rates.population == 0
        if ended:
            rng = generator(self._setting.seed, self._told, "survivors")
            pool = [*self.population, *self._offspring]
            self.population = self._selection.survivors(pool, self._rates.population, rng)
            self._offspring = []
        if ended or not self.population:
            self._beats = self._selection.beats(self._parents)

    def state_dict(self) -> dict[str, Any]:
        return {
            "population": [stored(one) for one in self.population],
            "offspring": [stored(one) for one in self._offspring],
            "known": sorted(self._known),
            "told": self._told,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.population = [restored(one) for one in state["population"]]
        self._offspring = [restored(one) for one in state["offspring"]]
        self._known, self._told = set(state["known"]), int(state["told"])
        self._beats = self._selection.beats(self._parents)

    @property
    def _parents(self) -> list[Outcome]:
        """The population, or what has been told of the first generation while that is not complete."""
        return self.population or self._offspring

    def _founder(self, number: int, known: Known) -> Proposal:
        rng = generator(self._setting.seed, number, "founder")
        arch = sample_new(self._setting, known, rng)
        if arch is None:
            raise Exhausted("every candidate of the space is known")
        return Proposal(arch, note={"role": "founder"})

    def _children(self, rng: Generator) -> list[tuple[Architecture, dict[str, str | int]]]:
        """The two children of a couple, with their notes."""
        parents = self._parents
        one, other = (parents[position] for position in couple(len(parents), self._beats, rng))
        if rng.random() >= self._rates.crossover:
            return [(parent.proposal.arch, {"role": "child", "of": parent.number}) for parent in (one, other)]
        first, second = self._variation.crossover(one.proposal.arch, other.proposal.arch, rng)
        return [
            (first, {"role": "child", "of": one.number, "with": other.number}),
            (second, {"role": "child", "of": other.number, "with": one.number}),
        ]

    def _mutated(self, arch: Architecture, rng: Generator) -> Architecture | None:
        """None where the space leaves nothing to mutate."""
        try:
            return self._variation.mutate(arch, rng)
        except ValueError:
            return None
