"""The networks of NAS-Bench-Graph: computing nodes, what they read, and what is classified.

Graph convolutions are linear in their input up to the aggregation, so projecting first and sending the
narrow result is the same function as aggregating first; with bag-of-words features it moves 1433 / 64
times less data. PyTorch Geometric's GCN and GAT do so themselves and are used as they are; the operators
(`search_spaces.operators.graph`) do it for the others. Nothing about a graph is remembered between calls; within
one, what its layers need of its edges is computed once (`GraphBatch`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.choice import Value
from nas_core.relax import Picker, Style
from search_spaces.layers.dropout import Dropout
from search_spaces.layers.feature_dropout import FeatureDropout
from search_spaces.layers.features import total
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph.made import made, takes_sparse
from search_spaces.operators.graph.node.skip import Skip
from search_spaces.operators.operator import Operator
from search_spaces.supernet.supernet import copy_weights

SKIP = "skip"


class Silent(nn.Module):
    """Nothing: a skip of the raw features, which the network itself passes on."""

    skip = True

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> None:
        return None


class Normed(nn.Module):
    """A layer, then batch normalisation without affine part: in a mixture of layers, whose sums and means over
    neighbours are of different sizes, the mixing weight alone is a layer's share."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        self.layer = layer
        self.norm = nn.BatchNorm1d(hidden, affine=False)

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> Tensor:
        normed: Tensor = self.norm(self.layer(x, edges))
        return normed


class SlicedJoin(nn.Module):
    """The linear map of any leaves `{node: [n, hidden]}`: a slice of its weights for every node that can be one."""

    def __init__(self, leaves: Sequence[int], hidden: int) -> None:
        super().__init__()
        whole = nn.Linear(hidden * len(leaves), hidden)
        slices = whole.weight.detach().split(hidden, dim=1)
        self.slices = nn.ParameterDict(
            {str(leaf): nn.Parameter(part.clone()) for leaf, part in zip(leaves, slices, strict=True)}
        )
        self.bias = whole.bias

    def forward(self, leaves: Mapping[int, Tensor], nodes: int) -> Tensor:
        joined = self.bias.expand(nodes, -1)
        for node, state in leaves.items():
            joined = joined + functional.linear(state, self.slices[str(node)])
        return joined

    def extract_into(self, target: nn.Linear, leaves: Iterable[int]) -> None:
        """Copy the weights of these leaves."""
        target.weight.copy_(torch.cat([self.slices[str(leaf)] for leaf in leaves], dim=1))
        target.bias.copy_(self.bias)


Weight: TypeAlias = float | Tensor
"""A share between 0 and 1: 1.0 stands for "in full", which costs nothing."""


