"""An Optuna study in memory that shows given trials, and forgets what is asked of it.

Samplers and pruners read a study through its storage. This storage answers with a list that was made beforehand, so
a view costs no copies: nothing is read from a disk, and nothing of Optuna's outlives the call.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from nas_core.choice import Choice

_THEN = datetime(2000, 1, 1)  # Optuna wants dates; nothing reads them


class _Shown(InMemoryStorage):
    """The given trials, and after them the one that is asked for, which has the number 0."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._shown = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        asked = super().get_all_trials(study_id, deepcopy, states)
        return [trial for trial in self._shown if states is None or trial.state in states] + asked


def study(
    trials: Sequence[FrozenTrial],
    objectives: int = 1,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
    directions: Sequence[str] | None = None,
) -> optuna.Study:
    """A study of these trials, ordered by number, that maximises every objective where no directions are given."""
    return optuna.create_study(
        storage=_Shown(trials),
        sampler=sampler or RandomSampler(0),
        pruner=pruner or NopPruner(),
        directions=directions or ["maximize"] * objectives,
    )


def trial(
    number: int,
    state: TrialState,
    values: Sequence[float] | None = None,
    params: Mapping[str, int] | None = None,
    distributions: Mapping[str, BaseDistribution] | None = None,
    violations: Sequence[float] = (),
    curve: Mapping[int, float] | None = None,
) -> FrozenTrial:
    """A trial to be shown; `number` counts from 1 in the order of the tells."""
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=None,
        values=values,
        datetime_start=_THEN,
        datetime_complete=_THEN if state.is_finished() else None,
        params=dict(params or {}),
        distributions=dict(distributions or {}),
        user_attrs={},
        system_attrs={"constraints": list(violations)},  # where Optuna's samplers of all versions look for them
        intermediate_values=dict(curve or {}),
    )


def distribution(choice: Choice) -> BaseDistribution:
    """Positions of the options: a grid of integers where they are ordered, categories otherwise."""
    last = len(choice.options) - 1
    return IntDistribution(0, last) if choice.ordered else CategoricalDistribution(range(last + 1))


def suggest(asked: Trial, choice: Choice) -> int:
    """The position of the option that the study's sampler chooses."""
    if choice.ordered:
        return asked.suggest_int(choice.name, 0, len(choice.options) - 1)
    return asked.suggest_categorical(choice.name, range(len(choice.options)))


def joint(sampler: BaseSampler, space: Mapping[str, BaseDistribution]) -> BaseSampler:
    """The sampler, told that it chooses the parameters of `space` together.

    To find out by itself it would compare the distributions of all trials, which takes longer than all the rest.
    """
    sampler.infer_relative_search_space = lambda study, trial: dict(space)
    return sampler


def tpe(space: Mapping[str, BaseDistribution], seed: int, candidates: int = 24) -> BaseSampler:
    """The tree-structured Parzen estimator; the parameters outside of `space` are chosen one by one."""
    settings: dict[str, Any] = {}
    if int(optuna.__version__.split(".")[0]) < 5:  # from 5 on the violations are found without being asked for
        settings["constraints_func"] = lambda trial: trial.system_attrs["constraints"]
    sampler = optuna.samplers.TPESampler(
        seed=seed,
        n_startup_trials=1,
        n_ei_candidates=candidates,
        multivariate=bool(space),
        constant_liar=True,
        **settings,
    )
    return joint(sampler, space)


def gp(space: Mapping[str, BaseDistribution], seed: int) -> BaseSampler:
    """The Gaussian process over `space`; the other parameters are chosen by the Parzen estimator."""
    return joint(optuna.samplers.GPSampler(seed=seed, n_startup_trials=1, independent_sampler=tpe({}, seed)), space)


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna neither announces studies nor warns of experimental parts; afterwards all is as it was before."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
