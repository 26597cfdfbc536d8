"""BANANAS: a surrogate of the objective, an acquisition function, and a pool of mutants that it is maximised over.

White, Neiswanger and Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture
Search", AAAI 2021, Algorithm 1; the acquisition functions are those of its section 4. Deviations: the default
surrogate is a Gaussian process instead of an ensemble of networks, refitted before every proposal; the pool holds
mutants of several of the best, all neighbours of the very best, uniform draws and, where there are scores, the
best-scored; one candidate is proposed at a time; every other one (`local`) is the best neighbour of the best outcome
by the same acquisition function, because a surrogate that is wrongly sure of itself would not look there.

What is learned, from scores and from other studies too, and how a search begins:
`strategies/model_based/surrogate_search.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.seeds import generator
from nas_core.strategy import Outcome, Pending, Proposal, Setting
from strategies.model_based.surrogate_search import SurrogateSearch, SurrogateSearchConfig, neighbours, ordered

if TYPE_CHECKING:
    from numpy.random import Generator

MOVES = 2
"""Mutations in a row that lead to a mutant of the pool, at most."""


class Bananas:
    """A proposal's note says whether it is a start, or the best of the pool by the acquisition function."""

    class Config(SurrogateSearchConfig):
        """What is learned, what is proposed, and what the pool holds."""

        parents: int = Field(10, ge=1, le=1_000, description="outcomes, best first, that are mutated")
        mutants: int = Field(200, ge=0, le=100_000, description="of them in the pool, with one or two mutations each")
        centres: int = Field(3, ge=0, le=1_000, description="outcomes, best first, whose neighbours are in the pool")
        uniform: int = Field(60, ge=1, le=100_000, description="random candidates in the pool")
        local: int = Field(
            2, ge=0, le=1_000, description="one in so many proposals is a neighbour of the best outcome; 0: none"
        )

    uses_warm_start: ClassVar[bool] = True

    def __init__(self, setting: Setting, config: Config) -> None:
        self._setting = setting
        self._config = config
        self._search = SurrogateSearch(setting, config, "bananas")
        self.surrogate = self._search.surrogate

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        search, local = self._search, self._config.local
        known = search.known(pending)
        if search.begins(pending):
            return search.start(number, known)
        rng = generator(self._setting.seed, number, "pool")
        targets = search.targets(number)
        best = ordered(targets)
        near = bool(local) and (search.told + len(pending)) % local == 0
        candidates = (near and search.around(best, known, rng)) or search.new(self._sources(best, rng), known)
        if not candidates:
            return search.start(number, known)
        return Proposal(search.best(candidates, targets, pending, number), note={"role": "acquired"})

    def tell(self, outcome: Outcome) -> None:
        self._search.tell(outcome)

    def _sources(self, best: Sequence[Architecture], rng: Generator) -> Iterator[Architecture]:
        """The pool; `best`: outcomes, best first."""
        config, space, search = self._config, self._setting.space, self._search
        variation = moves.variation(space)
        parents = best[: config.parents]
        for _ in range(config.mutants):
            arch = parents[int(rng.integers(len(parents)))]
            try:
                for _ in range(1 + int(rng.integers(MOVES))):
                    arch = variation.mutate(arch, rng)
            except ValueError:  # the space leaves nothing to mutate
                continue
            yield arch
        for centre in best[: config.centres]:
            yield from neighbours(space, centre, rng)
        for _ in range(config.uniform):
            yield moves.sample(space, rng)
        if search.pool is not None:
            yield from islice(search.pool.best, config.top)
        yield from islice(search.warm_start, config.top)
