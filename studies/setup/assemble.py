"""From what a user asks to the objects of a search, and from a stored study back to the same objects.

This is the one place where names turn into spaces, strategies and evaluators.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import strategies
from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.config import Config, SizeConfig, restore, validate
from nas_core.errors import MachineError, Notice, UsageError
from nas_core.evaluation import (
    Constraint,
    Evaluator,
    Fidelity,
    Objective,
    parse_constraint,
    parse_constraints,
    parse_objective,
    parse_objectives,
)
from nas_core.frozen import JsonObject
from nas_core.one_shot import OneShotConfig
from nas_core.records import StopAt
from nas_core.space import HasHosts, SearchSpace, builds
from nas_core.strategy import Pruner, Setting, Strategy
from nas_core.task import Task
from nas_core.user_files import digest_of
from search_spaces.hosts.own import reports
from strategies.multi_fidelity import early_stopping
from studies.records import EarlyStop, RecordedScores, StudySpec, SupernetSettings, final_size_of
from studies.setup.config import SearchConfig
from studies.setup.scores import Counted, Scoring, settings_of, source_of
from studies.setup.spaces import load_space, size_of
from studies.setup.supernets import SupernetParts, is_one_shot, learns_on, parts_of
from studies.setup.supernets import settings_of as supernet_settings
from studies.store.file_cache import cached_in
from training.devices import find_device
from training.evaluators import kinds
from training.evaluators.costs_only import CostsOnly, needs_costs_only
from training.evaluators.hosts import at_first
from training.evaluators.settings import EvaluatorSettings, Facts, Problem, Request, Shared
from training.evaluators.train import check_files
from training.spaces import check_kind

if TYPE_CHECKING:
    from studies.store.store import Store


@dataclass(frozen=True)
class StudyObjects:
    """The live objects of a study."""

    space: SearchSpace
    size: SizeConfig  # of the networks that are searched; see `final_size_of` for the one that the user gets
    evaluator: Evaluator
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    setting: Setting
    strategy: Callable[[Setting, Any], Strategy]
    strategy_config: Config
    budget: float | None  # of a proposal that names none; None: the evaluator's full one
    trial_seconds: float | None
    early_stop: Pruner | None = None
    scored: Counted | None = None  # what the setting's `score` is; None: the study has no scores
    supernet: SupernetParts | None = None  # of a one-shot study; its strategy then proposes nothing before the result

    def cached_in(self, store: Store) -> StudyObjects:
        """The same parts for one search. What its strategy keeps is shared with all searches of the store; the scores
        of predictors are kept there too, and counted from here."""
        setting = replace(self.setting, cache=cached_in(store))
        if self.scored is None:
            return replace(self, setting=setting)
        scored = Counted(self.scored.scoring.cached_in(store))
        return replace(self, scored=scored, setting=replace(setting, score=scored))

    def make_strategy(self) -> Strategy:
        """The strategy as it is before it is told anything; of a one-shot study see
        `studies.search.supernet.derived`."""
        return self.strategy(self.setting, self.strategy_config)

    def check(self) -> None:
        """Make the strategy, so that one that cannot handle its setting says so."""
        if self.supernet is not None:
            self.supernet.make_strategy()
        else:
            self.make_strategy()

    def identity(self, arch: Architecture) -> str:
        """What counts as the same candidate in this study."""
        return self.setting.identity(arch)


@dataclass(frozen=True)
class Described:
    """Everything that decides a study's trajectory, and the live objects of that."""

    spec: StudySpec
    objects: StudyObjects


def describe(
    config: SearchConfig,
    shared: Shared | None = None,
    changed: Callable[[StudySpec], StudySpec] = lambda spec: spec,
) -> Described:
    """Resolve a user's configuration. `shared` is the supernet that candidates are evaluated on, where they are;
    `changed` says what is so beyond the configuration.

    Raises UsageError, NotFoundError or MachineError for whatever does not fit.
    """
    spec = changed(_spec(config, shared))
    return Described(spec, build(spec))


