"""`nas predict`: a surrogate of a study's results ranks architectures that the study has not seen.

How far to trust the ranking is measured by cross-validation: every observation is predicted by a model that has seen
neither it nor any architecture of the same function.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy
from pydantic import Field

from nas_core import moves, refs
from nas_core.architecture import Architecture
from nas_core.config import Config, validate
from nas_core.errors import UsageError
from nas_core.evaluation import Objective
from nas_core.seeds import generator
from nas_core.space import builds
from nas_core.strategy import FINISHED
from predictors import GROUP, SURROGATES
from predictors.scoring import split_score
from predictors.surrogate import Problem, Score, Surrogate
from predictors.transfer import Transfer, TransferConfig
from studies.analysis import pool
from studies.analysis.correlation import Correlation, correlate
from studies.records import Study
from studies.search.verdicts import Verdicts
from studies.setup.assemble import StudyObjects
from studies.store.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

LEAST = 10
"""Observations, of different functions, that a model is fitted to; those of a transfer may be as few as `FEW`."""

FEW = 2
WHOLE = 50_000  # spaces up to this size are predicted in full
POOL = 5_000  # candidates of larger ones
SCORED = 500  # candidates whose networks have to be scored first
PARENTS = 10  # of the candidates that are mutants
DRAWS = 20  # for every candidate, before it is held that there are no more
MUTATIONS = 3  # at most, between a parent and a mutant


class PredictConfig(Config):
    """What is predicted, and by what."""

    model: str = Field(default="auto", description="surrogate: a name, or FILE.py:CLASS")
    settings: dict[str, Any] = Field(default_factory=dict, description="of the surrogate")
    proxies: tuple[str, ...] = Field(default=(), description="proxies that the surrogate reads too")
    top: int = Field(default=20, ge=1, description="predictions that are shown")
    pool: int | None = Field(default=None, ge=1, description="candidates, at most")
    folds: int = Field(default=5, ge=0, description="of the cross-validation; 0: none")
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True, slots=True)
class Observed:
    """What a study has evaluated: one architecture per candidate, with the first objective, higher is better."""

    archs: list[Architecture]
    values: Floats
    functions: list[str]  # equal for architectures that compute the same: they are never split


@dataclass(frozen=True, slots=True)
class Validation:
    """How good held-out predictions are; `covered` is the share within one standard deviation.

    `regret`: how far the best of the `picked` with the highest predictions is behind the best of all observed, in
    units of the objective.
    """

    folds: int
    correlation: Correlation
    covered: float
    picked: int
    regret: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """Mean and standard deviation in units of the objective, as its metric is reported."""

    arch: Architecture
    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class Predicted:
    """The ranking, best first. `candidates` were predicted, `whole`: all that the study has not seen; `infeasible` of
    the better ones were left out by their costs. `source_used`: whether a transfer found its source of use."""

    model: str
    settings: Mapping[str, Any]
    objective: Objective
    observed: int
    best: float
    candidates: int
    whole: bool
    infeasible: int
    ranking: list[Prediction]
    validation: Validation | None
    source_used: bool | None = None


def predict(
    store: Store, study: Study, parts: StudyObjects, config: PredictConfig, source: Study | None = None
) -> Predicted:
    """The ranking of a study's unseen architectures. `source`: another study of the space, whose results help.

    Raises UsageError for too few observations, for values that do not differ, and for what does not fit together.
    """
    found = observed(store, study, parts)
    score = parts.setting.score
    if config.proxies and score is None:
        raise UsageError(
            f"--proxies: study '{study.name}' has no scores of networks; give --scores FILE or --score-on DATA"
        )
    least = LEAST if source is None else FEW
    enough(study.name, found, least, "" if source is None else " with --warm-start")
    candidates, whole = unseen(store, study, parts, config, found)
    if not candidates:
        raise UsageError(f"study '{study.name}' has evaluated every architecture of its space; nothing is unseen")
    if config.proxies and parts.scored is not None:  # all of them in one pass over each network
        proxies = dict.fromkeys(split_score(name)[0] for name in config.proxies)
        parts.scored.scoring.table(list(proxies), [*found.archs, *candidates])
    models = Models(store, parts, config, source, score if config.proxies else None, candidates)
    model = models.fitted(found.archs, found.values)
    mean, std = model.predict(candidates)
    goal = parts.objectives[0]
    order = numpy.argsort(-mean, kind="stable")
    ranked = (Prediction(candidates[i], goal.orient(float(mean[i])), float(std[i])) for i in order)
    ranking, infeasible = _feasible(parts, ranked, config.top)
    return Predicted(
        model=config.model,
        settings=models.settings,
        objective=goal,
        observed=len(found.archs),
        best=goal.orient(float(found.values.max())),
        candidates=len(candidates),
        whole=whole,
        infeasible=infeasible,
        ranking=ranking,
        validation=cross_validate(models, found, config),
        source_used=model.used if isinstance(model, Transfer) else None,
    )


def observed(store: Store, study: Study, parts: StudyObjects) -> Observed:
    """The complete trials at the largest budget, the first of each candidate. Raises NotFoundError for none."""
    archs, target = pool.of_study(store, study)
    first: dict[str, Architecture] = {}
    for arch in archs:
        first.setdefault(parts.identity(arch), arch)
    kept = list(first.values())
    values = numpy.array([target.values[arch.key] for arch in kept])
    return Observed(kept, values, [parts.space.identity(arch) for arch in kept])


def unseen(
    store: Store, study: Study, parts: StudyObjects, config: PredictConfig, found: Observed
) -> tuple[list[Architecture], bool]:
    """Candidates that are not among the study's trials, one per identity, and whether they are all there are.

    Where the space is too large they are drawn: half at random, half one to three mutations from the best observed.
    """
    known = {run.identity for run in store.trials(study) if run.state in FINISHED}
    limit = config.pool or (SCORED if _networks(parts, config) else None)
    rng = generator(config.seed, "candidates")
    size = moves.size(parts.space, WHOLE)
    if size is not None and size <= WHOLE:
        every = list(_new(moves.enumerate_all(parts.space), parts, known))
        if limit is None or limit >= len(every):
            return every, True
    limit = limit or POOL
    best = [found.archs[position] for position in numpy.argsort(-found.values, kind="stable")[:PARENTS]]
    drawn = (moves.sample(parts.space, rng) for _ in range(DRAWS * limit))
    kept = list(islice(_new(drawn, parts, known), (limit + 1) // 2))
    known |= {parts.identity(arch) for arch in kept}
    kept += islice(_new(_mutants(parts, best, rng, DRAWS * limit), parts, known), limit - len(kept))
    return kept, False


def cross_validate(models: Models, found: Observed, config: PredictConfig) -> Validation | None:
    """None where it was not asked for, or where the observations are too few."""
    functions = {function: place for place, function in enumerate(dict.fromkeys(found.functions))}
    if config.folds == 0 or len(functions) < LEAST:
        return None
    if config.folds == 1:
        raise UsageError("--folds 1: a part is predicted from the others; take at least 2, or 0 for none")
    count = min(config.folds, len(functions))
    turns = generator(config.seed, "folds").permutation(len(functions)) % count
    turn = numpy.array([turns[functions[function]] for function in found.functions])
    mean, std = numpy.zeros(len(turn)), numpy.zeros(len(turn))
    for fold in range(count):
        held_out = numpy.flatnonzero(turn == fold)
        rest = numpy.flatnonzero(turn != fold)
        model = models.fitted([found.archs[position] for position in rest], found.values[rest])
        mean[held_out], std[held_out] = model.predict([found.archs[position] for position in held_out])
    picked = max(1, len(mean) // 10)
    highest = numpy.argsort(-mean, kind="stable")[:picked]
    return Validation(
        folds=count,
        correlation=correlate(mean.tolist(), found.values.tolist(), seed=config.seed),
        covered=float((abs(mean - found.values) <= std).mean()),
        picked=picked,
        regret=float(found.values.max() - found.values[highest].max()),
    )


class Models:
    """Makes surrogates and fits them; what a transfer starts from is fitted once."""

    def __init__(
        self,
        store: Store,
        parts: StudyObjects,
        config: PredictConfig,
        source: Study | None,
        score: Score | None,
        candidates: Sequence[Architecture],
    ) -> None:
        target, given = refs.split(config.model, "surrogate")
        self._kind = refs.find(target, SURROGATES, GROUP, "surrogate")
        settings = {**given, **config.settings}
        if config.proxies:
            if "proxies" not in self._kind.Config.model_fields:
                raise UsageError(f"surrogate '{target}' reads no proxies; leave out --proxies, or take --model auto")
            settings["proxies"] = config.proxies
        self._config = validate(self._kind.Config, settings, f"surrogate {target}")
        self.settings: Mapping[str, Any] = self._config.model_dump(mode="json")
        self._problem = Problem(parts.space, config.seed, score, tuple(candidates) if config.proxies else ())
        self._transfer = TransferConfig(proxies=config.proxies)
        self._source: Surrogate | None = None
        if source is not None:
            self._source = self._learned(store, source, parts)

    def fitted(self, archs: Sequence[Architecture], values: Floats) -> Surrogate | Transfer:
        """Fitted to these observations, and to the source's where there is one."""
        if self._source is not None:
            model: Surrogate | Transfer = Transfer(self._problem, self._source, self._transfer)
        else:
            model = self._kind(self._problem, self._config)
        model.fit(archs, values.tolist())
        return model

    def _learned(self, store: Store, source: Study, parts: StudyObjects) -> Surrogate:
        """The surrogate of the source's results."""
        space = parts.space
        if source.spec.space_name != space.name or not builds(space, source.spec.space_version):
            raise UsageError(
                f"--warm-start '{source.name}' searched space '{source.spec.space_name}' (version "
                f"{source.spec.space_version}), this study '{space.name}' (version {space.version})"
            )
        archs, target = pool.of_study(store, source)
        values = numpy.array([target.values[arch.key] for arch in archs])
        enough(source.name, Observed(archs, values, [space.identity(arch) for arch in archs]), LEAST, "")
        model: Surrogate = self._kind(self._problem, self._config)
        model.fit(archs, values.tolist())
        return model


