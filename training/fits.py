"""Whether a trained network answers the question of other data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas_core.errors import UsageError
from nas_core.task import Task

if TYPE_CHECKING:
    from training.inputs import Inputs


def check_fits(who: str, own: Task, own_inputs: Inputs | None, task: Task, inputs: Inputs | None) -> None:
    """Raise UsageError where a network for one task, whose inputs are as these say, is not one for another."""
    for what, had, wanted in (
        ("is for", own.kind, task.kind),
        ("reads inputs", own.inputs, task.inputs),
        ("gives outputs", own.outputs, task.outputs),
    ):
        if had != wanted:
            raise UsageError(
                f"{who} {what} {_shown(had)}, the data are {_shown(wanted)}; take a network that was trained on data "
                "like these"
            )
    if own_inputs is None or inputs is None:
        return
    given, needed = own_inputs.model_dump(mode="json"), inputs.model_dump(mode="json")
    differing = [name for name in given if given[name] != needed.get(name)]
    if differing:
        name = differing[0]
        raise UsageError(
            f"{who} reads its inputs another way than the data are given: {name} is {given[name]} there and "
            f"{needed.get(name)} here; take a network that was trained on these data"
        )


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(" x ".join(map(str, one.shape)) for one in value)
    return str(value)
