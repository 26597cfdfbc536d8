"""`nas train STUDY:N --find-lr`: a learning-rate range test instead of a training."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas_core.records import Run
    from studies.jobs.train import Training
    from studies.records import Study
    from studies.store.store import Store
    from training.range_test import RangeTest
    from training.recipe import Recipe

RATES = ("lr", "schedule")  # what the test is for
CURVE, PICTURE = "lr-range.csv", "lr-range.svg"
UNUSED = ("warmup_epochs", "lr_end", "milestones")  # in cycles, which refuse them


def find_lr(store: Store, study: Study, trial: Run, plan: Training, picture: Path | None, as_json: bool) -> None:
    """Test the network that the same command would train first, write the curve, print what it suggests.

    Nothing is stored in the database. The curve, and the picture where no other place is named, are written to the
    folder of the trial's files. Raises UsageError for a picture that cannot be written and for an architecture that
    decides its rate, NasError where the network fails or does not learn.
    """
    from nas_cli.ending import places
    from nas_cli.line import Line
    from nas_cli.render import emit
    from nas_core.errors import NasError, TrialError, UsageError
    from nas_core.evaluation import Report
    from nas_core.files import write_atomically
    from nas_core.records import RETRAIN
    from studies.address import address_of
    from studies.jobs.commands import train
    from studies.jobs.stored import seed_of
    from training import plots
    from training.tasks import kind_of

    if picture is not None:
        plots.check(picture)
    address, evaluator = address_of(study, trial), plan.evaluator
    for name in RATES:
        if name in plan.settings.get("decided", {}):
            raise UsageError(
                f"the architecture of {address} decides {name} itself ({plan.settings['decided'][name]}), so there "
                "is no learning rate to find for it"
            )
    progress = Line(f"{address} learning rates", "step")

    def listen(step: int, steps: int, rate: float, loss: float) -> None:
        progress.show(Report(step, {"smoothed_loss": loss}), steps)

    try:
        found = evaluator.range_test(trial.arch, seed_of(study, trial, RETRAIN, 0), listen)
    except TrialError as error:
        raise NasError(f"the learning-rate range test of {address} failed: {error}") from error
    finally:
        progress.end()
    curve = store.folder(study, trial) / CURVE
    file = picture or curve.with_name(PICTURE)
    write_atomically(curve, _csv(found).encode())
    plots.draw(found, f"{address}, recipe {plan.settings['recipe_name']}: learning-rate range test", file)
    full_batch = not kind_of(evaluator.task).apart
    given = {name: value for name, value in plan.settings["changes"].items() if name not in UNUSED}
    changes = {**given, **suggestion(found, evaluator.recipe, full_batch)}
    facts = {
        "trial": address,
        "lr_max": found.lr_max,
        "lr_base": found.lr_base,
        "lr_steepest": found.steepest,
        "blew_up": found.blew_up,
        "steps": len(found.rates),
        "curve": str(curve),
        "picture": str(file),
        "next": shlex.join(train(address, {**plan.settings, "changes": changes}, 1)) + places(store),
    }
    if as_json:
        emit(json.dumps(facts))
    else:
        _print(facts, found)


def suggestion(found: RangeTest, recipe: Recipe, full_batch: bool) -> dict[str, Any]:
    """Changes to `recipe` that train in cycles between the rates found: triangular2, unless it is cyclic already.

    Where an epoch is one step (`full_batch`) a half cycle is a tenth of the training, else 2 to 10 epochs.
    """
    from training.recipe import CYCLE_EPOCHS, whole_cycles

    changes: dict[str, Any] = {"lr": _rounded(found.lr_max), "lr_base": _rounded(found.lr_base)}
    if recipe.cyclic:
        return changes
    changes["schedule"] = "triangular2"
    usual = max(recipe.epochs // 10, CYCLE_EPOCHS) if full_batch else CYCLE_EPOCHS
    epochs, half = whole_cycles(recipe.epochs, usual)
    if epochs != recipe.epochs:
        changes["epochs"] = epochs
    if half != CYCLE_EPOCHS:
        changes["cycle_epochs"] = half
    return changes


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


def _csv(found: RangeTest) -> str:
    rows = zip(found.rates, found.losses, found.smoothed, strict=True)
    lines = [f"{step},{rate!r},{loss!r},{smoothed!r}" for step, (rate, loss, smoothed) in enumerate(rows, start=1)]
    return "\n".join(["step,lr,loss,smoothed_loss", *lines, ""])


def _print(facts: dict[str, Any], found: RangeTest) -> None:
    from nas_cli.render import emit, number

    first, last = found.rates[0], found.rates[-1]
    emit(f"{facts['trial']}: learning-rate range test, {facts['steps']} steps from {first:g} to {last:.3g}")
    for name, meaning in (
        ("lr_max", "top of a cycle: a third of the rate at the lowest smoothed loss"),
        ("lr_base", "its bottom: a quarter of that"),
        ("lr_steepest", "where the loss falls fastest"),
    ):
        emit(f"  {name:<12} {number(_rounded(facts[name])):<9} {meaning}")
    if found.falls_to_the_end:
        emit("the loss still fell at the highest rate; higher ones were not tried")
    emit(f"curve: {facts['curve']}\npicture: {facts['picture']}\n\nnext:\n  {facts['next']}")