def _spec(config: SearchConfig, shared: Shared | None) -> StudySpec:
    config = _guarded(_enqueued(_warmed_up(config)))
    strategy = refs.find(config.strategy, strategies.ALL, strategies.GROUP, "strategy")
    strategy_config = validate(strategy.Config, config.strategy_config, f"strategy {config.strategy}")
    space, file_hash = load_space(config.space)
    size = _asked(space, config.size)
    request = Request(Problem(space, size), config.space, file_hash, config.objectives or (), config.workers, shared)
    settings, opened, split_hash = config.evaluator.settle(request)
    evaluator: Any = opened
    task: Task = evaluator.task
    size = at_first(size, settings.facts.hosts).fitted(task)
    check_kind(space, task.kind, settings.facts.data)
    objectives = parse_objectives(_objectives(config, evaluator, task), evaluator.metrics)
    constraints = parse_constraints(config.constraints, evaluator.metrics)
    wanted = [*(one.metric for one in objectives), *(one.metric for one in constraints)]
    if settings.facts.screens and needs_costs_only(evaluator, wanted):
        raise UsageError(
            f"--screen {settings.facts.screens[0]} looks at networks that are trained, and "
            f"{', '.join(map(str, objectives))} needs no training; leave it out"
        )
    sized = size.model_dump(mode="json")
    for line in reports(settings.facts.hosts or [sized.get("host")], task) if isinstance(space, HasHosts) else ():
        warnings.warn(Notice(line), stacklevel=2)
    for said in (config.size, config.final_size):
        for line in () if said is None else _asked(space, said).unused_fields(said, task):
            warnings.warn(Notice(line), stacklevel=2)
    return StudySpec(
        space=config.space,
        space_name=space.name,
        space_version=space.version,
        space_hash=file_hash,
        size=sized,
        strategy=config.strategy,
        strategy_config=strategy_config.model_dump(mode="json"),
        evaluator=settings,
        task=task,
        split_hash=split_hash,
        objectives=tuple(map(str, objectives)),
        constraints=tuple(map(str, constraints)),
        seed=config.seed,
        lag=config.lag or (1 if config.workers == 1 else 4 * config.workers),
        ordering=config.order,
        early_stop=_pruner_from(config, evaluator),
        scoring=settings_of(space, settings.facts.data, config.scoring),
        supernet=_supernet_from(config, space, strategy_config, settings) if is_one_shot(strategy) else None,
        final_size=_final_size(
            config, space, size, evaluator, shared, is_one_shot(strategy), settings.facts.hosts
        ).model_dump(mode="json"),
        inputs=_inputs(evaluator),
        files=refs.hashes([config.strategy, config.early_stop, strategy_config.model_dump(mode="json"), sized]) or None,
    )


def _inputs(evaluator: Evaluator) -> JsonObject | None:
    """What the data of an evaluator say of a network's inputs: nothing of a table, or of a source of another class."""
    inputs = getattr(getattr(evaluator, "source", None), "inputs", None)
    return None if inputs is None else inputs.model_dump(mode="json")


def _asked(space: SearchSpace, size: str | Mapping[str, Any]) -> SizeConfig:
    """The size that a user asks for; where fields are not said, they are not those of an old study."""
    return size_of(space, size if isinstance(size, str) else {**space.Size.unsaid, **size})


def _final_size(
    config: SearchConfig,
    space: SearchSpace,
    size: SizeConfig,
    evaluator: Any,
    shared: Shared | None,
    one_shot: bool,
    hosts: Sequence[str],
) -> SizeConfig:
    """What was asked for; by default what a table has recorded, what a supernet was trained for, `full` for a one-shot
    strategy, the search size for others. Raises UsageError for another size than a table's."""
    task = evaluator.task
    asked = None if config.final_size is None else at_first(_asked(space, config.final_size), hosts).fitted(task)
    recorded: SizeConfig | None = getattr(evaluator, "recorded_size", None)
    if recorded is not None:
        if asked not in (None, recorded):
            raise UsageError(
                f"--final-size '{asked}': table '{evaluator.file}' records networks of size "
                f"'{recorded}', and so are its costs; leave out --final-size"
            )
        return recorded
    if asked is not None:
        return asked
    if shared is not None:
        return size_of(space, shared.final_size)
    return space.Size.preset("full").fitted(task) if one_shot else size


def _supernet_from(
    config: SearchConfig, space: SearchSpace, strategy: OneShotConfig, evaluator: EvaluatorSettings
) -> SupernetSettings:
    """The settings of a supernet from a user's configuration. Raises UsageError for what one-shot searches lack."""
    if config.trials is not None or config.spend is not None:
        raise UsageError(
            f"strategy '{config.strategy}' trains a supernet and derives its candidates; leave out --trials and "
            "--spend (its length: -s strategy.epochs=N)"
        )
    facts = evaluator.facts
    data = facts.data if facts.trains else None
    return supernet_settings(space, strategy, config.supernet, data, facts.split, config.evaluator.compute)


def _guarded(config: SearchConfig) -> SearchConfig:
    """`--guard hessian` puts the strategy inside of `hessian-guard`."""
    if config.guard is None:
        return config
    settings = {"inner": config.strategy, "inner_config": config.strategy_config}
    return config.model_copy(update={"guard": None, "strategy": f"{config.guard}-guard", "strategy_config": settings})


