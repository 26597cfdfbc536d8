"""Images of which each is asked for one of several tasks; one network learns them all (Caruana, Machine Learning 28,
1997)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.task import MULTI_TASK, Head, Task, multi_task
from training.inputs.images import ImageInputs
from training.inputs.multi_task import MultiTaskInputs
from training.metrics import PartMetric
from training.tasks.classification import correct
from training.tasks.image_classification import RECIPES, ImageClassification

if TYPE_CHECKING:
    from torch import Tensor, nn

    from training.data.protocol import Source
    from training.data.split import Split
    from training.inputs.samples import Proof, Samples

DIGITS = (Head(name="at_least_five", outputs=2), Head(name="digit", outputs=10), Head(name="parity", outputs=2))
"""What `tasks:digits` asks for."""

OfPart = Callable[["Tensor", "Tensor"], float]


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """The share of samples whose class has the largest logit."""
    return float(correct(outputs, targets).double().mean())


def loss(outputs: Tensor, targets: Tensor) -> float:
    """The mean cross entropy."""
    from torch.nn import functional

    return float(functional.cross_entropy(outputs, targets))


@dataclass(frozen=True)
class OfHeads:
    """A metric of the samples of each of several heads, whose classes are `ranges` of the targets: the mean over those
    heads that have samples, nan where none has."""

    function: OfPart
    ranges: tuple[range, ...]

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        values = []
        for classes in self.ranges:
            mine = (targets >= classes.start) & (targets < classes.stop)
            if bool(mine.any()):
                values.append(self.function(outputs[mine], targets[mine]))
        return sum(values) / len(values) if values else float("nan")


def ranges_of(heads: tuple[Head, ...]) -> tuple[range, ...]:
    """The outputs of each head."""
    found, start = [], 0
    for head in heads:
        found.append(range(start, start + head.outputs))
        start += head.outputs
    return tuple(found)


class MultiTask(ImageClassification):
    """Inputs are images [b, c, h, w] float32, normalised per channel, and the number of the task that each is asked for
    [b] int64. Outputs are logits of all heads side by side, [b, sum of their classes]; targets are numbers of outputs.

    Of a sample the loss and the metrics see the head of its task alone (`nas_core.batch.Batch.heads`). The loss is the
    mean over the samples, the accuracy the mean over the tasks; both are reported of every task, as `val_loss.TASK`.
    """

    name = MULTI_TASK
    example: ClassVar[Task] = multi_task((3, 32, 32), (Head(name="class", outputs=10), Head(name="animal", outputs=2)))
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: RECIPES[name] for name in ("quick", "standard")}
    losses: ClassVar[Mapping[str, tuple[str, ...]]] = {"cross_entropy": ("class_weights",)}
    metrics: ClassVar[tuple[PartMetric, ...]] = (PartMetric("accuracy", accuracy),)
    further: ClassVar[Mapping[str, str]] = {
        name: ImageClassification.further[name] for name in ("f1", "balanced_accuracy")
    }
    axes: ClassVar[tuple[Mapping[int, str], ...]] = ({0: "batch"}, {0: "batch"})
    Inputs: ClassVar[type[ImageInputs]] = MultiTaskInputs

    def examples(self) -> tuple[Task, ...]:
        return self.example, multi_task((1, 8, 8), DIGITS)

    def metrics_of(self, task: Task) -> tuple[PartMetric, ...]:
        ranges = ranges_of(task.heads)
        heads = list(zip(task.heads, ranges, strict=True))
        return (
            PartMetric("accuracy", OfHeads(accuracy, ranges)),
            *(PartMetric(f"accuracy.{head.name}", OfHeads(accuracy, (classes,))) for head, classes in heads),
            *(PartMetric(f"loss.{head.name}", OfHeads(loss, (classes,)), "min") for head, classes in heads),
        )

    def reward(self, sums: Mapping[str, Tensor]) -> Tensor:
        return -sums["loss"]

    def embedded(self, split: Split) -> Source:
        from training.data import load

        return load("tasks:digits", split)

    def describe(self, task: Task) -> str:
        return f"{super().describe(task)}, asked for {' or '.join(head.name for head in task.heads)}"

    def read(self, inputs: MultiTaskInputs, argument: str) -> Samples:  # type: ignore[override]
        """An image file or `npz:FILE`, each with `?task=NAME`, or all tasks."""
        from training.infer import multi_task as infer

        return infer.read(inputs, argument)

    def proofs(self, source: Source) -> list[Proof]:
        from training.export import proof

        return proof.asked(source)

    def normalised(self, network: nn.Module, inputs: MultiTaskInputs) -> nn.Module:  # type: ignore[override]
        if not inputs.told:
            return super().normalised(network, inputs)
        from training.export.normalise import NormalisedAsked

        return NormalisedAsked(network, inputs).eval()

    def script(self, inputs: MultiTaskInputs, file: str, raw: bool) -> str | None:  # type: ignore[override]
        from training.export import script

        return script.asked(inputs, file, raw)

    def given(self, inputs: MultiTaskInputs) -> tuple[str, str]:  # type: ignore[override]
        file, packages = super().given(inputs)
        return f"'{file}?task={inputs.heads[0].name}'", packages

    def card(self, inputs: MultiTaskInputs, where: str) -> list[tuple[str, str]]:  # type: ignore[override]
        ranges = ranges_of(inputs.heads)
        named = [
            f"{number} {head.name}: outputs {classes.start} to {classes.stop - 1}"
            for number, (head, classes) in enumerate(zip(inputs.heads, ranges, strict=True))
        ]
        return [*super().card(inputs, where), ("tasks", "; ".join(named))]

    def answer(self, inputs: MultiTaskInputs) -> str:
        return f"[:, :{inputs.heads[0].outputs}]"

    def facts(self, inputs: MultiTaskInputs) -> dict[str, Any]:  # type: ignore[override]
        heads = zip(inputs.heads, ranges_of(inputs.heads), strict=True)
        tasks = {head.name: (classes.start, classes.stop) for head, classes in heads}
        return {**super().facts(inputs), "TASKS": tasks}


KIND = MultiTask()
