"""Train an architecture of a study from scratch with a full recipe, with several seeds, and keep the weights."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core.config import SizeConfig, parse_value, size_text
from nas_core.errors import NasError, TrialError
from nas_core.evaluation import Context, Report
from nas_core.failures import ATTEMPTS, died, failure
from nas_core.records import RETRAIN, Run, Study, Verdict
from nas_core.seeds import derive
from nas_core.strategy import State
from studies.store.store import Store
from studies.store.tables import is_kind

if TYPE_CHECKING:
    from training.data.protocol import Source
    from training.inputs import Inputs

WEIGHTS = "weights"
INPUTS = "inputs"


@dataclass(frozen=True)
class Retraining:
    """What is trained, and how. `settings` (plain data) is what makes two retrainings the same; `inputs` is what the
    network needs to know of its inputs, which is stored beside them."""

    evaluator: Any  # a Train that keeps weights and reports the test metrics
    size: SizeConfig
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any] | None


def retrain(
    store: Store,
    study: Study,
    trial: Run,
    retraining: Retraining,
    repeat: int,
    *,
    stopping: Callable[[], bool],
    environment: int | None = None,
) -> Iterator[tuple[Run, Report | None]]:
    """Train with seed number `repeat`; yields the run with each report, and at last the ended run with None.

    A retraining of the same trial, settings and repeat that is complete and has its weights is not done again;
    an unfinished one goes on from its checkpoint. Stops early, with everything stored, when `stopping()` becomes true.
    """
    run = _find(store, trial, retraining, repeat)
    if run is not None and run.state == State.COMPLETE and weights_of(store, run) is not None:
        _tidy(store.folder(study, run))
        yield run, None
        return
    if run is None:
        number = len(store.children(trial, RETRAIN)) + 1
        store.propose(
            study,
            number,
            trial.proposal,
            trial.identity,
            Verdict(State.WAITING),
            kind=RETRAIN,
            parent=trial.id,
            repeat=repeat,
            recipe={**retraining.settings, INPUTS: retraining.inputs},
        )
        run = store.children(trial, RETRAIN)[-1]
    if run.tries >= ATTEMPTS:
        store.finish(run.id, Verdict(State.FAILED, died(run.tries, of="this training")))
        yield _again(store, trial, run), None
        return
    tries = run.tries + 1
    furthest = max((report.step for report in store.curve(run)), default=-math.inf)
    store.start(run.id, environment, tries)
    folder = store.folder(study, run)
    context = Context(training_seed(study, trial, repeat), folder, stopping=stopping)
    begun = time.monotonic()
    last: Report | None = None
    reports = retraining.evaluator.evaluate(trial.proposal, None, context)
    try:
        for last in reports:
            recovered = tries > 1 and last.step > furthest
            tries = 1 if recovered else tries
            store.report(run.id, last, tries=tries if recovered else None)
            yield run, last
            if stopping() and last.step < retraining.evaluator.fidelity.high:
                reports.close()
                store.count_tries(run.id, tries - 1)
                return
    except (TrialError, SystemExit) as error:
        failed = failure(error)
        verdict = Verdict(State.FAILED, failed.reason, seconds=time.monotonic() - begun, traceback=failed.traceback)
    except (NasError, KeyboardInterrupt, GeneratorExit):  # stopped in good order: it does not count
        store.count_tries(run.id, tries - 1)
        raise
    except Exception as error:  # whatever a user's space raises
        failed = failure(error)
        verdict = Verdict(State.FAILED, failed.reason, traceback=failed.traceback)
    else:
        assert last is not None
        store.add_artifact(run, WEIGHTS, folder / "weights.safetensors")
        verdict = Verdict(State.COMPLETE, seconds=last.seconds)
    store.finish(run.id, verdict)
    _tidy(folder)
    yield _again(store, trial, run), None


def _tidy(folder: Path) -> None:
    """Remove the checkpoints of a training that has ended; where a process is killed before, the next one does."""
    for path in folder.glob("checkpoint-*"):
        path.unlink(missing_ok=True)


def training_seed(study: Study, trial: Run, repeat: int) -> int:
    """The seed of a training, which its weights and the order of its batches come from."""
    return derive(study.spec.seed, trial.number, RETRAIN, repeat)


def inputs_of(training: Run, source: Source) -> Inputs | None:
    """What the network of a training needs to know of its inputs: as it was stored, else (trainings of earlier
    versions) as its data say. None where a source of a class of one's own does not say."""
    from training.inputs import inputs_from

    stored = (training.recipe or {}).get(INPUTS)
    return getattr(source, "inputs", None) if stored is None else inputs_from(stored)


def weights_of(store: Store, run: Run) -> Path | None:
    """The weights that a retraining left, if they are still what was written."""
    for artifact in store.artifacts(run):
        path = store.files / artifact.path
        if is_kind(artifact, WEIGHTS) and path.is_file():
            return path if hashlib.sha256(path.read_bytes()).hexdigest() == artifact.sha256 else None
    return None


def command(address: str, settings: Mapping[str, Any], seeds: int) -> list[str]:
    """The words of the `nas train` that makes a retraining with these settings."""
    words = ["nas", "train", address, "--recipe", settings["recipe_name"], "--size", size_text(settings["size"])]
    words += ["--seeds", str(seeds)]
    words += ["--data", settings["data"], "--device", settings["device"]]
    if "weights" in settings:
        words += ["--weights", settings["weights"]["from"]]
    if "teacher" in settings:
        words += ["--teacher", settings["teacher"]["from"]]
    for metric in settings.get("metrics", ()):
        words += ["--metric", metric]
    for path, value in _flat(settings["changes"]):
        plain = isinstance(value, str) and parse_value(value) == value  # needs no quotes to be read as text
        words += ["-s", f"{path}={value if plain else json.dumps(value)}"]
    return words


def settings_of(training: Run) -> dict[str, Any]:
    """What makes two retrainings the same."""
    return {key: value for key, value in (training.recipe or {}).items() if key != INPUTS}


def _again(store: Store, trial: Run, run: Run) -> Run:
    """The retraining as it is stored now."""
    return next(child for child in store.children(trial, RETRAIN) if child.id == run.id)


def _flat(changes: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """`{"augment": {"crop": 2}}` as `("augment.crop", 2)`."""
    for key, value in changes.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _find(store: Store, trial: Run, retraining: Retraining, repeat: int) -> Run | None:
    wanted = json.loads(json.dumps(dict(retraining.settings)))
    for run in store.children(trial, RETRAIN):
        if run.repeat == repeat and settings_of(run) == wanted and run.state != State.FAILED:
            return run
    return None