def _warmed_up(config: SearchConfig) -> SearchConfig:
    """`--warm-up PREDICTOR:N` puts the strategy inside of `warm-up`. Raises UsageError for another text."""
    if config.warm_up is None:
        return config
    predictor, _, size = config.warm_up.rpartition(":")
    if not predictor or not size.isdecimal():
        raise UsageError(f"--warm-up '{config.warm_up}' is malformed; write PREDICTOR:N, for example vote:300")
    settings = {
        "predictor": predictor,
        "pool": int(size),
        "inner": config.strategy,
        "inner_config": config.strategy_config,
    }
    return config.model_copy(update={"warm_up": None, "strategy": "warm-up", "strategy_config": settings})


def _enqueued(config: SearchConfig) -> SearchConfig:
    """`--enqueue NAME,...` puts the strategy inside of `enqueue`. Raises UsageError for one that trains a supernet."""
    if not config.enqueue:
        return config
    if is_one_shot(refs.find(config.strategy, strategies.ALL, strategies.GROUP, "strategy")):
        raise UsageError(
            f"--enqueue is for strategies that propose candidates, and '{config.strategy}' trains a supernet; "
            "leave it out, or compare by --baselines"
        )
    settings = {"names": config.enqueue, "inner": config.strategy, "inner_config": config.strategy_config}
    return config.model_copy(update={"enqueue": (), "strategy": "enqueue", "strategy_config": settings})


def stop_at(config: SearchConfig, spec: StudySpec) -> StopAt:
    """The budget; without one, 20 trainings or 100 look-ups."""
    if spec.supernet is not None:
        return StopAt(seconds=config.time)
    if config.trials is None and config.time is None and config.spend is None:
        return StopAt(trials=100 if spec.evaluator.facts.looks_up else 20)
    return StopAt(trials=config.trials, seconds=config.time, spent=config.spend)


def build(spec: StudySpec) -> StudyObjects:
    """The live objects of a stored study.

    Raises UsageError when the space's file, the data or the table are not what the study was made with, MachineError
    where its device is not there.
    """
    _require_device(spec.evaluator.facts.device)
    space, file_hash = load_space(spec.space)
    if file_hash != spec.space_hash:
        raise UsageError(
            f"the file of space '{spec.space}' has changed since the study was made "
            f"(then {spec.space_hash}, now {file_hash}); restore it, or start another --study"
        )
    if not builds(space, spec.space_version):
        raise UsageError(
            f"space '{spec.space}' is version {space.version}, but the study was made with {spec.space_version}; "
            "start another --study"
        )
    size = size_of(space, spec.size)
    final = size_of(space, final_size_of(spec))
    evaluator, split_hash = kinds.opened(spec.evaluator, Problem(space, size, final))
    facts = spec.evaluator.facts
    if split_hash != spec.split_hash:
        raise UsageError(
            f"the data '{facts.data}'{_beside(facts)} is not what the study was made with "
            f"(split {spec.split_hash} then, {split_hash} now); restore it, or start another --study"
        )
    objectives = tuple(parse_objective(text, evaluator.metrics) for text in spec.objectives)
    constraints = tuple(parse_constraint(text, evaluator.metrics) for text in spec.constraints)
    wanted = [*(one.metric for one in objectives), *(one.metric for one in constraints)]
    if not facts.looks_up and needs_costs_only(evaluator, wanted):
        evaluator = CostsOnly(evaluator)
    strategy = refs.find(spec.strategy, strategies.ALL, strategies.GROUP, "strategy")
    config = restore(strategy.Config, spec.strategy_config, "strategy")
    files = spec.files or {}
    check_files(files, {path: digest_of(Path(path)) for path in files if Path(path).is_file()})

    def identity(arch: Architecture) -> str:
        return evaluator.identity(arch) or _identity(space, arch)

    opening = source_of(spec, space, size)
    fan_out = None if facts.recipe is None else facts.recipe.fan_out
    scored = None if opening is None else Counted(Scoring(opening))
    warm_start = tuple((Architecture(space.name, values), value) for values, value in spec.warm_start or ())
    fidelity = _up_to(evaluator.fidelity, facts.level)
    # What a study stored before bounds is what its strategy trains.
    network = None if spec.final_size is None else (evaluator.task, final)
    setting = Setting(space, spec.seed, objectives, constraints, identity, fidelity, scored, warm_start, network)
    return StudyObjects(
        space=space,
        size=size,
        evaluator=evaluator,
        objectives=objectives,
        constraints=constraints,
        setting=setting,
        strategy=strategy,
        strategy_config=config,
        budget=facts.level,
        trial_seconds=facts.trial_seconds,
        early_stop=None if spec.early_stop is None else _pruner(spec.early_stop),
        scored=scored,
        supernet=None if spec.supernet is None else parts_of(spec.supernet, strategy, config, setting, size, fan_out),
    )