class NodeNetwork(nn.Module):
    """A network of computing nodes, each reading one earlier node (NAS-Bench-Graph, Qin et al. 2022, section 3); those
    that nobody reads are concatenated and classified: `(nodes, features), (2, edges)` to `(nodes, classes)`.

    `groups`: the topologies, then the operations of every node, which are labels of `operators`. A topology names the
    input of each node; 0 is the raw features, after dropout. A node that reads hidden features applies batch
    normalisation, ReLU and dropout to them, then its operation. A skip of the raw features passes them on. The nodes
    that nobody reads are concatenated, then ReLU, a linear map to `hidden` and one to `classes` with nothing between
    them, as the benchmark has it for Cora and CiteSeer. Raw features that are not read add nothing there.

    Every node owns a batch normalisation; those of nodes that read raw features have no use, but count.
    `(nodes, features), (2, edges)` to `(nodes, classes)`.

    Where topologies are mixed, so are what a node reads and what is classified: a node gets a share of the raw
    features, to which it applies operations of their width, and the weighted sum of the hidden features, to which it
    applies, in the share that is left, operations of the hidden width. A skip passes its share of raw features on.
    Both kinds of operations exist where both can be needed, and run where they are.
    """

    def __init__(
        self,
        picker: Picker,
        groups: Mapping[str, Sequence[Value]],
        operators: Mapping[str, Operator],
        features: int,
        classes: int,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()

        def operation(option: str, kind: str) -> nn.Module:
            if option == SKIP:
                return Silent() if kind == "raw" else Skip(hidden, hidden)
            layer = made(operators[option], features if kind == "raw" else hidden, hidden)
            self.drop_features.dense |= kind == "raw" and not takes_sparse(operators[option])
            return Normed(layer, hidden) if picker.style == Style.SUPERNET else layer

        topology, *names = groups
        self.topology = picker.route(topology, groups[topology])
        self.drop_features = FeatureDropout(dropout)
        self.drop = Dropout(dropout)
        self.routes = [picker.route(name, groups[name]) for name in names]
        self.operations = nn.ModuleList()
        links = [_links(text) for text in self.topology.options]
        raw, mixed = {0}, set[int]()
        for node, name in enumerate(names, start=1):
            inputs = {link[node - 1] for link in links}
            others = set(self.routes[node - 1].options) - {SKIP}
            kinds = [kind for kind, nodes in (("raw", raw), ("hidden", mixed)) if inputs & nodes]
            if "raw" in kinds and SKIP in self.routes[node - 1].options:
                raw.add(node)
            if "hidden" in kinds or others:
                mixed.add(node)
            layers = {
                kind: picker.module(
                    name,
                    {option: partial(operation, str(option), kind) for option in groups[name]},
                )
                for kind in kinds
            }
            self.operations.append(nn.ModuleDict(layers) if len(layers) > 1 else layers[kinds[0]])
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden, affine=picker.style == Style.STANDALONE) for _ in names)
        leaves = sorted({leaf for link in links for leaf in _leaves(link)})
        self.join = nn.Linear(hidden * len(leaves), hidden) if len(links) == 1 else SlicedJoin(leaves, hidden)
        self.classify = nn.Linear(hidden, classes)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.classify(self.hidden(x, edge_index))

    def hidden(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """What is classified of every node, `(nodes, hidden)`."""
        edges = GraphBatch.of(edge_index, x)
        features = self.drop_features(x, edges)
        reads, gates = self._wiring()
        raw: dict[int, Weight] = {0: 1.0}
        states: dict[int, Tensor] = {}
        for node, (inputs, route) in enumerate(zip(reads, self.routes, strict=True), start=1):
            taken = dict(route.selected())
            shares = [_times(weight, raw[source]) for source, weight in inputs.items() if source in raw]
            mixed = {source: weight for source, weight in inputs.items() if source in states}
            terms = []
            if shares:
                share = sum(shares[1:], shares[0])
                if taken.keys() - {SKIP}:
                    terms.append(_scaled(self._layer(node, "raw")(features, edges), share))
                if SKIP in taken:
                    raw[node] = _times(share, _share(taken[SKIP]))
            if mixed:
                state = total(_scaled(states[source], weight) for source, weight in mixed.items())
                state = self.drop(functional.relu(self.norms[node - 1](state)))
                rests = [_times(weight, 1.0 - raw.get(source, 0.0)) for source, weight in mixed.items()]
                terms.append(_scaled(self._layer(node, "hidden")(state, edges), sum(rests[1:], rests[0])))
            if terms:
                states[node] = terms[0] + terms[1] if len(terms) > 1 else terms[0]
        leaves = {node: _scaled(functional.relu(states[node]), gates[node]) for node in sorted(gates) if node in states}
        if isinstance(self.join, SlicedJoin):
            joined = self.join(leaves, edges.nodes)
        else:
            joined = self.join(torch.cat(list(leaves.values()), dim=1))
        scalar = self.topology.scalar()
        return joined if scalar is None else joined + scalar

    def extract_into(self, target: NodeNetwork) -> None:
        """Copy the weights of the architecture that is taken to a network of it alone."""
        [(topology, _)] = self.topology.selected()
        raw = {0}
        for node, link in enumerate(_links(topology), start=1):
            copy_weights(self._layer(node, "raw" if link in raw else "hidden"), target.operations[node - 1])
            if link in raw and [option for option, _ in self.routes[node - 1].selected()] == [SKIP]:
                raw.add(node)
        copy_weights(self.norms, target.norms)
        self.join.extract_into(target.join, _leaves(_links(topology)))
        copy_weights(self.classify, target.classify)

    def _layer(self, node: int, kind: str) -> nn.Module:
        layer = self.operations[node - 1]
        return layer[kind] if isinstance(layer, nn.ModuleDict) else layer

    def _wiring(self) -> tuple[list[dict[int, Weight]], dict[int, Weight]]:
        """In which share every node reads every earlier node, and in which share a node is a leaf."""
        reads: list[dict[int, Weight]] = [{} for _ in self.routes]
        gates: dict[int, Weight] = {}
        for topology, weight in self.topology.selected():
            links = _links(topology)
            for shares, node in (*zip(reads, links, strict=True), *((gates, leaf) for leaf in _leaves(links))):
                shares[node] = shares[node] + _share(weight) if node in shares else _share(weight)
        return reads, gates


class PairNetwork(NodeNetwork):
    """The same for pairs of nodes: what is classified is the product of what both nodes have come to, feature by
    feature (DistMult, Yang et al., ICLR 2015). `(nodes, features), (2, edges), (2, pairs)` to `(pairs, classes)`."""

    def forward(self, x: Tensor, edge_index: Tensor, pairs: Tensor) -> Tensor:  # type: ignore[override]
        hidden = self.hidden(x, edge_index)
        return self.classify(hidden[pairs[0]] * hidden[pairs[1]])


def _links(topology: Value) -> tuple[int, ...]:
    return tuple(int(digit) for digit in str(topology))


def _leaves(links: Sequence[int]) -> list[int]:
    return [node for node in range(1, len(links) + 1) if node not in links]


def _share(weight: Tensor | None) -> Weight:
    return 1.0 if weight is None else weight


def _times(one: Weight, other: Weight) -> Weight:
    return other if isinstance(one, float) and one == 1.0 else _scaled(one, other)


def _scaled(x: Any, share: Weight) -> Any:
    return x if isinstance(share, float) and share == 1.0 else share * x
