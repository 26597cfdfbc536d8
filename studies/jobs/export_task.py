"""From a training on several tasks to the files of the network of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas_core.errors import UsageError
from nas_core.parts import head_number, task_network
from nas_core.records import RETRAIN, Run
from nas_core.task import image_task
from studies.address import address_of
from studies.analysis.costs import network_costs
from studies.jobs.export import figures_of, found_by, latency_of, load_run, made_by, provenance, stem_of
from studies.records import Study
from studies.store.store import Store


def export_task(
    store: Store,
    study: Study,
    trial: Run,
    run: Run,
    part: str,
    formats: Sequence[str] | None,
    folder: Path,
    *,
    verify: bool = True,
    raw: bool = False,
    db: str | None = None,
) -> list[Path]:
    """Write the part `task=NAME` of the network that a training left, an ordinary network for images of one task;
    returns the paths. All else as `studies.jobs.export.export_trial`.

    Raises UsageError for a part that there is not, and where the network cannot be cut to a task.
    """
    from training.cost import macs, params
    from training.export import available, check_formats, export
    from training.export.proof import pictures
    from training.inputs import MultiTaskInputs
    from training.tasks import sample_inputs

    whole = study.spec.task
    number = head_number(whole, part)
    head = whole.heads[number]
    if run.kind != RETRAIN or run.changes:
        raise UsageError(f"--part {part} is of a training; {address_of(study, trial, run)} is a {run.kind}")
    settings: Any = run.recipe
    loaded = load_run(store, study, trial, run)
    task = image_task(whole.input_shape, head.outputs)
    names = check_formats(available(task) if formats is None else formats, task, ())
    network = task_network(loaded.space, loaded.network, trial.arch, whole, part)
    inputs = loaded.inputs.of_task(number) if isinstance(loaded.inputs, MultiTaskInputs) else None
    subject = address_of(study, trial)
    costs = network_costs(study.spec, loaded.space, task, loaded.size, "cpu")
    card = {
        "title": f"{head.name} of {loaded.space.name} {subject}",
        "summary": f"{found_by(study, trial)} in study {study.name}, {made_by(run, subject)}. Of its network for "
        f"{', '.join(each.name for each in whole.heads)} this is the part for {head.name}: {params(network):,} of "
        f"{params(loaded.network):,} parameters.",
        "metrics": [one for one in figures_of(run, [run]) if one["name"].endswith(f".{head.name}")],
        "macs": float(macs(network, sample_inputs(task))),
        "latency": latency_of(costs.latency_of(network)),
        **provenance(study, trial, run, subject, db, 1),
    }
    stem = f"{stem_of(study, trial)}-{head.name}"
    return export(
        *(network, task, loaded.example[:1], trial.arch, card, folder, stem, names, verify),
        inputs=inputs,
        raw=raw,
        proofs=pictures(loaded.source) if verify and inputs is not None else (),
        data={"reference": settings["data"], "split": settings["split"], "split_hash": loaded.source.split_hash},
        part=part,
        whole=whole,
    )
