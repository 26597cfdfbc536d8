"""Networks that hardly learn (Liu et al., "Evolving Normalization-Activation Layers", NeurIPS 2020, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nas_core.errors import UsageError
from nas_core.task import Task

if TYPE_CHECKING:
    from torch import nn

    from training.fit import Training


class Quality:
    """`quality` where validation accuracy after the first `steps` of the ordinary training is below `bar` times
    chance, which is one in the number of classes. The paper: 100 steps, 20% of ten classes.

    Raises UsageError for settings that are none.
    """

    def __init__(self, steps: int = 100, bar: float = 2.0) -> None:
        if type(steps) is not int or steps < 1:
            raise UsageError(f"screen quality: steps={steps!r}; it takes a whole number of optimiser steps, 1 or more")
        if not isinstance(bar, int | float) or not bar > 0:
            raise UsageError(f"screen quality: bar={bar!r}; it takes a multiple of chance above 0, such as 2")
        self.steps, self.bar = steps, float(bar)

    def __call__(self, network: nn.Module, training: Callable[[nn.Module], Training], task: Task) -> str | None:
        """Raises UsageError for more steps than the training has."""
        begun, chance = training(network), _chance(task)
        try:
            begun.first_steps(self.steps)
        except UsageError as error:
            raise UsageError(f"screen quality: {error}; use quality(steps=N) with fewer") from error
        accuracy = begun.evaluate("valid")["val_accuracy"]
        if accuracy >= self.bar * chance:
            return None
        return f"quality: val_accuracy is {accuracy:.3f} after {self.steps} steps, chance is {chance:.3f}"

    def check(self, task: Task) -> None:
        """Raises UsageError for tasks without accuracy, and for a bar that nothing can reach."""
        from training.tasks import kind_of

        if not any(metric.name == "accuracy" for metric in kind_of(task).metrics):
            raise UsageError(f"--screen quality needs an accuracy, which {task.kind} has none of; leave it out")
        chance = _chance(task)
        if self.bar * chance > 1:
            raise UsageError(
                f"--screen quality: {self.bar:g} times chance ({chance:g}) is more than 1, which no network "
                f"reaches; use quality(bar={1 / chance / 2 + 0.5:g}) or less"
            )


def _chance(task: Task) -> float:
    """The accuracy of answers at random; of several tasks, their mean."""
    classes = [head.outputs for head in task.heads] or [task.outputs]
    return sum(1 / count for count in classes) / len(classes)