def _identity(space: SearchSpace, arch: Architecture) -> str:
    """That of the functions an architecture computes and of the recipe that it decides."""
    decided = space.recipe(arch)
    return space.identity(arch) + (f" {json.dumps(dict(decided), sort_keys=True)}" if decided else "")


def completed(spec: StudySpec) -> StudySpec:
    """A stored study's configuration with the settings that came later, as what such a study does by them."""
    strategy = refs.find(spec.strategy, strategies.ALL, strategies.GROUP, "strategy")
    config = restore(strategy.Config, spec.strategy_config, "strategy")
    supernet = spec.supernet
    if supernet is not None and supernet.learns_on is None:
        supernet = supernet.model_copy(update={"learns_on": learns_on(spec.task, config)})
    space, _ = load_space(spec.space)
    version = space.version if builds(space, spec.space_version) else spec.space_version
    return spec.model_copy(
        update={
            "space_version": version,
            "strategy_config": config.model_dump(mode="json"),
            "supernet": supernet,
        }
    )


def _beside(facts: Facts) -> str:
    return "" if facts.costs is None else f" with the costs '{facts.costs}'"


def _up_to(fidelity: Fidelity | None, level: float | None) -> Fidelity | None:
    """The fidelity that a study can use: nothing above the level that it names."""
    if fidelity is None or level is None:
        return fidelity
    levels = tuple(known for known in fidelity.levels or () if known <= level)
    return replace(fidelity, high=level, levels=levels or None) if levels != (level,) else None


def moved(spec: StudySpec, place: str | None, costs: str | None = None, scores: str | None = None) -> StudySpec:
    """The same study with its data or table, or its table of costs or scores, at another place; `build` checks that it
    is the same. Raises UsageError for a table that the study has none of."""
    evaluator = spec.evaluator if place is None else spec.evaluator.at(place)
    if costs is not None:
        elsewhere = evaluator.costs_at(costs)
        if elsewhere is None:
            raise UsageError("the study has no table of costs; leave out --costs")
        evaluator = elsewhere
    updates: dict[str, Any] = {"evaluator": evaluator}
    facts, trained = spec.evaluator.facts, spec.supernet
    if place is not None and trained is not None and trained.data == facts.data and not facts.looks_up:
        updates["supernet"] = trained.model_copy(update={"data": place})
    if scores is not None:
        if not isinstance(spec.scoring, RecordedScores):
            raise UsageError("the study has no table of scores; leave out --scores")
        updates["scoring"] = spec.scoring.model_copy(update={"table": scores})
    return spec.model_copy(update=updates)


def _require_device(device: str | None) -> None:
    """Raises MachineError for a GPU that this machine has not: on another type of device results are other ones."""
    if device is None or not device.startswith("cuda"):
        return
    try:
        find_device(device)
    except MachineError as error:
        found = str(error).partition(";")[0]
        raise MachineError(
            f"{found}, and the study works on one; go on where it is, or start another --study with --device cpu"
        ) from None


def _pruner_from(config: SearchConfig, evaluator: Evaluator) -> EarlyStop | None:
    """The early stopping of a user's configuration, with all its settings."""
    if config.early_stop is None:
        if config.early_stop_config:
            raise UsageError(
                f"early stopping has settings ({', '.join(config.early_stop_config)}) but no rule: "
                "name one by --early-stop"
            )
        return None
    if evaluator.fidelity is None or not evaluator.fidelity.continues:
        raise UsageError(
            f"early stopping '{config.early_stop}' needs candidates that report as they are trained; a table answers "
            "at once (--evaluator train)"
        )
    kind = refs.find(config.early_stop, early_stopping.BUILTIN, early_stopping.GROUP, "pruner")
    settings = validate(kind.Config, config.early_stop_config, f"pruner {config.early_stop}")
    return EarlyStop(name=config.early_stop, config=settings.model_dump(mode="json"))


def _pruner(stored: EarlyStop) -> Pruner:
    kind = refs.find(stored.name, early_stopping.BUILTIN, early_stopping.GROUP, "pruner")
    pruner: Pruner = kind(validate(kind.Config, stored.config, "pruner"))
    return pruner


def _objectives(config: SearchConfig, evaluator: Evaluator, task: Task) -> tuple[str, ...]:
    """Those asked for, or the task's metric on the validation part, or what the evaluator reports first."""
    names, usual = [metric.name for metric in evaluator.metrics], f"val_{task.metric}"
    return config.objectives or (usual if usual in names else names[0],)
