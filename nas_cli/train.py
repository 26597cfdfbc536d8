"""`nas train`: retrain an architecture of a study with a full recipe and several seeds, or find its learning rate."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas_cli import complete
from nas_cli.driving import drive, interrupted, said, spread
from nas_cli.options import DEFAULT_DB, Db, Files, Json, Metrics, open_store
from nas_cli.search_options import Executor, GpuMemory, PerGpu
from studies.executors.where import AUTO, Where

if TYPE_CHECKING:
    from nas_core.records import Run
    from studies.analysis.costs import Limit
    from studies.records import Study
    from studies.store.store import Store


def train(
    address: Annotated[
        str,
        typer.Argument(
            metavar="STUDY[:N]|FILE.py:OBJECT",
            help="A study, its trial number N, or a network of your own (--data).",
            autocompletion=complete.studies,
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="quick, standard, or one of a paper: see 'nas spaces show'. [default: standard]",
            autocompletion=complete.recipes,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="search, full, or full,channels=8 [default: the study's final size].", autocompletion=complete.sizes
        ),
    ] = None,
    hosts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,...",
            help="Networks that a layer is trained in [default: the study's].",
            autocompletion=complete.hosts,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=0, help="Epochs instead of the recipe's; 0 takes a network's --weights as they are."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many trainings, each with its own seed.")] = 1,
    top: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="Train the study's best K trials, and rank them by that.")
    ] = None,
    folds: Annotated[
        bool, typer.Option("--folds", help="Train on every fold (split.folds) in turn, and report their mean.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Trainings at a time, each in a process.")] = 1,
    executor: Executor = AUTO,
    per_gpu: PerGpu = None,
    gpu_memory: GpuMemory = None,
    data: Annotated[
        str | None, typer.Option(help="Data instead of the study's (needed for tables).", autocompletion=complete.data)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=complete.devices)
    ] = None,
    metric: Metrics = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights to start from: FILE.safetensors (or .pt, .pth), or STUDY:N/train-K.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Learn from a trained network too: STUDY:N, STUDY:N/train-K or EXPORT.json."),
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("-s", help="[recipe.]KEY=VALUE of the recipe, e.g. lr=0.05; split.KEY=VALUE.")
    ] = None,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Train nothing: run a learning-rate range test and suggest rates.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(help="Of --find-lr: a .png or .svg file [default: lr-range.svg in the folder of the trial]."),
    ] = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
    as_json: Json = False,
) -> int:
    """Train STUDY:N (or the study's best), or a network of your own, from scratch and keep the weights; the test part
    is scored at the end."""
    from nas_cli import find_lr as range_test
    from nas_cli.ending import places
    from nas_cli.folds import train_folds
    from nas_cli.top import check_ranked, rank
    from nas_core.errors import UsageError
    from studies.address import address_of, is_object, is_path
    from studies.analysis.queries import addressed_trial
    from studies.analysis.trained import start_of
    from studies.jobs.commands import train as again
    from studies.jobs.own_network import study_of
    from studies.jobs.teacher import teacher_of
    from studies.jobs.train import folds_of, hosts_of, split_of, training

    if picture is not None and not find_lr:
        raise UsageError("--picture is the picture of --find-lr; a training draws none")
    if top is not None:
        check_ranked(address, ["--find-lr"] if find_lr else [])
    where = Where(workers, executor, per_gpu, gpu_memory)
    for flag, value in where.said.items() if find_lr else ():
        raise UsageError(f"{flag} {value} is for trainings; --find-lr tests one network")
    if find_lr and seeds != 1:
        raise UsageError(f"--seeds {seeds} is for trainings; --find-lr tests one network")
    if find_lr and folds:
        raise UsageError("--folds is for trainings; --find-lr tests one network")
    if epochs == 0:
        refused = {
            "--recipe": recipe, "--size": size, "--hosts": hosts, "--metric": metric, "--teacher": teacher,
            "-s": setting, "--find-lr": find_lr, "--seeds": seeds > 1, "--folds": folds, "--top": top, **where.said,
        }  # fmt: skip
        return _take_in(
            address, weights, data, device, [name for name, given in refused.items() if given], db, files, as_json
        )
    if is_path(address):
        raise UsageError(f"'{address}' is trained already; --epochs 0 takes it as it is, nas compress makes it smaller")
    with open_store(db, files, create=is_object(address)) as store:
        own = is_object(address)
        study, trial = study_of(store, address, data, device) if own else addressed_trial(store, address)
        address = address_of(study, trial) if own else address
        name, changes = recipe_changes(setting or [])
        divided = changes.pop("split", {})
        if not isinstance(divided, dict):
            raise UsageError(f"split is {divided!r}; write split.KEY=VALUE, as in split.folds=10")
        if epochs is not None:
            changes["epochs"] = epochs
        start = None if weights is None else start_of(store, weights)
        taught = None if teacher is None else teacher_of(store, teacher)
        how = (recipe or name or "standard", changes, size, data, device, metric or (), start, taught)
        each = hosts_of(study.spec, hosts or (), size)
        if folds:
            splits = folds_of(study.spec, data, divided)
            made_for = partial(training, study.spec, *how)
            if top is not None:
                of_hosts = [(made_for(host, split) for split in splits) for host in each]
                return rank(store, study, of_hosts, top, seeds, len(splits), where, as_json)
            return train_folds(store, study, trial, made_for, each, splits, seeds, where, as_json)
        split = split_of(study.spec, data, divided)
        plans = [training(study.spec, *how, host, split) for host in each]
        if top is not None:
            return rank(store, study, [[plan] for plan in plans], top, seeds, None, where, as_json)
        plans = [plan.of(trial.arch) for plan in plans]
        if taught is not None:
            typer.echo(f"teacher: {taught.reference}", err=True)
        if find_lr:
            if len(plans) > 1:
                raise UsageError("--find-lr tests one network, and this layer has several; choose by --hosts NAME")
            said(study, trial, plans[0], size)
            range_test.find_lr(store, study, trial, plans[0], picture, as_json)
            return 0
        made: list[tuple[list[Run], list[Limit]]] = []
        for number, plan in enumerate(plans):
            limits = said(study, trial, plan, size)
            done, code = drive(store, study, trial, plan, seeds, where)
            if len(done) < seeds:
                interrupted(address, again(address, plan.settings, seeds), places(store), done, as_json)
                for left in plans[number + 1 :]:
                    typer.echo(f"nas: then: {shlex.join(again(address, left.settings, seeds))}", err=True)
                return code
            made.append((done, limits))
    _print(study, trial, made, as_json, store)
    return 0


def _take_in(
    address: str,
    weights: str | None,
    data: str | None,
    device: str | None,
    refused: Sequence[str],
    db: str,
    files: Path | None,
    as_json: bool,
) -> int:
    """`--epochs 0`: store the weights of a network as a training of none."""
    from nas_cli.outside import taken_in
    from nas_core.errors import UsageError
    from studies.jobs.imported import is_outside

    if not is_outside(address):
        raise UsageError("--epochs 0 takes the weights of a network that is no study's: FILE.py:OBJECT, or EXPORT.json")
    if refused:
        raise UsageError(f"--epochs 0 trains nothing; leave out {', '.join(refused)}")
    with open_store(db, files, create=True) as store:
        study, trial, run = taken_in(store, address, weights, data, device)
        _print(study, trial, [([run], [])], as_json, store)
    return 0


def recipe_changes(assignments: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """The name of a recipe and the changes to it of `-s`: `lr=0.05` and, as in a search, `recipe.lr=0.05` and
    `recipe=paper`. Raises UsageError where one field is given both ways with two values."""
    from nas_core.config import parse_assignments
    from nas_core.errors import UsageError

    changes = parse_assignments(assignments)
    named = changes.pop("recipe", {})
    if isinstance(named, str):
        named = {"name": named}
    if not isinstance(named, dict):
        raise UsageError(f"recipe is {named!r}; write recipe=NAME, or recipe.KEY=VALUE")
    name = named.pop("name", None)
    return name, _both(changes, named, "recipe.")


def _both(bare: dict[str, Any], dotted: dict[str, Any], above: str) -> dict[str, Any]:
    from nas_core.errors import UsageError

    result = dict(bare)
    for key, value in dotted.items():
        if isinstance(bare.get(key), dict) and isinstance(value, dict):
            result[key] = _both(bare[key], value, f"{above}{key}.")
        elif bare.get(key, value) != value:
            raise UsageError(f"-s gives {above}{key} twice: {bare[key]!r} and {value!r}")
        else:
            result[key] = value
    return result


def _print(study: Study, trial: Run, made: list[tuple[list[Run], list[Limit]]], as_json: bool, store: Store) -> None:
    """The trainings of a network, or of each host of a layer."""
    from nas_cli.ending import places
    from nas_cli.render import emit
    from studies.address import address_of

    address = address_of(study, trial)
    if as_json:
        documents = [_document(address, runs, limits) for runs, limits in made]
        emit(json.dumps(documents[0] if len(documents) == 1 else {"trial": address, "hosts": documents}))
        return
    for runs, _ in made:
        _print_one(address, runs)
    emit(f"\nnext:\n  nas export {address}{places(store)}")


def _document(address: str, runs: list[Run], limits: list[Limit]) -> dict[str, Any]:
    return {
        "trial": address,
        "seeds": len(runs),
        "size": (runs[0].recipe or {}).get("size"),
        "limits": [{"limit": str(one.constraint), "value": one.value, "kept": one.kept} for one in limits],
        "metrics": spread([run.metrics for run in runs]),
        "runs": [{"address": f"{address}/train-{run.number}", "metrics": dict(run.metrics)} for run in runs],
    }


def _print_one(address: str, runs: list[Run]) -> None:
    from nas_cli.render import emit, number
    from reports.metrics import batch_size_of, shown
    from reports.texts import settings_text
    from studies.jobs.stored import IMPORTED

    settings, rows = runs[0].recipe or {}, spread([run.metrics for run in runs])
    host = settings.get("size", {}).get("host")
    how = (
        f"{len(runs)} training{'s' if len(runs) > 1 else ''} with {runs[0].recipe_name}{f' in {host}' if host else ''}"
    )
    own = settings.get("decided")
    how += f" and the architecture's own {settings_text(own)}" if own else ""
    emit(f"{address}: {'the weights of ' + settings['weights']['from'] if IMPORTED in settings else how}")
    width = max(14, *map(len, rows))
    names = shown({name: row["mean"] for name, row in rows.items()}, batch_size_of(runs[0]))
    for name, row in ((name, rows[name]) for name in names):
        deviation = f" ± {number(row['std'])}" if row["std"] else ""
        emit(f"  {name:<{width}} {number(row['mean'])}{deviation}")
