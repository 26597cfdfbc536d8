"""`nas generate`: new architectures from a generator that a study's results have trained, without evaluating them.

A strategy that has a generator (`nas_core.strategy.Generates`) is told what the study has found, and draws: the study's
own one as it stands after all its outcomes, or a `diffusion` that is told those of another strategy. Bounds on costs
lead the generator by architectures whose costs are known, and decide at the end; a target leads it by the study's
trials. What is new is ranked by a surrogate of the study's results, as in `nas predict`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy
from pydantic import Field

import strategies
from nas_core import moves, refs
from nas_core.architecture import Architecture
from nas_core.config import Config, validate
from nas_core.errors import InfeasibleError, UsageError
from nas_core.evaluation import Constraint, Objective, parse_constraint
from nas_core.records import Run
from nas_core.seeds import generator
from nas_core.space import HasCosts
from nas_core.strategy import FINISHED, Generates, State, Wanted
from studies.analysis.predict import LEAST, Models, PredictConfig, Prediction, enough, observed
from studies.analysis.queries import MEASURED
from studies.records import Study
from studies.search.replay import restore
from studies.search.verdicts import Verdicts
from studies.setup.assemble import StudyObjects
from studies.store.store import Store

if TYPE_CHECKING:
    from predictors.surrogate import Surrogate
    from predictors.transfer import Transfer

DEFAULT = "diffusion"
"""The strategy whose generator learns from a study that has none."""

BATCH = 100  # architectures that are drawn at once, or twice as many as are wanted
ROUNDS = 10  # such draws, at most
EXAMPLES = 1_000  # architectures whose costs are looked up or counted by the space
BUILT = 200  # where a network has to be built for each
TIMED = 50  # where it has to be run
COMPARED = 200  # random architectures that the drawn ones are compared with


class GenerateConfig(Config):
    """What is drawn, and by what it is predicted."""

    count: int = Field(default=20, ge=1, le=10_000, description="different new architectures")
    constraints: tuple[str, ...] = Field(default=(), description="bounds on costs, beside those of the study")
    targets: tuple[str, ...] = Field(default=(), description="bounds on what the study has measured")
    model: str = Field(default="auto", description="surrogate: a name, or FILE.py:CLASS")
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True, slots=True)
class Drawn:
    """How many architectures were drawn, and what became of them before anything was left out.

    `satisfied`, of the legal ones: the constraints; `unique`: the different candidates among the legal ones; `new`, of
    the unique ones: the study has not had them.
    """

    count: int
    legal: int
    satisfied: int
    unique: int
    new: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A new architecture, with its costs that are asked for."""

    prediction: Prediction
    costs: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Generated:
    """The best of what was drawn, by prediction, best first.

    `candidates` were drawn that are new and satisfy the constraints. `reached`, of those shown: the targets on the
    objective, by their predicted means; None without such a target. `random`: the mean prediction of random new
    architectures that satisfy the constraints too; None where none was sampled. `own`: it is the study's generator.
    """

    strategy: str
    own: bool
    model: str
    objective: Objective
    observed: int
    best: float
    constraints: tuple[Constraint, ...]
    targets: tuple[Constraint, ...]
    asked: int
    drawn: Drawn
    candidates: int
    ranking: list[Candidate]
    reached: int | None
    random: float | None


def generate(store: Store, study: Study, parts: StudyObjects, config: GenerateConfig) -> Generated:
    """New architectures of a study's space; nothing is evaluated, and the study stays as it is.

    Raises UsageError for too few results and for bounds that do not fit, InfeasibleError where nothing satisfies the
    constraints.
    """
    asked = [_bound(text, parts, cost=True) for text in config.constraints]
    targets = tuple(_bound(text, parts, cost=False) for text in config.targets)
    found = observed(store, study, parts)
    enough(study.name, found, LEAST, "")
    runs = list(store.trials(study, metrics=True))
    limits = Limits(parts, asked)
    sampled = _sampled(parts, _affordable(study, parts, limits), config.seed)
    wanted = [*_limited(limits, [*sampled, *found.archs]), *_aimed(targets, runs, study.name)]
    name, strategy = _trained(store, study, parts, runs)
    known = {run.identity for run in runs if run.state != State.REJECTED}
    drawn, candidates = _draw(strategy, wanted, parts, limits, known, config)
    if not candidates:
        raise _nothing(study.name, drawn, limits)
    settings = PredictConfig(model=config.model, seed=config.seed)
    model = Models(store, parts, settings, None, None, ()).fitted(found.archs, found.values)
    goal = parts.objectives[0]
    predictions = predicted(model, candidates, goal)
    order = numpy.argsort([-goal.orient(one.mean) for one in predictions], kind="stable")[: config.count]
    ranking = [Candidate(predictions[place], limits.costs(candidates[place])) for place in order]
    means = [candidate.prediction.mean for candidate in ranking]
    goals = [target for target in targets if target.metric == goal.metric]
    others = _different(parts, filter(limits.satisfied, sampled), known)[:COMPARED]
    return Generated(
        strategy=name,
        own=name == study.spec.strategy,
        model=config.model,
        objective=goal,
        observed=len(found.archs),
        best=goal.orient(float(found.values.max())),
        constraints=limits.constraints,
        targets=targets,
        asked=config.count,
        drawn=drawn,
        candidates=len(candidates),
        ranking=ranking,
        reached=sum(all(one.violation(mean) <= 0 for one in goals) for mean in means) if goals else None,
        random=float(numpy.mean([one.mean for one in predicted(model, others, goal)])) if others else None,
    )


