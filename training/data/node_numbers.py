"""One graph with numbers of its nodes, split and checked, which `bind` puts on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from nas_core.task import NODE_REGRESSION, Task, graph_task
from training import tasks
from training.data.loading import DEFAULT, Loading
from training.data.source import checked_graph, public, split_into
from training.data.split import UNLABELLED, Parts, Split, split_hash, target_bins
from training.inputs.graphs import Normalise
from training.inputs.node_numbers import NodeNumberInputs

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from nas_core.batch import Data


@dataclass(frozen=True, eq=False)
class NodeNumberSource:
    """One graph: features [nodes, f] float32, directed edges [2, e] int64, targets [nodes, k] float64 in their own
    unit, nan where a node has none."""

    reference: str
    task: Task
    split_hash: str
    features: NDArray[np.float32]
    targets: NDArray[np.float64]
    edge_index: NDArray[np.int64]
    parts: Parts
    inputs: NodeNumberInputs
    warnings: tuple[str, ...] = ()  # sentences that the user of the data should read

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: len(part) for name, part in self.parts.items()}

    @property
    def class_counts(self) -> Mapping[str, tuple[int, ...]]:
        """None: answers are numbers."""
        return {}

    @property
    def unit(self) -> tuple[float, float]:
        """Mean and deviation of the training part."""
        return self.inputs.target_mean, self.inputs.target_deviation

    @property
    def labels(self) -> NDArray[np.float32]:
        """[nodes, k]: the targets in the unit of the training, 0 where there are none."""
        mean, deviation = self.unit
        return np.nan_to_num((self.targets - mean) / deviation).astype(np.float32)

    def bind(self, device: torch.device | str, loading: Loading = DEFAULT) -> Data:
        """The whole graph is one batch of every part, or training batches are samples of it (`Loading.fan_out`);
        augmentation and layout are for images."""
        from training.data.bound import BoundGraph

        return BoundGraph(self, device, loading, self.unit)


def node_number_source(
    reference: str,
    features: NDArray[Any],
    targets: NDArray[Any],
    edge_index: NDArray[Any],
    split: Split,
    *,
    train: NDArray[np.int64] | None = None,
    valid: NDArray[np.int64] | None = None,
    test: NDArray[np.int64] | None = None,
    feature_names: Sequence[str] = (),
    normalise: Normalise = "none",
    warnings: Sequence[str] = (),
) -> NodeNumberSource:
    """A checked and split graph from features [n, f], numbers [n] or [n, k] (nan: none), directed edges [2, e].

    Parts have small and large numbers in equal shares; public lists are used as `graph_source` uses them. Raises
    UsageError for what cannot be learned from.
    """
    where = f"data '{reference}'"
    features, edge_index = checked_graph(where, features, edge_index, feature_names, normalise)
    nodes = len(features)
    if targets.dtype.kind not in "iuf" or targets.ndim not in (1, 2) or len(targets) != nodes or 0 in targets.shape:
        raise UsageError(f"{where}: y is {targets.dtype} {targets.shape}; needed are numbers of the {nodes} nodes")
    numbers = targets.astype(np.float64).reshape(nodes, -1)
    if np.isinf(numbers).any():
        raise UsageError(f"{where}: y holds infinite values")
    has = ~np.isnan(numbers).any(axis=1)
    if (np.isnan(numbers).any(axis=1) != np.isnan(numbers).all(axis=1)).any():
        raise UsageError(
            f"{where}: some nodes have some of their {numbers.shape[1]} numbers; give all of them, or none"
        )
    strata = np.full(nodes, UNLABELLED, dtype=np.int64)
    if has.any():
        strata[has] = target_bins(numbers[has].mean(axis=1))
    train, valid, test = public(where, strata, split, train, valid, test)
    parts = split_into(where, strata, split, train=train, valid=valid, test=test, classes=False)
    learned = numbers[parts.train]
    if not learned.std() > 0:
        raise UsageError(
            f"{where}: y is {learned.flat[0]:g} for all nodes of the training part; there is nothing to learn"
        )
    kind = tasks.find(NODE_REGRESSION)
    task = graph_task(
        *(features.shape[1], numbers.shape[1], nodes, edge_index.shape[1]),
        kind=NODE_REGRESSION,
        metric=kind.metrics[0].name,
    )
    inputs = NodeNumberInputs(
        kind=NODE_REGRESSION,
        features=features.shape[1],
        feature_names=tuple(feature_names),
        normalise=normalise,
        target_mean=float(learned.mean()),
        target_deviation=float(learned.std()),
    )
    name = split_hash(numbers, parts, features, edge_index)
    return NodeNumberSource(
        *(reference, task, name, features, numbers, edge_index, parts, inputs), warnings=tuple(warnings)
    )
