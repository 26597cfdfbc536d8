"""From a stored retraining to exported files: rebuilds the network, loads its weights, writes the model card."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core.records import RETRAIN, Run, Study
from nas_core.strategy import State
from studies.assemble import load_space, size_of
from studies.queries import best_random
from studies.retrain import command, settings_of
from studies.store.store import Store
from studies.trained import trained_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

_SPLITS = {"train": "train", "val": "valid", "test": "test"}


def export_trial(
    store: Store,
    study: Study,
    trial: Run,
    run: Run,
    formats: Sequence[str] | None,
    folder: Path,
    *,
    verify: bool = True,
    db: str | None = None,
) -> list[Path]:
    """Write a training of a trial; returns the paths. `formats` None: all that can be written here.

    Raises VerificationError when its weights are gone or not those that were trained, and what
    `training.export.export` raises.
    """
    from training.data import load
    from training.data.split import Split
    from training.evaluators.train import load_trained
    from training.export import available, check_formats, export

    formats = check_formats(available(study.spec.task) if formats is None else formats, study.spec.task)
    weights = trained_weights(store, study, trial, run)
    settings: Any = run.recipe
    space, _ = load_space(study.spec.space)
    size = size_of(space, settings["size"])
    source = load(settings["data"], Split(**settings["split"]))
    network = load_trained(space, trial.arch, source.task, size, weights)
    batch = next(iter(source.bind("cpu", batch_size=2).batches("valid", 0, 0)))
    example = batch.inputs if source.task.nodes else tuple(tensor[:4] for tensor in batch.inputs)
    alike = [
        other
        for other in store.children(trial, RETRAIN)
        if other.state == State.COMPLETE and settings_of(other) == settings_of(run)
    ]
    address = f"{study.name}:{trial.number}"
    card = {
        "title": f"{space.name} {address}",
        "summary": f"Found by {study.spec.strategy} in study {study.name}, trained from scratch with the "
        f"recipe '{settings['recipe_name']}'.",
        "space": study.spec.space,
        "size": settings["size"],
        "metrics": _metrics(alike),
        "random_search": _random(store, study),
        "macs": run.metrics.get("macs"),
        "latency": _latency(network, example if source.task.nodes else tuple(tensor[:1] for tensor in example)),
        "study": study.name,
        "trial": trial.number,
        "seed": study.spec.seed,
        "strategy": study.spec.strategy,
        "data": settings["data"],
        "split_hash": source.split_hash,
        "recipe": settings["recipe"],
        "command": shlex.join([*command(address, settings, len(alike)), *(["--db", db] if db else [])]),
    }
    return export(
        network, source.task, example, trial.arch, card, folder, f"{study.name}-{trial.number}", formats, verify
    )


def _latency(network: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Any]:
    import torch

    from training.cost import latency

    found = latency(network, inputs, torch.device("cpu"))
    return {"milliseconds": found.ms, "device": found.device, "threads": found.threads, "batch": found.batch}


def _metrics(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One figure per learned metric, over the seeds of one retraining."""
    figures = []
    for name in runs[0].metrics:
        split = _SPLITS.get(name.split("_")[0])
        if split is None:
            continue
        values = [run.metrics[name] for run in runs]
        std = statistics.stdev(values) if len(values) > 1 else None
        figures.append(
            {"name": name, "split": split, "value": statistics.fmean(values), "std": std, "seeds": len(values)}
        )
    return figures


def _random(store: Store, study: Study) -> dict[str, Any] | None:
    """What random search found with the same problem in this database, if such a study exists."""
    found = best_random(store, study)
    if found is None:
        return None
    trials, best = found
    return {"trials": trials, "metrics": _metrics([best])}
