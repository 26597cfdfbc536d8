"""What begins, resumes and runs a search, for every face of this program: commands, benchmarks, Python.

plan = planned(config)                 # nothing is stored before this has come to its end
ending = run(store, start(store, plan))
ending = run(store, resume(store, "name"))
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import strategies
from nas_core import refs
from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.names import stem
from nas_core.records import BASELINE, Baseline, StopAt
from nas_core.space import known_by_name
from nas_core.strategy import uses_warm_start
from search_spaces.own_network import OwnNetwork
from studies.analysis.queries import died_in, evaluated, observations
from studies.environment import environment
from studies.events import Listener, silent
from studies.executors.choose import candidates, executor, job
from studies.executors.where import HERE, Where
from studies.jobs.supernet import Supernet
from studies.records import Study, StudySpec, as_stored
from studies.search import supernet
from studies.search.baselines import Baselines
from studies.search.endings import Ending
from studies.search.loop import Search
from studies.search.supernet import SupernetTraining, derived
from studies.setup.assemble import StudyObjects, build, completed, describe, moved, stop_at
from studies.setup.config import SearchConfig
from studies.setup.supernets import is_one_shot
from studies.store import supernets
from studies.store.store import Store
from training.evaluators import kinds
from training.evaluators.settings import Shared


@dataclass(frozen=True)
class Planned:
    """A search as it was asked for, resolved and checked, before anything of it is stored."""

    config: SearchConfig
    spec: StudySpec
    objects: StudyObjects
    budget: StopAt
    baselines: tuple[Baseline, ...] = ()


@dataclass(frozen=True)
class Opened:
    """A stored study with its live objects, and how long it is to go on."""

    study: Study
    objects: StudyObjects
    budget: StopAt


class Watching:
    """What a face shows of a study; this one shows nothing."""

    def supernet(self, opened: Opened) -> AbstractContextManager[Listener]:
        """Listens to the training of a supernet, within `with`."""
        return nullcontext(silent)

    def baselines(self, opened: Opened) -> AbstractContextManager[Listener]:
        """Listens to the evaluation of baselines."""
        return nullcontext(silent)

    def search(
        self, opened: Opened, evaluated: int, best: tuple[float, int] | None
    ) -> AbstractContextManager[Listener]:
        """Listens to a search that has so many evaluations already, and the best value with its trial."""
        return nullcontext(silent)

    def say(self, text: str) -> None:
        """What should be known before it begins."""


def planned(config: SearchConfig, store: Store | None = None, warm_start: str | None = None) -> Planned:
    """Resolve a configuration. The `store` is read where the evaluator is `supernet:STUDY` or another study's results
    are a `warm_start`. Raises UsageError, NotFoundError or MachineError for whatever does not fit."""

    def warmed(spec: StudySpec) -> StudySpec:
        if warm_start is None:
            return spec
        assert store is not None
        return _warm(store, store.study(warm_start), spec)

    described = describe(config, _shared(config, store), warmed)
    spec, objects = described.spec, described.objects
    objects.check()  # a strategy that cannot handle this says so before anything is stored
    if isinstance(objects.space, OwnNetwork):
        objects.space.check(spec.task)
    known = known_by_name(objects.space, config.baselines)
    if known and spec.evaluator.facts.told:
        raise UsageError(
            f"--baselines {','.join(known)}: the results of this study are told to it, so nothing evaluates them; "
            "leave it out"
        )
    baselines = tuple(Baseline(name, arch, objects.identity(arch)) for name, arch in known.items())
    return Planned(config, spec, objects, stop_at(config, spec), baselines)


def start(store: Store, plan: Planned) -> Opened:
    """Store a study, or go on with the one of that name. Raises UsageError where that has another configuration."""
    study = _study(store, plan)
    return Opened(study, plan.objects if study.spec == plan.spec else build(study.spec), plan.budget)


def resume(
    store: Store,
    name: str,
    *,
    trials: int | None = None,
    time: float | None = None,
    spend: float | None = None,
    data: str | None = None,
    costs: str | None = None,
    scores: str | None = None,
) -> Opened:
    """A stored study, to go on with: until its own budget is spent, or another one. `data` (or the table), `costs` and
    `scores` are the same ones at another place.

    Raises NotFoundError, and UsageError for fewer trials than there are, or for anything that has changed.
    """
    study = store.study(name)
    budget = study.stop_at
    if trials is not None or time is not None or spend is not None:
        budget = validate(StopAt, {"trials": trials, "seconds": time, "spent": spend}, "budget")
        _check_trials(store, study, trials)
    spec = moved(study.spec, data, costs, scores)
    return Opened(replace(study, spec=spec), build(spec), budget)


def supernet_first(config: SearchConfig, then: str) -> SearchConfig:
    """The first of two studies: a supernet's, on which `then` searches. Raises UsageError for a strategy that trains
    none."""
    if not is_one_shot(refs.find(config.strategy, strategies.ALL, strategies.GROUP, "strategy")):
        raise UsageError(
            f"--then {then}: strategy '{config.strategy}' trains no supernet to go on with; "
            f"use one of {', '.join(strategies.ONE_SHOT)}"
        )
    return config.model_copy(update={"trials": None, "spend": None})


def on_supernet(config: SearchConfig, then: str, study: Study) -> SearchConfig:
    """The second of two studies: strategy `then` on the trained supernet of the first."""
    return config.model_copy(
        update={
            "study": stem(f"{study.name}-{then.rpartition(':')[2]}"),
            "strategy": then,
            "strategy_config": config.then,
            "evaluator": kinds.on_supernet(config.evaluator, study.name),
            "objectives": None,
        }
    )


def run(
    store: Store,
    opened: Opened,
    *,
    where: Where = HERE,
    watching: Watching | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Ending:
    """Go on with a study until its budget is spent: train its supernet where it has one, then evaluate candidates."""
    study, watching = opened.study, watching or Watching()
    if study.spec.evaluator.facts.told:
        raise UsageError(
            f"the results of study '{study.name}' are told to it: nas ask {study.name}, then "
            f"nas tell {study.name}:NUMBER METRIC=VALUE"
        )
    if where.workers > study.spec.lag and study.spec.ordering == "strict":
        watching.say(f"the study's lag is {study.spec.lag}, so no more than that of {where.workers} workers are busy")
    with store.lock(study):
        if opened.budget != study.stop_at:
            store.set_stop_at(study, opened.budget)
            opened = replace(opened, study=replace(study, stop_at=opened.budget))
        facts = store.environment(environment(study.spec))
        try:
            ending = _train(store, opened, where, watching, stopping, facts)
            begun = time.monotonic()
            ending = ending or _baselines(store, opened, where, watching, stopping, facts)
            return ending or _search(store, opened, where, watching, stopping, facts, time.monotonic() - begun)
        except KeyboardInterrupt:  # the second one: at once
            return Ending.INTERRUPTED


def _train(
    store: Store,
    opened: Opened,
    where: Where,
    watching: Watching,
    stopping: Callable[[], bool],
    environment: int,
) -> Ending | None:
    """Train the study's supernet, which is one piece of work; None: there is none, or it has derived what to
    evaluate."""
    study, parts = opened.study, opened.objects.supernet
    if parts is None:
        return None
    work, alone = Supernet(parts), replace(where, workers=1, per_gpu=None, gpu_memory=None)
    with watching.supernet(opened) as listener:
        training = SupernetTraining(
            *(store, study, work, lambda: executor(job(store, study, work), alone)),
            listener=listener,
            stopping=stopping,
            environment=environment,
        )
        ending = training.run(study.stop_at.seconds)
    if ending is not None:
        return ending
    found = supernets.find(store, study)
    assert found is not None
    return None if found.result else Ending.SUPERNET


def _baselines(
    store: Store,
    opened: Opened,
    where: Where,
    watching: Watching,
    stopping: Callable[[], bool],
    environment: int,
) -> Ending | None:
    """Evaluate the study's baselines; None: they all have ended, or there are none."""
    study, objects = opened.study, opened.objects
    runs = store.runs(study, BASELINE)
    for run in runs:
        if run.finished:  # a process that was killed may have left its folder
            shutil.rmtree(store.folder(study, run), ignore_errors=True)
    if all(run.finished for run in runs):
        return None
    seconds = study.stop_at.seconds
    with watching.baselines(opened) as listener:
        baselines = Baselines(
            *(store, study, objects, executor(candidates(store, study, objects), where)),
            listener=listener,
            stopping=stopping,
            environment=environment,
        )
        return baselines.run(None if seconds is None else time.monotonic() + seconds)