def predicted(model: Surrogate | Transfer, archs: Sequence[Architecture], goal: Objective) -> list[Prediction]:
    """Mean and standard deviation, in units of the objective."""
    mean, std = model.predict(archs)
    return [Prediction(arch, goal.orient(float(mean[i])), float(std[i])) for i, arch in enumerate(archs)]


class Limits:
    """The bounds on costs: those of the study and those asked for. What an architecture costs is computed once."""

    def __init__(self, parts: StudyObjects, asked: Sequence[Constraint]) -> None:
        metrics = {metric.name: metric for metric in parts.evaluator.metrics}
        every = dict.fromkeys((*parts.constraints, *asked))
        self.constraints = tuple(one for one in every if metrics[one.metric].cost)
        goals = [goal.metric for goal in parts.objectives if metrics[goal.metric].cost]
        self.names = tuple(dict.fromkeys((*(one.metric for one in self.constraints), *goals)))
        self._verdicts = Verdicts(replace(parts, constraints=self.constraints))
        self._known: dict[str, Mapping[str, float]] = {}

    def costs(self, arch: Architecture) -> Mapping[str, float]:
        """Those that are bounded or objectives, as far as they are known: none of a network that cannot be built."""
        if arch.key not in self._known:
            self._known[arch.key] = self._verdicts.before(arch)[1]
        return self._known[arch.key]

    def satisfied(self, arch: Architecture) -> bool:
        """Whether the costs are known and within the bounds."""
        costs = self.costs(arch)
        return all(one.violation(costs.get(one.metric, math.nan)) <= 0 for one in self.constraints)

    def __str__(self) -> str:
        return ", ".join(str(one) for one in self.constraints)


def _bound(text: str, parts: StudyObjects, *, cost: bool) -> Constraint:
    """A constraint on a cost, or a target on what is measured. Raises UsageError."""
    bound = parse_constraint(text, parts.evaluator.metrics)
    metric = next(metric for metric in parts.evaluator.metrics if metric.name == bound.metric)
    if metric.cost == cost:
        return bound
    if cost:
        raise UsageError(f"--constraint '{text}': {bound.metric} is known only after evaluation; give it as --target")
    raise UsageError(f"--target '{text}': {bound.metric} is known without evaluation; give it as --constraint")


def _affordable(study: Study, parts: StudyObjects, limits: Limits) -> int:
    """How many architectures are sampled, by what their costs take to know."""
    if not limits.names:
        return COMPARED
    measured = {metric.name for metric in parts.evaluator.metrics if metric.measured}
    if measured & set(limits.names):
        return TIMED
    counted = study.spec.evaluator.facts.looks_up or isinstance(parts.space, HasCosts)
    return EXAMPLES if counted or not {"params", "macs"} & set(limits.names) else BUILT


def _sampled(parts: StudyObjects, count: int, seed: int) -> list[Architecture]:
    """Random architectures; fewer where the same come again."""
    rng = generator(seed, "examples")
    return list(dict.fromkeys(moves.sample(parts.space, rng) for _ in range(count)))


def _limited(limits: Limits, archs: Sequence[Architecture]) -> list[Wanted]:
    """What leads to the constraints, where that takes leading. Raises InfeasibleError where no one satisfies them."""
    if limits.constraints and not any(limits.satisfied(arch) for arch in archs):
        raise InfeasibleError(
            f"none of {len(archs):,} sampled architectures satisfies {limits}; their {_ranges(limits, archs)}"
        )
    wanted = []
    for one in limits.constraints:
        known = {arch: limits.costs(arch)[one.metric] for arch in archs if one.metric in limits.costs(arch)}
        if any(one.violation(value) > 0 for value in known.values()):
            wanted.append(Wanted(tuple(known), tuple(known.values()), one.bound, one.relation == "<="))
    return wanted


