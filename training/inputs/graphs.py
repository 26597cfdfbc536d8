"""Graphs as a deployed network gets them: features float32 [nodes, features] and directed edges int64 [2, edges]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from training.inputs.base import Inputs, Tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

Normalise = Literal["none", "rows"]


class GraphInputs(Inputs):
    """What the features of nodes are, and what the outputs of the network are called.

    The order of the features is that of the columns of the data. An undirected graph holds both directions of an edge.
    """

    features: int = Field(ge=1)
    feature_names: tuple[str, ...] = Field(default=(), description="in order, where the data name them")
    normalise: Normalise = Field(
        default="none", description="rows: each node's features are divided by the sum of their absolute values"
    )
    classes: tuple[str, ...] = Field(description="names of the outputs, in order")

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.classes

    def normalised(self, tensors: Tensors) -> Tensors:
        """(features [nodes, f], ...) as the network sees them. To normalise twice is to normalise once."""
        features, *others = tensors
        return normalised(features, self.normalise), *others


def normalised(features: NDArray[np.float32], how: Normalise) -> NDArray[np.float32]:
    """The features [nodes, f] as the network sees them; a row of zeros stays one."""
    if how == "none":
        return features
    return features / np.maximum(np.abs(features).sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
