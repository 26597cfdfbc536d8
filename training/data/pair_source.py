"""One graph and pairs of its nodes, split and checked, which `bind` puts on a device: links that are predicted, or
edges that have classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.task import EDGE_CLASSIFICATION, LINK_PREDICTION, Task, graph_task
from training import tasks
from training.data.labels import class_labels
from training.data.links import NonEdges, PairNumbers, first_shared, is_directed, kept, without_loops
from training.data.loading import DEFAULT, Loading
from training.data.many_graphs import to_values
from training.data.source import absent_classes, checked_graph, class_counts, split_into, to_index
from training.data.split import UNLABELLED, Parts, Split, split_hash
from training.inputs.graphs import Normalise
from training.inputs.pairs import PairInputs

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from nas_core.batch import Data

PART_NAMES = ("train", "valid", "test")


@dataclass(frozen=True, eq=False, kw_only=True)
class PairSource:
    """One graph: features [nodes, f] float32, and what messages go along: directed edges [2, e] int64, in the order of
    their targets, with features [e, k] where there are any."""

    reference: str
    task: Task
    split_hash: str
    features: NDArray[np.float32]
    edge_index: NDArray[np.int64]
    edge_attr: NDArray[np.float32] | None
    inputs: PairInputs
    warnings: tuple[str, ...] = ()  # sentences that the user of the data should read


@dataclass(frozen=True, eq=False, kw_only=True)
class LinkSource(PairSource):
    """Whose links are predicted: by part the edges [2, p] that are to be found; of validation and test as many pairs
    without an edge. What messages go along are edges of the training part alone.

    `training_edges` are the numbers of its pairs, which are `directed` or not: others are drawn while training.
    """

    edges: Mapping[str, NDArray[np.int64]]
    others: Mapping[str, NDArray[np.int64]]
    training_edges: NDArray[np.int64]
    directed: bool

    @property
    def sizes(self) -> Mapping[str, int]:
        """Pairs of each part."""
        return {name: edges.shape[1] + self.others_of(name) for name, edges in self.edges.items()}

    @property
    def class_counts(self) -> Mapping[str, tuple[int, ...]]:
        """None: answers are scores."""
        return {}

    def others_of(self, part: str) -> int:
        """How many pairs without an edge a pass over a part has."""
        return (self.edges if part == "train" else self.others)[part].shape[1]

    @cached_property
    def non_edges(self) -> tuple[PairNumbers, NonEdges]:
        """What pairs without an edge are drawn from while training: those that the training part does not join."""
        numbers = PairNumbers(len(self.features), self.directed)
        return numbers, NonEdges(self.training_edges, numbers.count)

    def bind(self, device: torch.device | str, loading: Loading = DEFAULT) -> Data:
        """The whole graph is one batch of every part: batch size, augmentation and layout are for images."""
        from training.data.bound_pairs import BoundLinks

        return BoundLinks(self, device)


@dataclass(frozen=True, eq=False, kw_only=True)
class EdgeSource(PairSource):
    """Whose edges have classes: `pairs` [2, p] with a label each [p], and the parts they belong to. Messages go along
    all edges, of whatever part: that there is an edge is known."""

    pairs: NDArray[np.int64]
    labels: NDArray[np.int64]
    parts: Parts

    @property
    def classes(self) -> tuple[str, ...]:
        return self.inputs.classes

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: len(part) for name, part in self.parts.items()}

    @cached_property
    def class_counts(self) -> Mapping[str, tuple[int, ...]]:
        return class_counts(self.labels, self.parts, self.task.outputs)

    def bind(self, device: torch.device | str, loading: Loading = DEFAULT) -> Data:
        """The whole graph is one batch of every part: batch size, augmentation and layout are for images."""
        from training.data.bound_pairs import BoundEdges

        return BoundEdges(self, device)


def link_source(
    reference: str,
    features: NDArray[Any],
    edge_index: NDArray[Any],
    split: Split,
    *,
    edge_attr: NDArray[Any] | None = None,
    train: NDArray[Any] | None = None,
    valid: NDArray[Any] | None = None,
    test: NDArray[Any] | None = None,
    feature_names: Sequence[str] = (),
    normalise: Normalise = "none",
    warnings: Sequence[str] = (),
) -> LinkSource:
    """A checked graph, features [n, f] and directed edges [2, e], some of whose edges are held out to be predicted.

    Parts are drawn from the unordered pairs that edges join, so that an edge and its way back are of one part; the
    edges of validation and test leave the graph in both directions. Where edges have no way back, pairs are ordered.
    Public parts [2, p] are used where given: `valid` and `test`, or `test` alone, of edges that the graph may hold or
    not, and `train`, the edges to learn from, by default all others. Pairs without an edge are drawn among all that no
    edge of any part joins. Raises UsageError for what cannot be learned from, and for parts that share an edge.
    """
    where = f"data '{reference}'"
    features, edge_index = checked_graph(where, features, edge_index, feature_names, normalise)
    nodes = len(features)
    values = None if edge_attr is None else to_values(edge_attr, edge_index.shape[1], where)
    given = {
        name: _pairs(where, f"{name}_pairs", pairs, nodes)
        for name, pairs in zip(PART_NAMES, (train, valid, test), strict=True)
        if pairs is not None
    }
    directed = is_directed(edge_index, nodes)
    every = np.concatenate([without_loops(edge_index), *given.values()], axis=1)
    unordered, ordered = PairNumbers(nodes), PairNumbers(nodes, directed)
    known, edges = np.unique(unordered.of(every)), np.unique(ordered.of(every))
    if len(known) < 3:
        raise UsageError(f"{where}: {len(known)} edges between two nodes; each of three parts needs one")
    parts = _link_parts(where, known, {name: np.unique(unordered.of(one)) for name, one in given.items()}, split, nodes)
    joined = ordered.pairs(edges)
    part_of = unordered.of(joined)
    found = {name: joined[:, np.isin(part_of, known[part])] for name, part in parts.items()}
    held_out = known[np.concatenate([parts.valid, parts.test])]
    stays = kept(edge_index, nodes, held_out)
    message, values = sorted_edges(edge_index[:, stays], None if values is None else values[stays])
    free = NonEdges(edges, ordered.count)
    wanted = {name: found[name].shape[1] for name in ("valid", "test")}
    others = free.choose(sum(wanted.values()), generator(split.seed, "split", "non-edges"))
    if len(others) < 2:
        raise UsageError(f"{where}: nearly every pair of its {nodes} nodes has an edge; there is nothing to tell apart")
    if len(others) < sum(wanted.values()):
        warnings = (*warnings, f"only {len(others):,} pairs have no edge, fewer than edges are held out")
    # Of fewer than are wanted each part gets its share.
    ends = max(1, min(len(others) - 1, round(len(others) * wanted["valid"] / sum(wanted.values()))))
    told = {"valid": ordered.pairs(others[:ends]), "test": ordered.pairs(others[ends:])}
    task, inputs = _said(LINK_PREDICTION, features, message, values, 1, (), feature_names, normalise)
    hashed: list[NDArray[Any]] = [features, message, *([] if values is None else [values])]
    hashed += [*found.values(), *told.values()]
    return LinkSource(
        reference=reference,
        task=task,
        split_hash=split_hash(known, parts, *hashed),
        features=features,
        edge_index=message,
        edge_attr=values,
        inputs=inputs,
        warnings=tuple(warnings),
        edges=found,
        others=told,
        training_edges=np.unique(ordered.of(joined[:, ~np.isin(part_of, held_out)])),
        directed=directed,
    )


def _link_parts(
    where: str, known: NDArray[np.int64], given: Mapping[str, NDArray[np.int64]], split: Split, nodes: int
) -> Parts:
    """Which of the unordered pairs of the numbers `known` each part has; those of `given` parts are kept."""
    if "valid" in given and "test" not in given:
        raise UsageError(f"{where}: has valid_pairs and no test_pairs; give both, test_pairs alone, or none")
    for name, other in (("train", "test"), ("train", "valid"), ("valid", "test")):
        if name in given and other in given and (shared := first_shared(given[name], given[other], nodes)):
            raise UsageError(
                f"{where}: {name}_pairs name the pair {shared}, an edge that is held out for the {other} part: what is "
                "held out must not be learned from"
            )
    if given.keys() == {"train"}:
        raise UsageError(f"{where}: has train_pairs and no test_pairs; without these all parts are drawn")
    train, valid, test = (np.searchsorted(known, given[name]) if name in given else None for name in PART_NAMES)
    strata = np.zeros(len(known), dtype=np.int64)
    return split_into(where, strata, split, train=train, valid=valid, test=test, classes=False)


def edge_source(
    reference: str,
    features: NDArray[Any],
    labels: NDArray[Any],
    edge_index: NDArray[Any],
    split: Split,
    *,
    edge_attr: NDArray[Any] | None = None,
    train: NDArray[Any] | None = None,
    valid: NDArray[Any] | None = None,
    test: NDArray[Any] | None = None,
    classes: Sequence[str] = (),
    feature_names: Sequence[str] = (),
    normalise: Normalise = "none",
    renumber: bool = False,
    warnings: Sequence[str] = (),
) -> EdgeSource:
    """A checked graph, features [n, f] and directed edges [2, e], whose edges have labels [e], as `class_labels` takes
    them.

    An edge and its way back are of one part. Where none of them have two labels they are one sample, the pair whose
    smaller node comes first. Public parts are lists of edges, all three or none. Raises UsageError for what cannot be
    learned from.
    """
    where = f"data '{reference}'"
    features, edge_index = checked_graph(where, features, edge_index, feature_names, normalise)
    nodes = len(features)
    values = None if edge_attr is None else to_values(edge_attr, edge_index.shape[1], where)
    read = class_labels(
        labels, edge_index.shape[1], "edges", where, classes=classes, unlabelled=True, renumber=renumber
    )
    numbers = _group_numbers(edge_index, nodes)
    _, first, group = np.unique(numbers, return_index=True, return_inverse=True)
    of_groups = np.full(len(first), UNLABELLED, dtype=np.int64)
    np.maximum.at(of_groups, group, read.numbers)
    alike = bool(((read.numbers == of_groups[group]) | (read.numbers == UNLABELLED)).all())
    public = [
        None if part is None else to_index(part, len(group), name, where, "edges")
        for name, part in zip(PART_NAMES, (train, valid, test), strict=True)
    ]
    parts = _edge_parts(where, of_groups, first, group, public, split)
    if alike:
        pairs, known = np.sort(edge_index[:, first], axis=0), of_groups
    else:
        pairs, known = edge_index, read.numbers
        labelled = known != UNLABELLED
        parts = Parts(*(np.flatnonzero(np.isin(group, part) & labelled) for _, part in parts.items()))
    message, values = sorted_edges(edge_index, values)
    names = read.classes or tuple(map(str, range(read.outputs)))
    task, inputs = _said(EDGE_CLASSIFICATION, features, message, values, read.outputs, names, feature_names, normalise)
    hashed: list[NDArray[Any]] = [features, message, *([] if values is None else [values]), pairs]
    return EdgeSource(
        reference=reference,
        task=task,
        split_hash=split_hash(known, parts, *hashed),
        features=features,
        edge_index=message,
        edge_attr=values,
        inputs=inputs,
        warnings=(*warnings, *read.warnings, *absent_classes(known, parts, read)),
        pairs=np.ascontiguousarray(pairs),
        labels=known,
        parts=parts,
    )


def _group_numbers(edge_index: NDArray[np.int64], nodes: int) -> NDArray[np.int64]:
    """[e]: a number for the unordered pair that each edge joins, and for each node that one joins with itself."""
    numbers, between = PairNumbers(nodes), edge_index[0] != edge_index[1]
    found = numbers.count + edge_index[0]
    found[between] = numbers.of(edge_index[:, between])
    return found


def _edge_parts(
    where: str,
    of_groups: NDArray[np.int64],
    first: NDArray[np.int64],
    group: NDArray[np.int64],
    given: Sequence[NDArray[np.int64] | None],
    split: Split,
) -> Parts:
    """The parts of the groups of edges, an edge and its way back, by the class of each group."""
    present = [name for name, part in zip(PART_NAMES, given, strict=True) if part is not None]
    if present not in ([], [*PART_NAMES]):
        raise UsageError(f"{where}: has {' and '.join(present)} edges; give all three parts, or none")
    lists = {name: np.unique(group[part]) for name, part in zip(PART_NAMES, given, strict=True) if part is not None}
    for number, name in enumerate(present):
        for other in present[:number]:
            shared = np.intersect1d(lists[name], lists[other])
            if len(shared):
                raise UsageError(
                    f"{where}: edge {first[shared[0]]}, or its way back, is in the {other} and in the {name} part"
                )
    for name, part in lists.items():
        if (of_groups[part] == UNLABELLED).any():
            raise UsageError(f"{where}: the {name} edges include one without a label")
    train, valid, test = (lists.get(name) for name in PART_NAMES)
    return split_into(where, of_groups, split, train=train, valid=valid, test=test)


def sorted_edges(
    edge_index: NDArray[np.int64], values: NDArray[np.float32] | None
) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
    """Edges [2, e] and their features in the order of the targets."""
    order = np.argsort(edge_index[1], kind="stable")
    return np.ascontiguousarray(edge_index[:, order]), None if values is None else values[order]


def _pairs(where: str, name: str, pairs: NDArray[Any], nodes: int) -> NDArray[np.int64]:
    if pairs.ndim != 2 or len(pairs) != 2 or not pairs.shape[1]:
        raise UsageError(f"{where}: {name} have shape {pairs.shape}; needed are nodes [2, pairs]")
    found = to_index(pairs, nodes, name, where)
    if (found[0] == found[1]).any():
        raise UsageError(f"{where}: {name} name node {int(found[0][np.argmax(found[0] == found[1])])} with itself")
    return found


def _said(
    kind: str,
    features: NDArray[np.float32],
    edge_index: NDArray[np.int64],
    values: NDArray[np.float32] | None,
    outputs: int,
    classes: tuple[str, ...],
    feature_names: Sequence[str],
    normalise: Normalise,
) -> tuple[Task, PairInputs]:
    """The task of such a graph, and what a deployed network must know of its inputs."""
    width, of_edges = features.shape[1], None if values is None else values.shape[1]
    task = graph_task(
        *(width, outputs, len(features), edge_index.shape[1]),
        kind=kind,
        level="pair",
        edge_features=of_edges,
        metric=tasks.find(kind).metrics[0].name,
    )
    inputs = PairInputs(
        kind=kind,
        features=width,
        feature_names=tuple(feature_names),
        normalise=normalise,
        edge_features=of_edges,
        classes=classes,
    )
    return task, inputs
