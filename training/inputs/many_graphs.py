"""Many graphs as a deployed network gets them: (x, edge_index, counts), or (x, edge_index, edge_attr, counts)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from nas_core.errors import UsageError
from training.inputs.graphs import GraphInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ManyGraphInputs(GraphInputs):
    """What the features of nodes and edges are, and what the outputs of the network are.

    The features of a node are, side by side, those of the file, one column per value of `tags`, one per in-degree from
    0 (the last one stands for all larger), and a constant 1. The nodes of a graph follow one another, and `counts` says
    how many each graph has. Of classes the outputs are logits. A number is predicted in the unit of the training,
    `(target - target_mean) / target_deviation`.
    """

    tags: tuple[int, ...] = Field(default=(), description="values of node_tag, in order; another one is all zeros")
    degrees: int = Field(default=0, ge=0, description="columns for the in-degree of a node")
    constant: bool = Field(default=False, description="whether the last feature is 1 of every node")
    edge_features: int | None = Field(default=None, ge=1, description="of every edge; none: edges have none")
    classes: tuple[str, ...] = Field(default=(), description="names of the outputs, in order; none: numbers")
    target_mean: float = Field(default=0.0, allow_inf_nan=False, description="of the training part")
    target_deviation: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="standard deviation, likewise")

    @property
    def own(self) -> int:
        """How many of the features are those of the file."""
        return self.features - len(self.tags) - self.degrees - self.constant

    def encode(
        self, x: NDArray[Any] | None, tags: NDArray[Any] | None, edge_index: NDArray[np.int64], nodes: int
    ) -> NDArray[np.float32]:
        """Features [nodes, features] of what a file holds, before they are normalised. Raises UsageError for what is
        missing there or has another shape."""
        blocks: list[NDArray[Any]] = []
        if self.own:
            if x is None or x.shape != (nodes, self.own):
                has = "none" if x is None else f"shape {x.shape}"
                raise UsageError(f"features have {has}; needed are {(nodes, self.own)}")
            blocks.append(x)
        if self.tags:
            if tags is None or tags.shape != (nodes,):
                has = "is missing" if tags is None else f"has shape {tags.shape}"
                raise UsageError(f"node_tag {has}; needed are {(nodes,)} whole numbers")
            blocks.append(tags[:, None] == np.array(self.tags))
        if self.degrees:
            degree = np.bincount(edge_index[1], minlength=nodes).clip(max=self.degrees - 1)
            blocks.append(degree[:, None] == np.arange(self.degrees))
        if self.constant:
            blocks.append(np.ones((nodes, 1)))
        return np.concatenate([block.astype(np.float32) for block in blocks], axis=1)

    def in_own_unit(self, answers: NDArray[Any]) -> NDArray[Any]:
        if self.classes:
            return answers
        return answers.astype(np.float64) * self.target_deviation + self.target_mean


class MultilabelInputs(ManyGraphInputs):
    """The same, where every output is a label that a node has or has not: the logit of each."""

    @property
    def exclusive(self) -> bool:
        return False
