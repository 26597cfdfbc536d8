"""BANANAS: a surrogate of the objective, an acquisition function, and a pool of mutants that it is maximised over.

White, Neiswanger and Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture
Search", AAAI 2021, Algorithm 1; the acquisition functions are those of its section 4. Deviations: the default
surrogate is a Gaussian process instead of an ensemble of networks, refitted before every proposal; the pool holds
mutants of several of the best, all neighbours of the very best, uniform draws and, where there are scores, the
best-scored; one candidate is proposed at a time; every other one (`local`) is the best neighbour of the best outcome
by the same acquisition function, because a surrogate that is wrongly sure of itself would not look there.

What the surrogate learns are normal scores of ranks, so that one failure does not flatten the differences among the
good; infeasible outcomes rank below the feasible ones, by their violation. Several objectives are joined anew in
every ask with random weights, as in ParEGO (`strategies/targets.py`). Pending trials count as evaluated, with the
mean that the surrogate gives them (the "Kriging believer" of Ginsbourger, Le Riche and Carraro, 2010).

With `proxies` a pool of `scored` architectures is scored once; their ranks are features of the surrogate, and those
of all other architectures are predicted (`strategies/scored_pool.py`), so that no search scores more. With `start`
the search begins with the best-scored of the pool instead of random candidates.

With another study's results (`Setting.prior`) the surrogate is fitted to those first, and what is learned here are the
deviations from it (`predictors/transfer.py`), as long as the two agree; without `start` the search begins with the
best of that study.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy
from pydantic import Field

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.pareto import ranks
from nas_core.seeds import derive, generator
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting
from predictors.surrogate import Problem, Score, Surrogate
from predictors.transfer import Transfer, TransferConfig
from strategies.learned import SurrogateConfig
from strategies.random_search import Taken, sample_new, taken
from strategies.scored_pool import SCORED, ProxyRanks, ScoredPool, sampled, scores_of
from strategies.targets import normal_scores

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

Acquisition = Literal["ucb", "its", "ei"]

ELITE = 4
"""One in so many of the outcomes that are learned from is kept because it is good, the others because recent."""

MOVES = 2
"""Mutations in a row that lead to a mutant of the pool, at most."""

REFERENCE = 256
"""Candidates, sampled where none are scored, that show the surrogate what is usual in the space."""

PRIOR = 1_000
"""Architectures of another study that are learned from, at most."""

NEIGHBOURS = 100
"""Neighbours of one architecture in the pool, at most."""


class Bananas:
    """A proposal's note says whether it is a start, or the best of the pool by the acquisition function."""

    class Config(SurrogateConfig):
        """What is learned, what is proposed, and what the pool holds."""

        acquisition: Acquisition = Field(
            "ucb",
            description='"ucb": mean + kappa * deviation; "its": a draw per candidate (independent Thompson sampling); '
            '"ei": expected improvement',
        )
        kappa: float = Field(2.0, ge=0, le=100, description="deviations that are added to the mean (ucb)")
        initial: int = Field(8, ge=2, le=100_000, description="random candidates before the surrogate is fitted")
        proxies: tuple[str, ...] = Field((), description="scores whose ranks are features of the surrogate")
        start: str | None = Field(
            None, description='begin with the best of a scored pool, by a score or a ranking such as "vote"'
        )
        first: int = Field(5, ge=1, le=100_000, description="how many of them")
        scored: int = Field(SCORED, ge=2, le=SCORED, description="architectures that are scored in all")
        parents: int = Field(10, ge=1, le=1_000, description="outcomes, best first, that are mutated")
        mutants: int = Field(200, ge=0, le=100_000, description="of them in the pool, with one or two mutations each")
        centres: int = Field(3, ge=0, le=1_000, description="outcomes, best first, whose neighbours are in the pool")
        uniform: int = Field(60, ge=1, le=100_000, description="random candidates in the pool")
        top: int = Field(200, ge=0, le=SCORED, description="best-scored architectures, and best of another study")
        local: int = Field(
            2, ge=0, le=1_000, description="one in so many proposals is a neighbour of the best outcome; 0: none"
        )
        history: int = Field(
            300, ge=20, le=10_000, description="outcomes that are learned from: a quarter best, the rest recent"
        )

    uses_prior: ClassVar[bool] = True

    def __init__(self, setting: Setting, config: Config) -> None:
        self._setting = setting
        self._config = config
        self._told = 0
        self._known: set[str] = set()
        self._outcomes: dict[str, Outcome] = {}  # what is learned from, by identity, in the order of the tells
        self._pool = _pool(setting, config)
        self._prior = _prior(setting)
        self.surrogate = _surrogate(setting, config, self._pool, self._prior)

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        setting, serial = self._setting, self._told + len(pending)
        known = taken(setting, self._known, pending)
        starts = self._config.first if self._starts else self._config.initial
        if serial < starts or len(self._outcomes) < 2:
            return self._start(number, known)
        rng = generator(setting.seed, number, "pool")
        targets = self._targets(number)
        local = bool(self._config.local) and serial % self._config.local == 0
        candidates = self._around(targets, known, rng) if local else self._candidates(targets, known, rng)
        if not candidates:
            return self._start(number, known)
        best = self._fit(targets, pending)
        worth = acquire(
            self._config, best, *self.surrogate.predict(candidates), generator(setting.seed, number, "draw")
        )
        return Proposal(candidates[int(numpy.argmax(worth))], note={"role": "acquired"})

    def tell(self, outcome: Outcome) -> None:
        self._told += 1
        identity = self._setting.identity(outcome.proposal.arch)
        self._known.add(identity)
        if outcome.values is None and not outcome.violation:
            return
        self._outcomes.pop(identity, None)  # a candidate is learned once, with its last outcome
        self._outcomes[identity] = outcome
        if len(self._outcomes) > self._config.history:
            self._forget()

    def _forget(self) -> None:
        """Drop the oldest outcome that is not among the best."""
        standing = dict(zip(self._outcomes, ranks(list(self._outcomes.values())), strict=True))
        elite = set(sorted(standing, key=standing.__getitem__)[: self._config.history // ELITE])
        del self._outcomes[next(identity for identity in self._outcomes if identity not in elite)]

    @property
    def _starts(self) -> Sequence[Architecture]:
        """Where to begin, best first."""
        if self._pool is not None and self._config.start is not None:
            return self._pool.best
        return tuple(self._prior)

    def _start(self, number: int, known: Taken) -> Proposal:
        """The best candidate to begin with that is new, or a random one."""
        setting = self._setting
        arch = next((arch for arch in self._starts if not known(setting.identity(arch))), None)
        arch = arch or sample_new(setting, known, generator(setting.seed, number, "start"))
        if arch is None:
            raise Exhausted("every candidate of the space is known")
        return Proposal(arch, note={"role": "start"})

    def _targets(self, number: int) -> dict[Architecture, float]:
        """What the surrogate learns in this ask."""
        rng = generator(self._setting.seed, number, "weights")
        weights = rng.dirichlet([1.0] * len(self._setting.objectives))
        outcomes = list(self._outcomes.values())
        scores = normal_scores(outcomes, weights)
        return {outcome.proposal.arch: score for outcome, score in zip(outcomes, scores, strict=True)}

    def _fit(self, targets: dict[Architecture, float], pending: Sequence[Pending]) -> float:
        """Fit the surrogate, to pending trials too; the best target."""
        self.surrogate.fit(list(targets), list(targets.values()))
        waiting = [trial.proposal.arch for trial in pending if trial.proposal.arch not in targets]
        if waiting:
            believed = dict(zip(waiting, self.surrogate.predict(waiting)[0].tolist(), strict=True))
            self.surrogate.fit([*targets, *believed], [*targets.values(), *believed.values()])
        return max(targets.values())

    def _candidates(self, targets: dict[Architecture, float], known: Taken, rng: Generator) -> list[Architecture]:
        """The pool: different candidates that are not known."""
        return self._new(self._sources(_ordered(targets), rng), known)

    def _around(self, targets: dict[Architecture, float], known: Taken, rng: Generator) -> list[Architecture]:
        """The neighbours that are not known of the best outcome that has any; the pool where none has."""
        for centre in _ordered(targets):
            if found := self._new(self._neighbours(centre, rng), known):
                return found
        return self._candidates(targets, known, rng)

    def _new(self, archs: Iterable[Architecture], known: Taken) -> list[Architecture]:
        found: dict[str, Architecture] = {}
        for arch in archs:
            identity = self._setting.identity(arch)
            if not known(identity):
                found.setdefault(identity, arch)
        return list(found.values())

    def _neighbours(self, centre: Architecture, rng: Generator) -> list[Architecture]:
        around = moves.neighbours(self._setting.space, centre)
        if len(around) <= NEIGHBOURS:
            return around
        return [around[place] for place in rng.choice(len(around), NEIGHBOURS, replace=False)]

    def _sources(self, best: Sequence[Architecture], rng: Generator) -> Iterator[Architecture]:
        """`best`: outcomes, best first."""
        config, space = self._config, self._setting.space
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
            yield from self._neighbours(centre, rng)
        for _ in range(config.uniform):
            yield moves.sample(space, rng)
        if self._pool is not None:
            yield from islice(self._pool.best, config.top)
        yield from islice(self._prior, config.top)


def _ordered(targets: Mapping[Architecture, float]) -> list[Architecture]:
    """Outcomes, best first."""
    return sorted(targets, key=targets.__getitem__, reverse=True)


def acquire(
    config: Bananas.Config, best: float, mean: Floats, deviation: Floats, rng: Generator
) -> NDArray[numpy.float64]:
    """What each candidate is worth, by its prediction; `best` is the best value so far. Shape as `mean`."""
    if config.acquisition == "ucb":
        return numpy.asarray(mean + config.kappa * deviation)
    if config.acquisition == "its":
        return numpy.asarray(mean + deviation * rng.standard_normal(len(mean)))
    from scipy.special import ndtr

    gain = mean - best
    spread = numpy.maximum(deviation, 1e-12)
    density = numpy.exp(-0.5 * (gain / spread) ** 2) / numpy.sqrt(2 * numpy.pi)
    return numpy.asarray(gain * ndtr(gain / spread) + spread * density)


def _pool(setting: Setting, config: Bananas.Config) -> ScoredPool | None:
    """What is scored; None: nothing is. Raises UsageError."""
    by = config.start or next(iter(config.proxies), None)
    return None if by is None else ScoredPool(setting, "bananas", by, config.scored)


def _prior(setting: Setting) -> dict[Architecture, float]:
    """What is known of another study, best first."""
    known = {arch: float(value) for arch, value in setting.prior}
    return dict(sorted(known.items(), key=lambda one: -one[1]))


def _surrogate(
    setting: Setting, config: Bananas.Config, pool: ScoredPool | None, prior: Mapping[Architecture, float]
) -> Surrogate | Transfer:
    """Raises UsageError."""
    reference = sampled(setting, REFERENCE, "reference") if pool is None else pool.archs
    score: Score | None = None
    if pool is not None and config.proxies:
        if not config.takes("proxies"):
            raise UsageError(
                f"strategy: proxies: surrogate '{config.surrogate}' takes no scores; use gp, or leave the proxies out"
            )
        score = ProxyRanks(setting, scores_of(setting, "bananas", *config.proxies), config.proxies, pool.archs)
    settings = {"proxies": config.proxies} if config.proxies else {}
    problem = Problem(setting.space, derive(setting.seed, "surrogate"), score, reference)
    alone = config.make(problem, **settings)
    if len(prior) < 2:
        return alone
    source = config.make(problem, **settings)
    shown = _shown(list(prior), generator(setting.seed, "prior"))
    source.fit(shown, [prior[arch] for arch in shown])
    return Transfer(problem, source, TransferConfig(with_noise=False, proxies=config.proxies), alone)


def _shown(prior: list[Architecture], rng: Generator) -> list[Architecture]:
    """At most `PRIOR` of another study: its best, and others that show what is worse."""
    if len(prior) <= PRIOR:
        return prior
    best = PRIOR // ELITE
    others = rng.choice(numpy.arange(best, len(prior)), PRIOR - best, replace=False)
    return [*prior[:best], *(prior[int(place)] for place in sorted(others.tolist()))]
