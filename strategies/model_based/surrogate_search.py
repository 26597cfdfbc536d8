"""What searches with a surrogate share: what is learned of outcomes, how to begin, and which candidate is worth most.

A surrogate (`predictors/surrogate.py`) learns normal scores of ranks, so that one failure does not flatten the
differences among the good; infeasible outcomes rank below the feasible ones, by their violation. Several objectives are
joined anew in every ask with random weights, as in ParEGO (`strategies/parts/targets.py`). Pending trials count as
evaluated, with the mean that the surrogate gives them (the "Kriging believer" of Ginsbourger, Le Riche and Carraro,
2010).

With `proxies` a pool of `scored` architectures is scored once; their ranks are features of the surrogate, and those of
all other architectures are predicted (`strategies/parts/scored_pool.py`), so that no search scores more. With `start`
the search begins with the best-scored of the pool instead of random candidates.

With another study's results (`Setting.warm_start`) the surrogate is fitted to those first, and what is learned here are
the deviations from it (`predictors/transfer.py`), as long as the two agree; without `start` the search begins with the
best of that study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy
from pydantic import Field

from nas_core import moves, tokens
from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.pareto import ranks
from nas_core.seeds import derive, generator
from nas_core.space import SearchSpace
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, State
from predictors.surrogate import Problem, Score, Surrogate
from predictors.transfer import Transfer, TransferConfig
from strategies.basic.random_search import Known, known_to, sample_new
from strategies.model_based.surrogate_config import SurrogateConfig
from strategies.parts.scored_pool import SCORED, ProxyRanks, ScoredPool, sampled, scores_of
from strategies.parts.targets import normal_scores

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

Acquisition = Literal["ucb", "its", "ei", "pi"]

ELITE = 4
"""One in so many of the outcomes that are learned from is kept because it is good, the others because recent."""

REFERENCE = 256
"""Candidates, sampled where none are scored, that show the surrogate what is usual in the space."""

NEIGHBOURS = 100
"""Neighbours of one architecture that are compared, at most."""

WARM_START = 1_000
"""Architectures of another study that are learned from, at most."""


class SurrogateSearchConfig(SurrogateConfig):
    """What is learned, how the search begins, and what a candidate is worth."""

    acquisition: Acquisition = Field(
        "ucb",
        description='"ucb": mean + kappa * deviation; "its": a draw per candidate (independent Thompson sampling); '
        '"ei": expected improvement; "pi": probability of improvement',
    )
    kappa: float = Field(2.0, ge=0, le=100, description="deviations that are added to the mean (ucb)")
    initial: int = Field(8, ge=2, le=100_000, description="random candidates before the surrogate is fitted")
    proxies: tuple[str, ...] = Field((), description="scores whose ranks are features of the surrogate")
    start: str | None = Field(
        None, description='begin with the best of a scored pool, by a score or a ranking such as "vote"'
    )
    first: int = Field(5, ge=1, le=100_000, description="how many of them")
    scored: int = Field(SCORED, ge=2, le=SCORED, description="architectures that are scored in all")
    top: int = Field(200, ge=0, le=SCORED, description="best-scored architectures, and best of another study")
    history: int = Field(
        300, ge=20, le=10_000, description="outcomes that are learned from: a quarter best, the rest recent"
    )


@dataclass(frozen=True)
class Round:
    """What a pool is generated from: outcomes with their targets, after `told` of them."""

    told: int
    targets: dict[Architecture, float]


class SurrogateSearch:
    """What a search has been told, and what follows for candidates. `who` is the strategy, for its errors.

    `pool` are the scored candidates where there are any, `warm_start` what another study found, best first.
    """

    def __init__(self, setting: Setting, config: SurrogateSearchConfig, who: str) -> None:
        self._setting = setting
        self._config = config
        self.told = 0
        self._known: set[str] = set()
        self.outcomes: dict[str, Outcome] = {}  # what is learned from, by identity, in the order of the tells
        self.pool = _pool(setting, config, who)
        self.warm_start = _warm_start(setting)
        self.surrogate, self.source = _surrogates(setting, config, self.pool, self.warm_start, who)

    def tell(self, outcome: Outcome) -> None:
        self.told += 1
        identity = self._setting.identity(outcome.proposal.arch)
        self._known.add(identity)
        if outcome.values is None and not outcome.violation:
            return
        self.outcomes.pop(identity, None)  # a candidate is learned once, with its last outcome
        self.outcomes[identity] = outcome
        if len(self.outcomes) > self._config.history:
            self._forget()

    def _forget(self) -> None:
        """Drop the oldest outcome that is not among the best."""
        standing = dict(zip(self.outcomes, ranks(list(self.outcomes.values())), strict=True))
        elite = set(sorted(standing, key=standing.__getitem__)[: self._config.history // ELITE])
        del self.outcomes[next(identity for identity in self.outcomes if identity not in elite)]

    def known(self, pending: Sequence[Pending]) -> Known:
        """Whether an identity has been told or is pending."""
        return known_to(self._setting, self._known, pending)

    @property
    def starts(self) -> int:
        """With how many candidates the search begins before it goes by what it learned."""
        return self._config.first if self.warm_start or self._config.start is not None else self._config.initial

    def begins(self, pending: Sequence[Pending]) -> bool:
        """Whether there is too little to learn from."""
        return self.told + len(pending) < self.starts or len(self.outcomes) < 2

    @property
    def transfers(self) -> bool:
        """Whether the search begins with what another study has taught, and not with the best-scored."""
        return self.source is not None and self._config.start is None

    @property
    def _starts(self) -> Sequence[Architecture]:
        """Where to begin, best first."""
        if self.pool is not None and self._config.start is not None:
            return self.pool.best
        return tuple(self.warm_start)

    def start(self, number: int, known: Known) -> Proposal:
        """The best candidate to begin with that is new, or a random one. Raises Exhausted."""
        setting = self._setting
        arch = next((arch for arch in self._starts if not known(setting.identity(arch))), None)
        arch = arch or sample_new(setting, known, generator(setting.seed, number, "start"))
        if arch is None:
            raise Exhausted("every candidate of the space is known")
        return Proposal(arch, note={"role": "start"})

    def targets(self, *words: int | str) -> dict[Architecture, float]:
        """What the surrogate learns; the words seed how several objectives are weighed."""
        if not self.outcomes:
            return {}
        rng = generator(self._setting.seed, *words, "weights")
        weights = rng.dirichlet([1.0] * len(self._setting.objectives))
        outcomes = list(self.outcomes.values())
        scores = normal_scores(outcomes, weights)
        return {outcome.proposal.arch: score for outcome, score in zip(outcomes, scores, strict=True)}

    def round(self) -> Round:
        """All that was told."""
        return Round(self.told, self.targets(self.told))

    def new(self, archs: Iterable[Architecture], known: Known) -> list[Architecture]:
        """Different candidates that are not known."""
        found: dict[str, Architecture] = {}
        for arch in archs:
            identity = self._setting.identity(arch)
            if not known(identity):
                found.setdefault(identity, arch)
        return list(found.values())

    def around(self, best: Sequence[Architecture], known: Known, rng: Generator) -> list[Architecture]:
        """The neighbours that are not known of the best outcome that has any; `best`: outcomes, best first."""
        for centre in best:
            if found := self.new(neighbours(self._setting.space, centre, rng), known):
                return found
        return []

    def best(
        self,
        candidates: Sequence[Architecture],
        targets: dict[Architecture, float],
        pending: Sequence[Pending],
        number: int,
    ) -> Architecture:
        """The candidate that is worth most, by a surrogate that is fitted to the targets; with less than two of them
        by what another study has taught."""
        if self.source is not None and len(targets) < 2:
            return candidates[int(numpy.argmax(self.source.predict(candidates)[0]))]
        best = self._fit(targets, pending)
        rng = generator(self._setting.seed, number, "draw")
        return candidates[int(numpy.argmax(acquire(self._config, best, *self.surrogate.predict(candidates), rng=rng)))]

    def believed(self, targets: dict[Architecture, float]) -> dict[Architecture, float]:
        """What the targets and another study's results together say of the architectures of that study."""
        if self.source is None:
            return {}
        shown = list(self.warm_start)[:WARM_START]
        model = self.source if len(targets) < 2 else self.surrogate
        if model is self.surrogate:
            model.fit(list(targets), list(targets.values()))
        return dict(zip(shown, model.predict(shown)[0].tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """What was told, but for metrics, notes and budgets, which are not learned from."""
        space = self._setting.space
        return {
            "told": self.told,
            "known": sorted(self._known),
            "outcomes": [
                {
                    "number": outcome.number,
                    "tokens": tokens.encode(space, outcome.proposal.arch).tolist(),
                    "state": str(outcome.state),
                    "values": None if outcome.values is None else list(outcome.values),
                    "violations": list(outcome.violations),
                }
                for outcome in self.outcomes.values()
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.told, self._known = int(state["told"]), set(state["known"])
        self.outcomes = {}
        for stored in state["outcomes"]:
            arch = tokens.decode(self._setting.space, stored["tokens"])
            values = None if stored["values"] is None else tuple(stored["values"])
            self.outcomes[self._setting.identity(arch)] = Outcome(
                stored["number"], Proposal(arch), State(stored["state"]), values, tuple(stored["violations"])
            )

    def _fit(self, targets: dict[Architecture, float], pending: Sequence[Pending]) -> float:
        """Fit the surrogate, to pending trials too; the best target."""
        self.surrogate.fit(list(targets), list(targets.values()))
        waiting = [trial.proposal.arch for trial in pending if trial.proposal.arch not in targets]
        if waiting:
            believed = dict(zip(waiting, self.surrogate.predict(waiting)[0].tolist(), strict=True))
            self.surrogate.fit([*targets, *believed], [*targets.values(), *believed.values()])
        return max(targets.values())


def neighbours(space: SearchSpace, centre: Architecture, rng: Generator) -> list[Architecture]:
    """All architectures that differ in one choice, `NEIGHBOURS` of them where there are more."""
    around = moves.neighbours(space, centre)
    if len(around) <= NEIGHBOURS:
        return around
    return [around[place] for place in rng.choice(len(around), NEIGHBOURS, replace=False)]


def ordered(targets: Mapping[Architecture, float]) -> list[Architecture]:
    """Outcomes, best first."""
    return sorted(targets, key=targets.__getitem__, reverse=True)


def acquire(
    config: SurrogateSearchConfig, best: float, mean: Floats, deviation: Floats, rng: Generator
) -> NDArray[numpy.float64]:
    """What each candidate is worth, by its prediction; `best` is the best value so far. Shape as `mean`."""
    if config.acquisition == "ucb":
        return numpy.asarray(mean + config.kappa * deviation)
    if config.acquisition == "its":
        return numpy.asarray(mean + deviation * rng.standard_normal(len(mean)))
    from scipy.special import log_ndtr, ndtr

    gain = mean - best
    spread = numpy.maximum(deviation, 1e-12)
    if config.acquisition == "pi":
        return numpy.asarray(log_ndtr(gain / spread))  # of the same order, and far candidates still differ
    density = numpy.exp(-0.5 * (gain / spread) ** 2) / numpy.sqrt(2 * numpy.pi)
    return numpy.asarray(gain * ndtr(gain / spread) + spread * density)


def _pool(setting: Setting, config: SurrogateSearchConfig, who: str) -> ScoredPool | None:
    """What is scored; None: nothing is. Raises UsageError."""
    by = config.start or next(iter(config.proxies), None)
    return None if by is None else ScoredPool(setting, who, by, config.scored)


def _warm_start(setting: Setting) -> dict[Architecture, float]:
    """What is known of another study, best first."""
    known = {arch: float(value) for arch, value in setting.warm_start}
    return dict(sorted(known.items(), key=lambda one: -one[1]))


def _surrogates(
    setting: Setting,
    config: SurrogateSearchConfig,
    pool: ScoredPool | None,
    warm_start: Mapping[Architecture, float],
    who: str,
) -> tuple[Surrogate | Transfer, Surrogate | None]:
    """The one that learns from outcomes, and the one that has learned from another study, where there is one.

    Raises UsageError.
    """
    reference = sampled(setting, REFERENCE, "reference") if pool is None else pool.archs
    score: Score | None = None
    if pool is not None and config.proxies:
        if not config.takes("proxies"):
            raise UsageError(
                f"strategy: proxies: surrogate '{config.surrogate}' takes no scores; use gp, or leave the proxies out"
            )
        score = ProxyRanks(setting, scores_of(setting, who, *config.proxies), config.proxies, pool.archs)
    settings = {"proxies": config.proxies} if config.proxies else {}
    problem = Problem(setting.space, derive(setting.seed, "surrogate"), score, reference)
    alone = config.make(problem, **settings)
    if len(warm_start) < 2:
        return alone, None
    source = config.make(problem, **settings)
    shown = _shown(
        list(warm_start), generator(setting.seed, "prior")
    )  # a purpose stays, whatever things are called now
    source.fit(shown, [warm_start[arch] for arch in shown])
    return Transfer(problem, source, TransferConfig(with_noise=False, proxies=config.proxies), alone), source


def _shown(warm_start: list[Architecture], rng: Generator) -> list[Architecture]:
    """At most `WARM_START` of another study: its best, and others that show what is worse."""
    if len(warm_start) <= WARM_START:
        return warm_start
    best = WARM_START // ELITE
    others = rng.choice(numpy.arange(best, len(warm_start)), WARM_START - best, replace=False)
    return [*warm_start[:best], *(warm_start[int(place)] for place in sorted(others.tolist()))]
