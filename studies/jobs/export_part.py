"""From a trial to a file of a part of its network, such as the layer that was searched for."""

from __future__ import annotations

from pathlib import Path

from nas_core.parts import with_parts
from nas_core.public import public
from nas_core.records import RETRAIN, Run
from nas_core.space import HasNotation
from nas_core.strategy import State
from studies.address import address_of
from studies.records import Study
from studies.setup.spaces import load_space, size_of
from studies.store.store import Store


def export_part(store: Store, study: Study, trial: Run, name: str, folder: Path, *, verify: bool = True) -> Path:
    """Write the part `name` of a trial's architecture as Python, untrained; to `verify` is to compare it with ours in a
    fresh process. The path.

    Raises UsageError for a part that there is not, VerificationError where the file computes something else.
    """
    from training.export.formats import module_name
    from training.export.part import export_part as export
    from training.networks import build

    space, _ = load_space(study.spec.space)
    whole = with_parts(space, trial.arch, name)
    network = build(space, trial.arch, study.spec.task, size_of(space, study.spec.size), 0)
    part = whole.part(network, trial.arch, name)
    address = address_of(study, trial)
    stem = module_name(f"{study.name}-{trial.kind}-{trial.number}-{name}")
    formula = f"{space.to_text(trial.arch)}" if isinstance(space, HasNotation) else trial.arch.key
    paragraphs = (
        f"    {formula}",
        f"The {name} of {address}, an architecture of the space {public(study.spec.space)} found by "
        f"{public(study.spec.strategy)}{_reached(store, study, trial)}.",
    )
    title = f"The {name} of trial {trial.number} of study {study.name}"
    return export(
        part, whole.part_source(part, trial.arch, name), title, paragraphs, folder / f"{stem}.py", verify=verify
    )


def _reached(store: Store, study: Study, trial: Run) -> str:
    """What it came to: in the search, and trained again."""
    values = trial.verdict.values or ()
    objectives = [text.rpartition(":")[0] for text in study.spec.objectives]
    said = [f"{name} {trial.metrics[name]:.4g}" for name, _ in zip(objectives, values, strict=False)]
    text = f"; in the search: {', '.join(said)}" if said else ""
    trained = [run for run in store.children(trial, RETRAIN) if run.state == State.COMPLETE]
    if trained:
        last = trained[-1]
        measured = ", ".join(f"{name} {value:.4g}" for name, value in last.metrics.items() if name.startswith("test_"))
        text += f"; its training {address_of(study, trial, last)}: {measured}"
    return text