def _ranges(limits: Limits, archs: Sequence[Architecture]) -> str:
    """`params is 1,200 to 35,000`, for an error."""
    texts = []
    for name in dict.fromkeys(one.metric for one in limits.constraints):
        values = [limits.costs(arch)[name] for arch in archs if name in limits.costs(arch)]
        texts.append(f"{name} is {min(values):,.6g} to {max(values):,.6g}" if values else f"{name} is not known")
    return ", ".join(texts)


def _aimed(targets: Sequence[Constraint], runs: Sequence[Run], name: str) -> list[Wanted]:
    """What leads to the targets: the complete trials at the largest budget. Raises UsageError for too few of them."""
    complete = [run for run in runs if run.state in MEASURED]
    budgets = [_budget(run) for run in complete]
    wanted = []
    for target in targets:
        values = {
            run.arch: run.metrics[target.metric]
            for run, budget in zip(complete, budgets, strict=True)
            if budget == max(budgets) and math.isfinite(run.metrics.get(target.metric, math.nan))
        }
        if len(values) < LEAST:
            raise UsageError(
                f"--target '{target}': study '{name}' has {len(values)} trials with {target.metric}; it needs {LEAST}"
            )
        wanted.append(Wanted(tuple(values), tuple(values.values()), target.bound, target.relation == "<="))
    return wanted


def _trained(store: Store, study: Study, parts: StudyObjects, runs: Sequence[Run]) -> tuple[str, Generates]:
    """The study's own strategy where it has a generator, else one that learns from its outcomes; and its name."""
    own: Any = None if parts.supernet is not None else parts.make_strategy()
    if isinstance(own, Generates):
        told = sorted((run for run in runs if run.told is not None), key=lambda run: run.told or 0)
        untold = [run for run in runs if run.told is None and run.state in FINISHED]  # as a resume would tell them
        known = restore(own, store, study, len(told))  # type: ignore[arg-type]
        for run in [*told[known:], *untold]:
            own.tell(run.outcome())  # type: ignore[attr-defined]
        return study.spec.strategy, own
    kind = refs.find(DEFAULT, strategies.BUILTIN, strategies.GROUP, "strategy")
    search: Any = kind(parts.setting, validate(kind.Config, {}, f"strategy {DEFAULT}"))
    full = max(_budget(run) for run in runs if run.state in MEASURED)
    for run in runs:
        if run.state == State.REJECTED or (run.state in FINISHED and _budget(run) == full):
            search.tell(run.outcome())
    return DEFAULT, search


def _budget(run: Run) -> float:
    return math.inf if run.proposal.budget is None else run.proposal.budget


def _draw(
    strategy: Generates,
    wanted: Sequence[Wanted],
    parts: StudyObjects,
    limits: Limits,
    known: set[str],
    config: GenerateConfig,
) -> tuple[Drawn, list[Architecture]]:
    """Draws until enough of them are new and satisfy the constraints, or a round adds none."""
    drawn: list[Architecture] = []
    candidates: list[Architecture] = []
    for turn in range(ROUNDS):
        rng = generator(config.seed, "generate", turn)
        drawn += strategy.generate(max(BATCH, 2 * config.count), rng, wanted)
        legal = [arch for arch in drawn if parts.space.illegal(arch) is None]
        satisfied = [arch for arch in legal if limits.satisfied(arch)]
        before, candidates = len(candidates), _different(parts, satisfied, known)
        if len(candidates) >= config.count or (turn and len(candidates) == before):
            break
    unique = {parts.identity(arch) for arch in legal}
    return Drawn(len(drawn), len(legal), len(satisfied), len(unique), len(unique - known)), candidates


def _different(parts: StudyObjects, archs: Iterable[Architecture], known: set[str]) -> list[Architecture]:
    """The first of each candidate that is not known."""
    found: dict[str, Architecture] = {}
    for arch in archs:
        found.setdefault(parts.identity(arch), arch)
    return [arch for identity, arch in found.items() if identity not in known]


def _nothing(name: str, drawn: Drawn, limits: Limits) -> Exception:
    """Why nothing is left of what was drawn."""
    if limits.constraints and not drawn.satisfied:
        return InfeasibleError(f"none of {drawn.count:,} generated architectures satisfies {limits}; loosen it")
    what = "satisfies the constraints and " if limits.constraints else ""
    return UsageError(
        f"study '{name}' knows all of the {drawn.count:,} generated architectures that are of use: nothing {what}is new"
    )
