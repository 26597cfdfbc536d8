"""A graph and pairs of its nodes as a deployed network gets them: (x, edge_index, pairs), with edge_attr before pairs
where edges have features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from training.inputs.graphs import GraphInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PairInputs(GraphInputs):
    """What the features of nodes and edges are, and what the network answers for each pair of nodes [2, p] int64:
    logits of classes, or, where there are none, the logit of an edge between them."""

    edge_features: int | None = Field(default=None, ge=1, description="of every edge; none: edges have none")
    classes: tuple[str, ...] = Field(default=(), description="names of the outputs, in order; none: is there an edge")

    def in_own_unit(self, answers: NDArray[Any]) -> NDArray[Any]:
        """Probabilities [p, 1] of an edge."""
        return 1 / (1 + np.exp(-answers.astype(np.float64)))
