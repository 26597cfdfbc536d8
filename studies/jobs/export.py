"""From a stored retraining to exported files: rebuilds the network, loads its weights, writes the model card."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core.errors import UsageError
from nas_core.public import public
from nas_core.records import BASELINE, RETRAIN, Run
from nas_core.strategy import State
from studies.address import WORDS, address_of
from studies.analysis.costs import COUNTS, limits, network_costs
from studies.analysis.queries import best_random
from studies.analysis.trained import parent_of, trained_weights
from studies.documents import name_of
from studies.jobs.commands import command
from studies.jobs.stored import IMPORTED, file_of, inputs_of, seed_of, settings_of
from studies.records import Study
from studies.setup.spaces import load_space, size_of
from studies.store.store import Store

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas_core.config import SizeConfig
    from nas_core.space import SearchSpace
    from training.data.protocol import Source
    from training.inputs import Inputs
    from training.latency import Latency

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
    raw: bool = False,
    db: str | None = None,
    hub: bool = False,
) -> list[Path]:
    """Write the network that a training or a compression of a trial left; returns the paths. `formats` None: all that
    there are for the task; `raw`: onnx and pt2 without normalisation; `hub`: as the folder of a model hub has it.

    Raises VerificationError when its weights are gone or not those that were trained, UsageError when its data have
    changed since, and what `training.export.export` raises.
    """
    from training.cost import active_params, macs, params
    from training.export import available, check_formats, export
    from training.export.hub import STEM
    from training.export.proof import proofs_of
    from training.tasks import sample_inputs

    quantized = _quantized(store, run)
    usual = (*available(study.spec.task), *quantized)
    formats = check_formats(usual if formats is None else formats, study.spec.task, tuple(quantized))
    settings: Any = run.recipe
    loaded = load_run(store, study, trial, run)
    space, size, source, network, inputs = loaded.space, loaded.size, loaded.source, loaded.network, loaded.inputs
    example = loaded.example
    alike = [
        other
        for other in store.below(trial, run.kind)
        if other.state == State.COMPLETE and settings_of(other) == settings_of(run)
    ]
    address = address_of(study, trial)
    subject = address_of(study, trial, parent_of(store, trial, run))
    costs = network_costs(study.spec, space, source.task, size, "cpu")
    counted = {}
    if run.changes:
        found = costs.latency_of(network)
        counted = {"params": float(params(network)), "active_params": float(active_params(network))}
        counted["macs"] = float(macs(network, sample_inputs(source.task)))
    else:
        found = costs.latency(trial.arch)
    here = study.spec.evaluator.facts.device == "cpu"  # where the study's latencies are of another device
    measured = {"latency_ms": found.ms, "latency_iqr_ms": found.spread_ms} if here else {}
    kept = limits(study, trial, source.task, size, lambda _: {**measured, **(counted or costs.of(trial.arch, COUNTS))})
    stem = stem_of(study, trial) + ("" if run.kind == RETRAIN else f"-{WORDS[run.kind]}-{run.number}")
    card = {
        "title": f"{space.name} {address}",
        "summary": f"{found_by(study, trial)} in study {study.name}, {made_by(run, subject)}.",
        "metrics": figures_of(run, alike),
        "random_search": _random(store, study),
        "baselines": _baselines(store, study, trial),
        "macs": run.metrics.get("macs"),
        "latency": latency_of(found),
        "quantized": [_figures(run, kind) for kind in quantized if kind in formats],
        "limits": [{"limit": str(one.constraint), "value": one.value, "kept": one.kept} for one in kept],
        **provenance(study, trial, run, subject, db, len(alike)),
    }
    return export(
        *(network, source.task, example, trial.arch, card, folder, STEM if hub else stem, formats, verify),
        changes=run.changes,
        inputs=inputs,
        raw=raw,
        proofs=proofs_of(source) if verify and inputs is not None else (),
        quantized=quantized,
        hub=hub,
        data={"reference": settings["data"], "split": settings["split"], "split_hash": source.split_hash},
    )


def stem_of(study: Study, trial: Run) -> str:
    """What the names of exported files begin with."""
    of = f"{trial.kind}-{trial.number}" if trial.kind == BASELINE else str(trial.number)
    return f"{study.name}-{of}"


def provenance(study: Study, trial: Run, run: Run, subject: str, db: str | None, seeds: int) -> dict[str, Any]:
    """What a model card says of where a network comes from: the study, what of it was trained, `subject`, on which
    data, and the command that trains it with so many seeds."""
    settings: Any = run.recipe
    again = command(run.kind, subject, settings, seeds)
    return {
        "space": study.spec.space,
        "size": settings["size"],
        "study": study.name,
        "trial": None if trial.kind == BASELINE else trial.number,
        "training": address_of(study, trial, run),
        "seed": seed_of(study, trial, run.kind, run.repeat),
        "study_seed": study.spec.seed,
        "strategy": study.spec.strategy,
        "data": settings["data"],
        "split_hash": settings["split_hash"],
        "recipe": settings["recipe"],
        "command": shlex.join([*map(public, again), *(["--db", db] if db else [])]),
    }


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """What a run left, with the data that it was trained on: the network on the CPU, in evaluation mode, and inputs for
    it as `nas infer` reads them."""

    space: SearchSpace
    size: SizeConfig
    source: Source
    network: nn.Module
    inputs: Inputs | None
    example: tuple[Tensor, ...]


def load_run(store: Store, study: Study, trial: Run, run: Run) -> LoadedRun:
    """Raises VerificationError when its weights are gone or not those that were trained, UsageError when its data have
    changed since."""
    import torch

    from training.data import load
    from training.data.loading import Loading
    from training.data.split import Split
    from training.networks import load_trained
    from training.tasks import kind_of

    weights = trained_weights(store, study, trial, run)
    settings: Any = run.recipe
    space, _ = load_space(study.spec.space)
    size = size_of(space, settings["size"])
    source = load(settings["data"], Split(**settings["split"]))
    if source.split_hash != settings["split_hash"]:
        raise UsageError(
            f"the data '{settings['data']}' are not what {address_of(study, trial, run)} was trained on (split "
            f"{settings['split_hash']} then, {source.split_hash} now); restore them, or train again"
        )
    network = load_trained(space, trial.arch, source.task, size, weights, run.changes)
    batch = next(iter(source.bind("cpu", Loading(batch_size=2)).batches("valid", 0, 0)))
    seen = kind_of(source.task).first(batch.inputs, 4)
    inputs = inputs_of(run, source)
    example = seen if inputs is None else tuple(map(torch.from_numpy, inputs.restored(tuple(t.numpy() for t in seen))))
    return LoadedRun(space, size, source, network, inputs, example)


def _quantized(store: Store, run: Run) -> dict[str, bytes]:
    """The quantised programs that a run left, by their formats."""
    from training.export.formats import QUANTIZED

    paths = {kind: file_of(store, run, kind) for kind in QUANTIZED}
    return {kind: path.read_bytes() for kind, path in paths.items() if path is not None}


def _figures(run: Run, kind: str) -> dict[str, Any]:
    """What a quantised program came to, for the card."""
    from training.quantized import beside

    metrics = run.metrics
    return {
        "kind": kind,
        "figures": beside(metrics, kind),
        "agreement": metrics[f"{kind}_agreement"],
        "share": metrics[f"{kind}_share"],
    }


def found_by(study: Study, trial: Run) -> str:
    """Where an architecture comes from, in words."""
    if trial.kind == BASELINE:
        return f"The architecture {name_of(trial)}, a baseline"
    if trial.state == State.WAITING:
        return "A network that was given, not found,"
    return f"Found by {public(study.spec.strategy)}"


def _baselines(store: Store, study: Study, trial: Run) -> list[dict[str, Any]]:
    """What the study's other known architectures came to: their trainings where they have any, else the evaluation."""
    found = []
    for run in store.runs(study, BASELINE):
        if run.id == trial.id or run.state != State.COMPLETE:
            continue
        trained = [child for child in store.children(run, RETRAIN) if child.state == State.COMPLETE]
        first = trained[0] if trained else run
        alike = [other for other in trained if settings_of(other) == settings_of(first)]
        found.append({"name": name_of(run), "metrics": figures_of(first, alike)})
    return found