def enough(name: str, found: Observed, least: int, where: str) -> None:
    """Raises UsageError for too few observations, and for values that do not differ."""
    count = len(set(found.functions))
    if count < least:
        raise UsageError(
            f"study '{name}' has {count} complete trials of different architectures; a prediction{where} needs {least}"
        )
    if found.values.min() == found.values.max():
        raise UsageError(
            f"all {len(found.values)} results of study '{name}' are equal ({abs(found.values[0]):g}); "
            "there is nothing to learn from"
        )


def _networks(parts: StudyObjects, config: PredictConfig) -> bool:
    """Whether candidates are scored by building their networks, which takes its time."""
    if not config.proxies or parts.scored is None:
        return False
    return parts.scored.scoring.source.context["from"] == "networks"


def _new(archs: Iterable[Architecture], parts: StudyObjects, known: set[str]) -> Iterable[Architecture]:
    """Those that are of no identity in `known`, one of each."""
    known = set(known)
    for arch in archs:
        identity = parts.identity(arch)
        if identity not in known:
            known.add(identity)
            yield arch


def _mutants(
    parts: StudyObjects, parents: Sequence[Architecture], rng: numpy.random.Generator, count: int
) -> Iterable[Architecture]:
    variation = moves.variation(parts.space)
    for number in range(count):
        arch = parents[number % len(parents)]
        for _ in range(1 + int(rng.integers(MUTATIONS))):
            if not moves.free_choices(parts.space, arch):
                return
            arch = variation.mutate(arch, rng)
        yield arch


def _feasible(parts: StudyObjects, ranked: Iterable[Prediction], top: int) -> tuple[list[Prediction], int]:
    """The first `top` that the known costs allow, and how many better ones they do not."""
    verdicts = Verdicts(parts)
    kept: list[Prediction] = []
    left_out = 0
    for one in ranked:
        if verdicts.before(one.arch)[0] is None:
            kept.append(one)
            if len(kept) == top:
                break
        else:
            left_out += 1
    return kept, left_out
