"""`nas train STUDY --folds`: a network trained on every fold of its data, and how good it is over these."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas_cli.driving import drive, interrupted, said, spread

if TYPE_CHECKING:
    from nas_core.records import Run
    from studies.executors.where import Where
    from studies.jobs.train import Training
    from studies.records import Study
    from studies.store.store import Store
    from training.data.split import Split

Folds = list[list["Run"]]
"""Of each fold the trainings, one per seed."""


def train_folds(
    store: Store,
    study: Study,
    trial: Run,
    training: Callable[[str | None, Split], Training],
    hosts: Sequence[str | None],
    splits: Sequence[Split],
    seeds: int,
    where: Where,
    as_json: bool,
) -> int:
    """Train on every fold with so many seeds, of layers in every host, and print mean and deviation over the folds: the
    exit code.

    What has been trained with these settings is not trained again, so that the command goes on where it was stopped.
    """
    from nas_cli.ending import places
    from nas_cli.render import emit
    from studies.address import address_of
    from studies.jobs.commands import train as again

    address, made = address_of(study, trial), list[Folds]()
    for host in hosts:
        folds: Folds = []
        for split in splits:  # one by one, so that no more than one fold is in memory
            plan = training(host, split).of(trial.arch)
            if not folds:
                said(study, trial, plan, None)
            done, code = drive(store, study, trial, plan, seeds, where)
            if len(done) < seeds:
                settings = {**plan.settings, "split": {"folds": split.folds}}
                finished = [run for fold in [*folds, done] for run in fold]
                interrupted(address, [*again(address, settings, seeds), "--folds"], places(store), finished, as_json)
                return code
            folds.append(done)
        made.append(folds)
    if as_json:
        documents = [_document(address, folds) for folds in made]
        emit(json.dumps(documents[0] if len(documents) == 1 else {"trial": address, "hosts": documents}))
        return 0
    for folds in made:
        _print(address, folds)
    return 0


def over_folds(folds: Folds) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation of every metric over the folds, where each is the mean of its seeds."""
    each = [{name: row["mean"] for name, row in spread([run.metrics for run in runs]).items()} for runs in folds]
    return spread(each)


def _document(address: str, folds: Folds) -> dict[str, Any]:
    runs = [
        {"address": f"{address}/train-{run.number}", "fold": fold, "metrics": dict(run.metrics)}
        for fold, trained in enumerate(folds)
        for run in trained
    ]
    size = (folds[0][0].recipe or {}).get("size")
    return {
        "trial": address,
        "folds": len(folds),
        "seeds": len(folds[0]),
        "size": size,
        "metrics": over_folds(folds),
        "runs": runs,
    }


def _print(address: str, folds: Folds) -> None:
    from nas_cli import render

    first = folds[0][0]
    settings: Mapping[str, Any] = first.recipe or {}
    host, seeds = settings.get("size", {}).get("host"), len(folds[0])
    each = f"{seeds} training{'s' if seeds > 1 else ''} each with {first.recipe_name}{f' in {host}' if host else ''}"
    render.emit(f"{address}: {len(folds)} folds, {each}; mean ± standard deviation over the folds")
    total = over_folds(folds)
    names = [name for name in total if name.startswith(("val_", "test_"))]
    means = [spread([run.metrics for run in runs]) for runs in folds]
    rows: list[list[Any]] = [[str(fold), *(row[name]["mean"] for name in names)] for fold, row in enumerate(means)]
    rows.append(["mean", *(total[name]["mean"] for name in names)])
    rows.append(["±", *(total[name]["std"] for name in names)])
    render.table(["fold", *names], rows, right=names)