def made_by(run: Run, subject: str) -> str:
    """How the weights came to be, in words."""
    settings: Any = run.recipe
    if IMPORTED in settings:
        return f"with the weights of '{public(settings['weights']['from'])}'"
    by = f"with the recipe '{settings['recipe_name']}'"
    if run.kind == RETRAIN:
        return f"trained from scratch {by}"
    return f"made smaller by {public(settings['method'])} from {subject} and trained on {by}"


def latency_of(found: Latency) -> dict[str, Any]:
    return {
        "milliseconds": found.ms,
        "spread": found.spread_ms,
        "device": found.device,
        "threads": found.threads,
        "batch": found.batch,
        "dtype": found.dtype,
        "runtime": found.runtime,
    }


def figures_of(run: Run, alike: Sequence[Run]) -> list[dict[str, Any]]:
    """The learned metrics of a training, beside what all trainings of its kind came to."""
    figures = []
    for name, value in run.metrics.items():
        split = _SPLITS.get(name.split("_")[0])
        if split is None:
            continue
        values = [other.metrics[name] for other in alike if name in other.metrics]
        figures.append(
            {
                "name": name,
                "split": split,
                "value": value,
                "mean": statistics.fmean(values) if len(values) > 1 else None,
                "std": statistics.stdev(values) if len(values) > 1 else None,
                "seeds": max(1, len(values)),
            }
        )
    return figures


def _random(store: Store, study: Study) -> dict[str, Any] | None:
    """What random search found with the same problem in this database, if such a study exists."""
    found = best_random(store, study)
    if found is None:
        return None
    trials, best = found
    return {"trials": trials, "metrics": figures_of(best, [])}
