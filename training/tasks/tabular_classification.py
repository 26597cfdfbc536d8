"""Rows of a table with one class each."""

from __future__ import annotations

from typing import Any, ClassVar

from nas_core.task import TABULAR_CLASSIFICATION, InputSpec, Task
from training.tasks.classification import Classification
from training.tasks.tables import EXAMPLE, Table


class TabularClassification(Table, Classification):
    """Targets are class numbers [b]."""

    name = TABULAR_CLASSIFICATION
    pipeline = "tabular-classification"
    example: ClassVar[Task] = Task(
        kind=TABULAR_CLASSIFICATION,
        inputs=(InputSpec(name="x", shape=(sum(EXAMPLE),), categories=EXAMPLE),),
        outputs=2,
    )

    def examples(self) -> tuple[Task, ...]:
        return (self.task((1, 4, 1, 7), 3),)

    def bunch(self) -> Any:
        from sklearn.datasets import load_wine

        return load_wine(as_frame=True)


KIND = TabularClassification()
