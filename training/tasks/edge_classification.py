"""One graph, some of whose edges have a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nas_core.task import EDGE_CLASSIFICATION, Task, graph_task
from training.tasks.classification import Classification
from training.tasks.pairs import OnPairs

if TYPE_CHECKING:
    from training.data.protocol import Source
    from training.data.split import Split


class EdgeClassification(OnPairs, Classification):
    """Outputs are logits [p, classes], targets class numbers [p] of the edges that the pairs are."""

    name = EDGE_CLASSIFICATION
    example: ClassVar[Task] = graph_task(16, 3, 2000, 8000, kind=EDGE_CLASSIFICATION, level="pair")

    def examples(self) -> tuple[Task, ...]:
        """Without features of edges, and with some."""
        return (
            graph_task(20, 4, 30, 60, kind=self.name, level="pair"),
            graph_task(5, 2, 12, 24, kind=self.name, level="pair", edge_features=3),
        )

    def embedded(self, split: Split) -> Source:
        from training.data import load

        return load("karate?task=edge-classification", split)


KIND = EdgeClassification()
