"""Graphs as a deployed network gets them: features float32 [nodes, features] and directed edges int64 [2, edges]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.task import NODE_CLASSIFICATION

if TYPE_CHECKING:
    from numpy.typing import NDArray

Tensors = tuple["NDArray[Any]", ...]
Normalise = Literal["none", "rows"]


class GraphInputs(Config):
    """What the features of nodes are, and what the outputs of the network are called.

    The order of the features is that of the columns of the data. An undirected graph holds both directions of an edge.
    """

    kind: Literal["node-classification"] = NODE_CLASSIFICATION
    features: int = Field(ge=1)
    feature_names: tuple[str, ...] = Field(default=(), description="in order, where the data name them")
    normalise: Normalise = Field(
        default="none", description="rows: each node's features are divided by the sum of their absolute values"
    )
    classes: tuple[str, ...] = Field(description="names of the outputs, in order")

    def normalised(self, tensors: Tensors) -> Tensors:
        """(features [nodes, f], edges [2, e]) as the network itself sees them."""
        features, edges = tensors
        return normalised(features, self.normalise), edges

    def restored(self, tensors: Tensors) -> Tensors:
        """Inputs that become these by normalisation: these, because to normalise twice is to normalise once."""
        return tensors


def normalised(features: NDArray[np.float32], how: Normalise) -> NDArray[np.float32]:
    """The features [nodes, f] as the network sees them; a row of zeros stays one."""
    if how == "none":
        return features
    return features / np.maximum(np.abs(features).sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
