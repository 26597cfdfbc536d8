"""Optuna's samplers as strategies: the tree-structured Parzen estimator and the Gaussian process.

Bergstra, Bardenet, Bengio and Kegl, "Algorithms for Hyper-Parameter Optimization", NIPS 2011, section 4 (TPE), in
its multivariate form (Falkner, Klein and Hutter, "BOHB", ICML 2018, section 3.2). Snoek, Larochelle and Adams,
"Practical Bayesian Optimization of Machine Learning Algorithms", NIPS 2012 (Gaussian process, expected improvement).

An ask shows the outcomes to a new sampler, seeded by the study and the trial's number, in a study that lives as long
as the ask. The sampler chooses among all options of the active choices, in the order of the space; an option that
is not allowed is replaced by one that is, and the outcome told later is that of what was proposed. Pending trials
are shown as running ones. Failed trials are not shown.

Choices are shown as categories; ordered ones as positions on a grid of integers, so that neighbouring options share
what is learned, and an uneven grid such as 8, 16, 32 counts in steps.

A sampler may suggest what is known already, failed trials included. Then it is asked again, and after that the
neighbours of its last suggestion are tried.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from pydantic import Field

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.config import Config as BaseConfig
from nas_core.pareto import ranks
from nas_core.seeds import derive, generator
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting
from strategies.basic.random_search import Known, known_to, sample_new
from strategies.parts.targets import normal_scores
from training.threads import thread_count

if TYPE_CHECKING:
    from numpy.random import Generator
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

MUTANTS = 24
"""Mutants of a known suggestion that are tried at a distance."""

DISTANCES = (1, 2, 3)
"""Mutations in a row that may lead from a known suggestion to a candidate that is not known."""

ELITE = 4
"""One in so many of the outcomes shown is shown because it is good, the others because they are recent."""

Space = Mapping[str, "BaseDistribution"]


class _OptunaStrategy(ABC):
    """The memory of outcomes, and the way from a sampler's suggestion to a new candidate.

    A proposal's note says whether it is a start, suggested, a neighbour of a suggestion, or random.
    """

    def __init__(self, setting: Setting, config: Any) -> None:
        from strategies.parts.optuna_view import distribution

        self._setting = setting
        self._config = config
        self._told = 0
        self._known: set[str] = set()
        self._outcomes: dict[str, Outcome] = {}  # what is shown, by identity, in the order of the tells
        self._trials: dict[str, FrozenTrial] = {}  # the same, as Optuna sees it
        self._choices = {choice.name: choice for choice in setting.space.choices if len(choice.options) > 1}
        self._distributions = {name: distribution(choice) for name, choice in self._choices.items()}

    @abstractmethod
    def _sampler(self, space: Space, seed: int) -> BaseSampler:
        """A new sampler that chooses the parameters of `space`, which all trials have, together."""

    @abstractmethod
    def _view(self, number: int) -> tuple[list[FrozenTrial], int]:
        """The trials that the sampler is shown for this ask, and their number of objectives."""

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        setting, rng = self._setting, generator(self._setting.seed, number, "draw")
        known = known_to(setting, self._known, pending)
        role = "start"
        if self._told + len(pending) >= self._config.startup and self._outcomes:
            suggestion = None
            for suggestion in self._suggestions(number, pending, rng):
                if not known(setting.identity(suggestion)):
                    return Proposal(suggestion, note={"role": "suggested"})
            if suggestion is not None and (neighbour := _mutant(setting, suggestion, known, rng)) is not None:
                return Proposal(neighbour, note={"role": "neighbour"})
            role = "random"
        arch = sample_new(setting, known, rng)
        if arch is None:
            raise Exhausted("every candidate of the space is known")
        return Proposal(arch, note={"role": role})

    def tell(self, outcome: Outcome) -> None:
        self._told += 1
        identity = self._setting.identity(outcome.proposal.arch)
        self._known.add(identity)
        if outcome.values is None and not outcome.violation:
            return
        for shown in (self._outcomes, self._trials):
            shown.pop(identity, None)  # a candidate is shown once, with its last outcome
        self._outcomes[identity] = outcome
        self._trials[identity] = self._shown(self._told, outcome)
        if len(self._outcomes) > self._config.history:
            self._forget()

    def _shown(self, number: int, outcome: Outcome) -> FrozenTrial:
        """Without values, as a rejected candidate is, it counts by its violations alone: Optuna's PRUNED."""
        from optuna.trial import TrialState

        from strategies.parts.optuna_view import trial

        state = TrialState.PRUNED if outcome.values is None else TrialState.COMPLETE
        return trial(number, state, outcome.values, *self._parameters(outcome.proposal.arch), outcome.violations)

    def _parameters(self, arch: Architecture) -> tuple[dict[str, int], Space]:
        chosen = {name: value for name, value in arch.values.items() if name in self._choices}
        params = {name: self._choices[name].index(value) for name, value in chosen.items()}
        return params, {name: self._distributions[name] for name in params}

    def _forget(self) -> None:
        """Drop the oldest outcome that is not among the best."""
        standing = dict(zip(self._outcomes, ranks(list(self._outcomes.values())), strict=True))
        elite = set(sorted(standing, key=standing.__getitem__)[: self._config.history // ELITE])
        oldest = next(identity for identity in self._outcomes if identity not in elite)
        del self._outcomes[oldest], self._trials[oldest]

    def _suggestions(self, number: int, pending: Sequence[Pending], rng: Generator) -> Iterator[Architecture]:
        """What the sampler suggests, asked with one seed after the other."""
        from optuna.trial import TrialState

        from strategies.parts import optuna_view

        trials, objectives = self._view(number)
        running = [
            optuna_view.trial(self._told + 1 + place, TrialState.RUNNING, None, *self._parameters(one.proposal.arch))
            for place, one in enumerate(pending)
        ]
        common = set[str](self._distributions).intersection(*(trial.params for trial in trials))
        space = {name: found for name, found in self._distributions.items() if name in common}
        for draw in range(self._config.redraws):
            seed = derive(self._setting.seed, number, "suggest", draw) % 2**32  # what numpy's RandomState takes
            with optuna_view.quiet(), self._alone():
                study = optuna_view.study([*trials, *running], objectives, self._sampler(space, seed))
                asked = study.ask()

                def pick(choice: Choice, options: tuple[Value, ...], asked: Any = asked) -> Value:
                    if choice.name not in self._choices:
                        return options[0]
                    value = choice.options[optuna_view.suggest(asked, choice)]
                    return value if value in options else options[int(rng.integers(len(options)))]

                arch = moves.complete(self._setting.space, {}, pick)
            yield arch

    def _alone(self) -> AbstractContextManager[None]:
        """What holds while the sampler works."""
        return nullcontext()


class TPE(_OptunaStrategy):
    """Two Parzen estimators, of the best tenth of the outcomes and of the others; the draw from the first with the
    largest ratio of densities is suggested.

    Constraints count as Optuna counts them: feasible outcomes first, then less violation. Several objectives are
    compared by Pareto dominance and hypervolume.
    """

    class Config(BaseConfig):
        """How many candidates are drawn, and what they are drawn from."""

        startup: int = Field(5, ge=1, le=100_000, description="trials drawn at random before TPE suggests any")
        candidates: int = Field(24, ge=1, le=100_000, description="draws of which the best by the ratio is suggested")
        multivariate: bool = Field(True, description="one density of all choices, or one per choice")
        history: int = Field(
            300, ge=20, le=100_000, description="outcomes that are kept: a quarter best, others recent"
        )
        redraws: int = Field(
            2, ge=1, le=1000, description="suggestions, all of them known, before neighbours are tried"
        )

    def _sampler(self, space: Space, seed: int) -> BaseSampler:
        from strategies.parts.optuna_view import tpe

        return tpe(space if self._config.multivariate else {}, seed, self._config.candidates)

    def _view(self, number: int) -> tuple[list[FrozenTrial], int]:
        return list(self._trials.values()), len(self._setting.objectives)


class GP(_OptunaStrategy):
    """A Gaussian process over the choices that all trials share, and expected improvement; other choices are chosen
    by TPE, one by one.

    Deviations from Optuna's defaults: the targets are the normal scores of the ranks, so that the size of a failure
    does not flatten the differences among the good; infeasible outcomes rank below the feasible ones, by their
    violation. Several objectives are joined anew in every ask, by the augmented Chebyshev function with random
    weights (Knowles, "ParEGO", IEEE TEVC 10(1), 2006, equation 2).
    """

    class Config(BaseConfig):
        """How many outcomes the process is fitted to: an ask takes time cubic in them."""

        startup: int = Field(10, ge=1, le=100_000, description="trials drawn at random before the process is fitted")
        history: int = Field(
            200, ge=20, le=10_000, description="outcomes that are kept: a quarter best, the rest recent"
        )
        redraws: int = Field(1, ge=1, le=100, description="suggestions, all of them known, before neighbours are tried")

    def _sampler(self, space: Space, seed: int) -> BaseSampler:
        from strategies.parts.optuna_view import gp

        return gp(space, seed)

    def _view(self, number: int) -> tuple[list[FrozenTrial], int]:
        from optuna.trial import TrialState

        from strategies.parts.optuna_view import trial

        weights = generator(self._setting.seed, number, "weights").dirichlet([1.0] * len(self._setting.objectives))
        targets = normal_scores(list(self._outcomes.values()), weights)
        shown = zip(self._trials.values(), targets, strict=True)
        return [
            trial(one.number, TrialState.COMPLETE, (target,), one.params, one.distributions) for one, target in shown
        ], 1

    def _alone(self) -> AbstractContextManager[None]:
        return thread_count(1)


def _mutant(setting: Setting, arch: Architecture, known: Known, rng: Generator) -> Architecture | None:
    """A candidate near `arch` that is not known, the nearest distances first; None where none was met."""
    variation = moves.variation(setting.space)
    for distance in DISTANCES:
        for _ in range(MUTANTS):
            mutant = arch
            try:
                for _ in range(distance):
                    mutant = variation.mutate(mutant, rng)
            except ValueError:  # the space leaves nothing to mutate
                return None
            if not known(setting.identity(mutant)):
                return mutant
    return None
