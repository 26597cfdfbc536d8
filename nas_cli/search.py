"""`nas search` and `nas resume`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas_cli import complete
from nas_cli.options import DEFAULT_DB, Db, Files, Json, Metrics, StudyName, open_store
from nas_cli.run import run

if TYPE_CHECKING:
    from nas_core.records import StopAt, Study, StudySpec
    from studies.setup.assemble import StudyObjects
    from studies.setup.config import SearchConfig
    from studies.setup.evaluators import TrainedSupernet
    from studies.store.store import Store

Durable = Annotated[bool, typer.Option("--durable", help="Wait for the disk at every commit (power failures).")]
Trials = Annotated[int | None, typer.Option("--trials", "-n", help="Stop after this many evaluations.")]
Time = Annotated[float | None, typer.Option("--time", help="Stop after this many seconds.")]
Spend = Annotated[float | None, typer.Option("--spend", help="Stop when budgets come to this many full evaluations.")]


def search(
    config: Annotated[Path | None, typer.Argument(help="YAML file with the keys below.")] = None,
    space: Annotated[
        str | None, typer.Option(help="Search space: a name, or FILE.py:OBJECT.", autocompletion=complete.spaces)
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="search, full, or changes such as channels=8,cells=1.", autocompletion=complete.sizes),
    ] = None,
    final_size: Annotated[
        str | None,
        typer.Option(
            help="Of the network that you get, whose costs count [default: --size; one-shot: full].",
            autocompletion=complete.sizes,
        ),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Search strategy: a name, or FILE.py:CLASS.", autocompletion=complete.strategies)
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data reference (see 'nas data list').", autocompletion=complete.data)
    ] = None,
    table: Annotated[Path | None, typer.Option(help="Look results up in this table instead of training.")] = None,
    costs: Annotated[Path | None, typer.Option(help="Table with more cost metrics, e.g. latencies.")] = None,
    scores: Annotated[Path | None, typer.Option(help="Table with recorded scores of zero-cost proxies.")] = None,
    score_on: Annotated[
        str | None, typer.Option(help="Data on which untrained networks are scored.", autocompletion=complete.data)
    ] = None,
    evaluator: Annotated[
        str | None, typer.Option(help="train, table, or supernet:STUDY.", autocompletion=complete.evaluators)
    ] = None,
    early_stop: Annotated[
        str | None,
        typer.Option(
            "--early-stop",
            "--pruner",
            help="Stop single trainings early: median, percentile, ...",
            autocompletion=complete.pruners,
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(help="Metric, or METRIC:min; repeat for several.", autocompletion=complete.objectives),
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(help="Such as params<=5e5; repeat for several.", autocompletion=complete.constraints),
    ] = None,
    metric: Metrics = None,
    trials: Trials = None,
    time: Time = None,
    spend: Spend = None,
    trial_time: Annotated[float | None, typer.Option(help="Seconds that one trial may take.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Training recipe: quick, standard, paper or ae-cnn.", autocompletion=complete.recipes),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs per trial.")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=complete.devices)
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of a training.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    workers: Annotated[int | None, typer.Option(help="Candidates evaluated at a time, each in a process.")] = None,
    lag: Annotated[int | None, typer.Option(help="Ask k sees outcomes up to k-lag [default: 4 per worker].")] = None,
    order: Annotated[
        str | None,
        typer.Option(help="strict: timing changes nothing; free: tell as they come.", autocompletion=complete.orders),
    ] = None,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="Bitwise repeatable on a GPU.")] = False,
    warm_up: Annotated[
        str | None, typer.Option(metavar="PREDICTOR:N", help="Begin with the best-scored of N random architectures.")
    ] = None,
    guard: Annotated[
        str | None,
        typer.Option(help="hessian: stop a one-shot search before it collapses.", autocompletion=complete.guards),
    ] = None,
    search_on: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Data that a supernet is trained on, where it is not --data.",
            autocompletion=complete.data,
        ),
    ] = None,
    then: Annotated[
        str | None,
        typer.Option(
            metavar="STRATEGY",
            help="Search on the trained supernet with this strategy.",
            autocompletion=complete.strategies,
        ),
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="Learn from another study's results.", autocompletion=complete.studies),
    ] = None,
    study: Annotated[str | None, typer.Option(help="Name of the study [default: made up].")] = None,
    setting: Annotated[list[str] | None, typer.Option("-s", help="KEY=VALUE, e.g. strategy.population=20.")] = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
    durable: Durable = False,
    as_json: Json = False,
) -> int:
    """Search for an architecture. Without arguments: a real search on embedded data, in under two minutes."""
    from nas_cli.configuration import gather
    from studies.setup.assemble import build, describe, stop_at

    flags = {
        "space": space,
        "size": size,
        "final_size": final_size,
        "strategy": strategy,
        "data": data,
        "table": None if table is None else str(table),
        "costs": None if costs is None else str(costs),
        "scores": None if scores is None else str(scores),
        "score_on": score_on,
        "evaluator": evaluator,
        "early_stop": early_stop,
        "objectives": objective,
        "constraints": constraint,
        "metrics": metric,
        "trials": trials,
        "time": time,
        "spend": spend,
        "trial_time": trial_time,
        "recipe": recipe,
        "epochs": epochs,
        "device": device,
        "threads": threads,
        "seed": seed,
        "workers": workers,
        "lag": lag,
        "order": order,
        "deterministic": deterministic or None,
        "warm_up": warm_up,
        "guard": guard,
        "supernet": None if search_on is None else {"data": search_on},
        "study": study,
    }
    wanted = gather(config, setting or [], flags)
    if then is not None:
        return _both(wanted, then, db, files, durable, as_json)
    spec = describe(wanted, _shared(wanted, db, files))
    if warm_start is not None:
        with open_store(db, files, reading=True) as store:
            spec = _warm(store, store.study(warm_start), spec)
    parts = build(spec)
    parts.check()  # a strategy that cannot handle this says so before anything is stored
    with open_store(db, files, create=True, durable=durable) as store:
        budget = stop_at(wanted, spec)
        found = _study(store, wanted, spec, budget)
        return run(store, found, _parts(found, spec, parts), budget, wanted.workers, as_json)


def resume(
    study: StudyName,
    trials: Trials = None,
    time: Time = None,
    spend: Spend = None,
    workers: Annotated[int, typer.Option(min=1, help="Candidates evaluated at a time; the study stays the same.")] = 1,
    data: Annotated[str | None, typer.Option(help="The same data or table at another place.")] = None,
    costs: Annotated[str | None, typer.Option(help="The same table of costs at another place.")] = None,
    scores: Annotated[str | None, typer.Option(help="The same table of scores at another place.")] = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
    durable: Durable = False,
    as_json: Json = False,
) -> int:
    """Go on with a study, however it stopped. --trials, --time and --spend raise its budget."""
    from nas_core.config import validate
    from nas_core.records import StopAt
    from studies.setup.assemble import build, moved

    with open_store(db, files, durable=durable) as store:
        found = store.study(study)
        budget = found.stop_at
        if trials is not None or time is not None or spend is not None:
            budget = validate(StopAt, {"trials": trials, "seconds": time, "spent": spend}, "budget")
            _check_trials(store, found, trials)
        spec = moved(found.spec, data, costs, scores)
        return run(store, replace(found, spec=spec), build(spec), budget, workers, as_json)


def _check_trials(store: Store, study: Study, trials: int | None) -> None:
    """Raises UsageError for fewer trials than there are: the number is that of all, not of more."""
    from nas_core.errors import UsageError
    from studies.analysis.queries import evaluated

    done = evaluated(store, study)
    if trials is not None and trials < done:
        raise UsageError(
            f"--trials {trials}: study '{study.name}' has {done} evaluated trials already, and the number is that of "
            f"all of them; for {trials} more: --trials {done + trials}"
        )


def _both(wanted: SearchConfig, then: str, db: str, files: Path | None, durable: bool, as_json: bool) -> int:
    """Train a supernet in one study, and search on it with another strategy in a second one. Called again, it goes on
    where it was. Raises UsageError for a strategy that trains none."""
    import strategies
    from nas_core import refs
    from nas_core.errors import UsageError
    from studies.search.supernet import shared
    from studies.setup.assemble import build, describe, stop_at
    from studies.setup.supernets import is_one_shot

    if not is_one_shot(refs.find(wanted.strategy, strategies.ALL, strategies.GROUP, "strategy")):
        raise UsageError(
            f"--then {then}: strategy '{wanted.strategy}' trains no supernet to go on with; "
            f"use one of {', '.join(strategies.ONE_SHOT)}"
        )
    first = wanted.model_copy(update={"trials": None, "spend": None})
    spec = describe(first)
    parts = build(spec)
    parts.check()
    with open_store(db, files, create=True, durable=durable) as store:
        budget = stop_at(first, spec)
        study = _study(store, wanted, spec, budget)
        code = run(store, study, _parts(study, spec, parts), budget, wanted.workers, as_json, first=True)
        if code:
            return code
        second = wanted.model_copy(
            update={
                "study": f"{study.name}-{then.rpartition(':')[2]}",
                "strategy": then,
                "strategy_config": wanted.then,
                "evaluator": f"supernet:{study.name}",
                "table": None,
                "objectives": None,
            }
        )
        spec = describe(second, shared(store, study))
        parts = build(spec)
        parts.check()
        budget = stop_at(second, spec)
        study = _study(store, second, spec, budget)
        return run(store, study, _parts(study, spec, parts), budget, wanted.workers, as_json)


def _shared(wanted: SearchConfig, db: str, files: Path | None) -> TrainedSupernet | None:
    """The trained supernet that `--evaluator supernet:STUDY` names."""
    from nas_core.errors import UsageError
    from studies.search.supernet import shared

    kind, separator, name = wanted.evaluator.partition(":")
    if kind != "supernet":
        return None
    if not separator or not name:
        raise UsageError("--evaluator supernet needs a study with a trained supernet; write supernet:STUDY")
    with open_store(db, files, reading=True) as store:
        return shared(store, store.study(name))


def _warm(store: Store, source: Study, spec: StudySpec) -> StudySpec:
    """The study with another one's results as its warm start. Raises UsageError for those of another space, or for
    none."""
    import strategies
    from nas_core import refs
    from nas_core.errors import UsageError
    from nas_core.strategy import uses_warm_start
    from studies.analysis.queries import observations

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


def _study(store: Store, wanted: SearchConfig, spec: StudySpec, budget: StopAt) -> Study:
    """The named study if its configuration is the same, or a new one. Raises UsageError if it differs."""
    from nas_core.errors import UsageError
    from nas_core.names import stem
    from nas_core.records import as_stored
    from studies.setup.assemble import completed

    name = wanted.study
    if name is None:
        text = f"{spec.space_name}-{spec.evaluator['data'].split(':')[0]}"
        return store.create_numbered_study(stem(text), spec, budget)
    existing = store.study_or_new(name, spec, budget)
    asked = {key for key in wanted.model_fields_set if getattr(wanted, key) is not None}
    old, new = completed(existing.spec).model_dump(), as_stored(spec, existing.spec, asked).model_dump()
    different = [f"{key}: {old[key]!r} there, {new[key]!r} now" for key in old if old[key] != new[key]]
    if different:
        raise UsageError(
            f"study '{name}' exists with another configuration ({'; '.join(different)})\n"
            f"Choose another --study, or go on with the stored one: nas resume {name}"
        )
    return existing


def _parts(study: Study, spec: StudySpec, parts: StudyObjects) -> StudyObjects:
    """The objects of a study: `parts`, which are of `spec`, unless what is stored is older."""
    from studies.setup.assemble import build

    return parts if study.spec == spec else build(study.spec)