def _search(
    store: Store,
    opened: Opened,
    where: Where,
    watching: Watching,
    stopping: Callable[[], bool],
    environment: int,
    spent: float,
) -> Ending:
    """Evaluate candidates; `spent`: seconds that something else has taken of the study's time."""
    study, objects = opened.study, opened.objects
    died = died_in(store, study)
    work = candidates(store, study, objects, apart=died is not None)
    own = executor(work, where)
    if died is not None and where == HERE and own.apart and objects.evaluator.in_process:
        watching.say(f"trial {died} may have taken its process down; candidates now get a process of their own")
    search = Search(
        store, study, derived(store, study, objects), stopping=stopping, environment=environment, executor=own
    )
    with watching.search(opened, search.evaluated, search.best) as listener:
        search.listener = listener
        ending = search.run(_after(study.stop_at, spent))
    return Ending.DERIVED if objects.supernet is not None and ending == Ending.EXHAUSTED else ending


def _after(budget: StopAt, seconds: float) -> StopAt:
    """What is left of a budget after so many seconds."""
    if budget.seconds is None:
        return budget
    return budget.model_copy(update={"seconds": max(0.0, budget.seconds - seconds)})


def _check_trials(store: Store, study: Study, trials: int | None) -> None:
    """Raises UsageError for fewer trials than there are: the number is that of all, not of more."""
    done = evaluated(store, study)
    if trials is not None and trials < done:
        raise UsageError(
            f"--trials {trials}: study '{study.name}' has {done} evaluated trials already, and the number is that of "
            f"all of them; for {trials} more: --trials {done + trials}"
        )


