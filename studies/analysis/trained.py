"""Runs that left a network (`nas train`, `nas compress`): which one an address means, and the file of its weights."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from nas_core.errors import NotFoundError, UsageError, VerificationError
from nas_core.records import RETRAIN, Run
from nas_core.strategy import State
from studies.address import WORDS, Address, address_of, is_path, parse
from studies.analysis.costs import bounds_of
from studies.analysis.queries import addressed_trial, subject_of
from studies.jobs.commands import command
from studies.jobs.stored import weights_of
from studies.records import Study
from studies.store.store import Store
from training.evaluators.hosts import labels, of_mean
from training.start import SUFFIXES, Start, start_from


def addressed_training(store: Store, text: str) -> tuple[Study, Run, Run]:
    """The study, the trial and the complete run of `STUDY:N/train-K` or `STUDY:N/compress-K`; of `STUDY:N` the best
    training of that trial, of `STUDY` that of the best trial.

    Raises NotFoundError where there is none, UsageError for one that is not complete, and like `best_trial`.
    """
    address = parse(text)
    if address.number is None:
        study, trial = addressed_trial(store, text)
        return study, trial, best_training(store, study, trial)
    study, trial, found = named_run(store, address)
    if found.state != State.COMPLETE:
        reason = f" ({found.verdict.reason})" if found.verdict.reason else ""
        raise UsageError(f"'{text}' is {found.state}, not complete{reason}")
    return study, trial, found


def named_run(store: Store, address: Address) -> tuple[Study, Run, Run]:
    """The study, the trial and the run of `STUDY:N/train-K` or the like, whatever its state.

    Raises NotFoundError where there is none, UsageError for another address.
    """
    if (address.trial is None and address.baseline is None) or address.kind is None:
        raise UsageError(f"'{address}' is no training; write STUDY:NUMBER/train-NUMBER")
    study = store.study(address.study)
    trial = subject_of(store, study, address)
    runs = store.below(trial, address.kind)
    found = next((run for run in runs if run.number == address.number), None)
    if found is None:
        what, verb = ("training", "train") if address.kind == RETRAIN else ("compression", "compress")
        known = ", ".join(address_of(study, trial, run) for run in runs)
        listing = f" (there are: {known})" if known else f"; run 'nas {verb} {address_of(study, trial)}' first"
        raise NotFoundError(f"there is no {what} '{address}'{listing}")
    return study, trial, found


def best_training(store: Store, study: Study, trial: Run) -> Run:
    """The complete training with the best validation value; the earliest of equals. One of a size beyond the study's
    limits is taken only where there is no other.

    Validation values compare on the same data alone: those of the study's own data come first, else those of the
    newest training's. Raises NotFoundError where the trial has not been trained.
    """
    complete = [run for run in store.children(trial, RETRAIN) if run.state == State.COMPLETE]
    if not complete:
        address = address_of(study, trial)
        raise NotFoundError(f"{address} has no trained weights yet; run 'nas train {address}' first")
    own = [run for run in complete if _split(run) == study.spec.split_hash]
    alike = own or [run for run in complete if _split(run) == _split(complete[-1])]
    return max(alike, key=lambda run: (_within(study, run), validation(study, run)[1], -run.number))


def trained_weights(store: Store, study: Study, trial: Run, run: Run) -> Path:
    """The file of the weights that a run left. Raises VerificationError where they are gone or changed."""
    path = weights_of(store, run)
    if path is None:
        subject = address_of(study, trial, parent_of(store, trial, run))
        again = shlex.join(command(run.kind, subject, run.recipe or {}, run.repeat + 1))
        address = address_of(study, trial, run)
        raise VerificationError(
            f"the weights of {address} in '{store.files}' are gone or damaged; make them again:\n{again}"
        )
    return path


def parent_of(store: Store, trial: Run, run: Run) -> Run:
    """The run on whose network a run worked: the trial itself, or one that belongs to it."""
    others = [trial, *(one for kind in WORDS for one in store.below(trial, kind))]
    return next(one for one in others if one.id == run.parent)


def start_of(store: Store, text: str) -> Start:
    """The weights that a text means: a file of them (`training.start.SUFFIXES`), or a training like `STUDY:17/train-2`,
    of `STUDY:17` the best.

    Raises NotFoundError, and UsageError for another file.
    """
    if text.endswith(SUFFIXES):
        return start_from(Path(text), text)
    if is_path(text) or Path(text).is_file():
        raise UsageError(
            f"--weights '{text}': weights are a .safetensors, .pt or .pth file, or STUDY:NUMBER/train-NUMBER"
        )
    study, trial, training = addressed_training(store, text)
    return start_from(trained_weights(store, study, trial, training), address_of(study, trial, training))


def validation(study: Study, training: Run) -> tuple[str, float]:
    """The metric that says how good a training is, and its value oriented such that higher is better: the first
    objective that is measured on the validation part, else the first metric of the kind of task there."""
    from training.tasks import kind_of

    hosts = labels(study.spec.evaluator.facts.hosts)
    for text in study.spec.objectives:
        name, _, goal = of_mean(text, hosts).partition(":")
        if name.startswith("val_") and name in training.metrics:
            break
    else:
        first = kind_of(study.spec.task).metrics_of(study.spec.task)[0]
        name, goal = f"val_{first.name}", first.goal
    value = training.metrics.get(name, math.nan)
    return name, -math.inf if math.isnan(value) else value if goal == "max" else -value


def _within(study: Study, training: Run) -> bool:
    """Whether a training keeps the limits on what it has reported itself: parameters and MACs."""
    found = [(one, training.metrics.get(one.metric)) for one in bounds_of(study.spec)]
    return all(value is None or one.violation(value) <= 0 for one, value in found)


def _split(training: Run) -> str | None:
    return (training.recipe or {}).get("split_hash")
