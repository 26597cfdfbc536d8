"""What a network must give: one row of logits per sample, or per position of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nas_core.errors import TrialError
from nas_core.task import Task

if TYPE_CHECKING:
    from torch import Tensor

WRONG_SHAPE = "wrong-shape"


def logits_of(output: Any, samples: int, task: Task) -> tuple[Tensor, Tensor | None]:
    """The logits [samples, *task.answer] of a network's answer, and those of its auxiliary head where it gives a pair.

    Raises TrialError `wrong-shape` for anything else: a loss takes too many outputs without a word.
    """
    logits, auxiliary = output if isinstance(output, tuple) and len(output) == 2 else (output, None)
    _check(logits, samples, task, "the network")
    if auxiliary is not None:
        _check(auxiliary, samples, task, "the auxiliary head")
    return logits, auxiliary


def _check(logits: Any, samples: int, task: Task, who: str) -> None:
    shape = getattr(logits, "shape", None)
    wanted = (samples, *task.answer)
    if shape == wanted:
        return
    from training.tasks import kind_of

    kind = kind_of(task)
    gives = f"a {type(logits).__name__}" if shape is None else f"shape {tuple(shape)}"
    each = "" if task.positions is None else f" of {task.positions} positions"
    raise TrialError(
        WRONG_SHAPE,
        f"{who} gives {gives}; {samples} {kind.samples}{each} and {task.outputs} {kind.answers} need shape {wanted}",
    )