def _shared(config: SearchConfig, store: Store | None) -> Shared | None:
    """The trained supernet that the evaluator `supernet:STUDY` names."""
    name = config.evaluator.supernet
    if name is None:
        return None
    assert store is not None
    return supernet.shared(store, store.study(name))


def _warm(store: Store, source: Study, spec: StudySpec) -> StudySpec:
    """The study with another one's results as its warm start. Raises UsageError for those of another space, or for
    none."""

    def learns(strategy: str) -> bool:
        return uses_warm_start(refs.find(strategy, strategies.ALL, strategies.GROUP, "strategy"))

    if not learns(spec.strategy):
        able = ", ".join(name for name in strategies.BUILTIN if learns(name))
        raise UsageError(
            f"--warm-start {source.name}: strategy '{spec.strategy}' learns from no other study; use {able}"
        )
    if (source.spec.space_name, source.spec.space_hash) != (spec.space_name, spec.space_hash):
        raise UsageError(
            f"--warm-start {source.name}: that study searched space '{source.spec.space_name}', "
            f"not '{spec.space_name}' of the same definition"
        )
    known = observations(store, source)
    if not known:
        raise UsageError(f"--warm-start {source.name}: that study has no result yet")
    return spec.model_copy(update={"warm_start": tuple((dict(arch.values), value) for arch, value in known)})


def _study(store: Store, plan: Planned) -> Study:
    """The named study if its configuration is the same, or a new one. Raises UsageError if it differs."""
    config, spec, name = plan.config, plan.spec, plan.config.study
    if name is None:
        read = spec.evaluator.facts.data or spec.evaluator.kind.rpartition(":")[2]
        text = f"{spec.space_name}-{read.split(':')[0]}"
        return store.create_numbered_study(stem(text), spec, plan.budget, plan.baselines)
    existing = store.study_or_new(name, spec, plan.budget, baselines=plan.baselines)
    asked = {key for key in config.model_fields_set if getattr(config, key) is not None}
    old, new = completed(existing.spec).model_dump(), as_stored(spec, existing.spec, asked).model_dump()
    different = [f"{key}: {old[key]!r} there, {new[key]!r} now" for key in old if old[key] != new[key]]
    if different:
        raise UsageError(
            f"study '{name}' exists with another configuration ({'; '.join(different)})\n"
            f"Choose another --study, or go on with the stored one: nas resume {name}"
        )
    if plan.baselines:
        store.add_baselines(existing, plan.baselines)
    return existing
