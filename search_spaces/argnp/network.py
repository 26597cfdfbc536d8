"""The networks of ARGNP (Cai et al., CVPR 2022, section 3): states of nodes and of relations, side by side.

They are called with the tensors of the task (`nas_core.task.Graphs`): a class for each sequence of them. `operations`
has what states are computed by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.picker import Picker, Route, Style
from nas_core.task import Graphs
from search_spaces.argnp.operations import Widths, node_operation, reads_relation, relation_operation
from search_spaces.argnp.relations import relations_of_use
from search_spaces.layers.by_inputs import by_inputs
from search_spaces.layers.dropout import Dropout
from search_spaces.layers.features import total
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.layers.row_norm import RowNorm
from search_spaces.operators.graph.made import joined, of_width
from search_spaces.operators.graph.relation.gated import SLOPE
from search_spaces.operators.operator import Operator


class Leading(nn.Linear):
    """A linear map without bias of as many of its first inputs as there are."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight[:, : x.size(1)])

    def extract_into(self, target: nn.Linear) -> None:
        """Copy the weights of the first inputs, which are those that the target has."""
        target.weight.copy_(self.weight[:, : target.in_features])


class Fuse(nn.Module):
    """`leaky(BN(W s))` of all states of nodes, or of relations, side by side."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear, self.norm = linear, RowNorm(linear.out_features)

    def forward(self, states: Tensor) -> Tensor:
        return functional.leaky_relu(self.norm(self.linear(states)), SLOPE)


class Head(nn.Module):
    """A linear map to half the width, batch normalisation, a leaky rectifier, dropout, and a linear map."""

    def __init__(self, inputs: int, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.hidden, self.norm = nn.Linear(inputs, hidden, bias=False), RowNorm(hidden)
        self.drop, self.last = Dropout(dropout), nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.last(self.drop(functional.leaky_relu(self.norm(self.hidden(x)), SLOPE)))
        return answer


class ArgnpNetwork(nn.Module):
    """Nodes and relations embedded, the vertices, and a head: `x [n, features], edge_index [2, m]` to an answer per
    node.

    `vertices`: how many there are beside the two inputs, both of which are the embedding. `edges`: per kind of state,
    and per vertex from 2 on, the group of every vertex that it may read. `operations` are those of a kind of state by
    name, `known` which of those of nodes are what. `readouts` are aggregators. Relations of edges without features all
    begin as one vector that is learnt. `encodings` of the graph join the features of nodes.
    """

    def __init__(
        self,
        picker: Picker,
        vertices: Route,
        edges: Mapping[str, Mapping[int, Mapping[int, str]]],
        operations: Mapping[str, Sequence[str]],
        known: Mapping[str, Operator],
        encodings: Sequence[Any],
        readouts: Sequence[Operator],
        graphs: Graphs,
        outputs: int,
        widths: Widths,
        dropout: float,
        published_std: bool,
        degree: float,
    ) -> None:
        super().__init__()
        self.vertices = vertices
        self.encodings = nn.ModuleList(encodings)
        features = graphs.features + sum(one.out_features for one in encodings)
        self.embed = nn.Linear(features, widths.node)
        self.embed_relation: nn.Module | None = nn.Linear(graphs.edge_features or 1, widths.relation)
        affine = picker.style == Style.STANDALONE
        make = {
            "node": partial(
                node_operation, widths=widths, affine=affine, published_std=published_std, known=known, degree=degree
            ),
            "relation": partial(relation_operation, widths=widths, affine=affine),
        }
        last = max(int(count) for count in vertices.options) + 1
        self.numbers = range(2, last + 1)
        self.reads: dict[str, dict[int, list[int]]] = {kind: {} for kind in edges}  # per vertex what it reads
        self.operations = nn.ModuleDict()
        for number in self.numbers:
            for kind, of_kind in edges.items():
                self.reads[kind][number] = []
                for source, group in of_kind[number].items():
                    made = picker.module(group, {name: partial(make[kind], name) for name in operations[kind]})
                    if made is not None:
                        self.reads[kind][number].append(source)
                        self.operations[f"{kind}{source}to{number}"] = made
        if picker.style == Style.STANDALONE:  # a supernet has every group
            self._drop_relations(graphs.level == "graph")
        node, relation = widths.node_output, widths.relation_output
        linear = nn.Linear if len(vertices.options) == 1 else Leading
        self.fuse = Fuse(linear((last + 1) * widths.node, node, bias=False))
        self.fuse_relation: nn.Module | None = None
        if graphs.level == "graph":
            self.fuse_relation = Fuse(linear((last + 1) * widths.relation, relation, bias=False))
            self.pools = nn.ModuleList(of_width(one, node) for one in readouts)
            self.relation_pools = nn.ModuleList(of_width(one, relation) for one in readouts)
        inputs, base = {
            "node": (node, node),
            "pair": (2 * node, node),
            "graph": (len(readouts) * (node + relation), node + relation),
        }[graphs.level]
        self.head = Head(inputs, max(1, base // 2), outputs, dropout)

    def _drop_relations(self, every: bool) -> None:
        """What leads to no answer is not kept."""
        used = {
            number: [source for source in sources if reads_relation(self.operations[f"node{source}to{number}"])]
            for number, sources in self.reads["node"].items()
        }
        of_use = relations_of_use(used, self.reads["relation"], every)
        for number in set(self.numbers) - of_use:
            for source in self.reads["relation"].pop(number):
                del self.operations[f"relation{source}to{number}"]
        if of_use.isdisjoint({0, 1}):
            self.embed_relation = None

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        graph = GraphBatch.of(edge_index, x)
        nodes, relations = self.states(x, graph)
        return self.answered(nodes, relations, graph)

    def states(self, x: Tensor, graph: GraphBatch) -> tuple[dict[int, Tensor], dict[int, Any]]:
        """Those of nodes and of relations, by vertex; None for relations that are of no use."""
        nodes = dict.fromkeys((0, 1), self.embed(joined(x, self.encodings, graph)))
        relations: dict[int, Any] = dict.fromkeys((0, 1), self.relation(x, graph))
        for number in self.shares():
            state = total(
                self.operations[f"node{source}to{number}"](nodes[source], relations[source], graph)
                for source in self.reads["node"][number]
            )
            nodes[number] = torch.zeros_like(nodes[0]) if state is None else state
            if number in self.reads["relation"]:
                state = total(
                    self.operations[f"relation{source}to{number}"](nodes[source], relations[source], graph)
                    for source in self.reads["relation"][number]
                )
                relations[number] = torch.zeros_like(relations[0]) if state is None else state
            else:
                relations[number] = None
        return nodes, relations

    def relation(self, x: Tensor, graph: GraphBatch) -> Tensor | None:
        """The first state of relations; None where none is of use."""
        if self.embed_relation is None:
            return None
        edge_attr = graph.edge_attr
        if edge_attr is None:
            edge_attr = torch.ones_like(graph.edge_index[0], dtype=x.dtype).view(-1, 1)
        embedded: Tensor = self.embed_relation(edge_attr)
        return embedded

    def shares(self) -> dict[int, Tensor | None]:
        """Of the vertices that are there, the share in which each is: the weights of all numbers of vertices with it;
        None: in full."""
        selected = [(int(count), weight) for count, weight in self.vertices.selected()]
        found: dict[int, Tensor | None] = {}
        for number in range(2, max(count for count, _ in selected) + 2):
            found[number] = total(weight for count, weight in selected if number <= count + 1)
        return found

    def fused(self, fuse: nn.Module, states: Mapping[int, Tensor]) -> Tensor:
        """What all states of one kind come to, each in the share in which its vertex is there."""
        shares, rectified = self.shares(), []
        for number, state in states.items():
            share, one = shares.get(number), functional.leaky_relu(state, SLOPE)
            rectified.append(one if share is None else share * one)
        found: Tensor = fuse(torch.cat(rectified, 1))
        return found

    def answered(self, nodes: Mapping[int, Tensor], relations: Mapping[int, Any], graph: GraphBatch) -> Tensor:
        """By the states of nodes; of graphs by what the readouts make of their nodes, then of their relations."""
        fused = self.fused(self.fuse, nodes)
        if self.fuse_relation is not None:
            relation, batch = self.fused(self.fuse_relation, relations), graph.batch
            of_edge = batch[graph.edge_index[1]]
            pooled = [pool(fused, batch, graph.graphs) for pool in self.pools]
            pooled += [pool(relation, of_edge, graph.graphs) for pool in self.relation_pools]
            fused = torch.cat(pooled, 1)
        return self.answer(fused)

    def answer(self, fused: Tensor) -> Tensor:
        scalar = self.vertices.scalar()
        answer: Tensor = self.head(fused if scalar is None else fused + scalar)
        return answer


class WithEdges(ArgnpNetwork):
    """The same of edges with features."""

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:  # type: ignore[override]
        graph = GraphBatch.of(edge_index, x, edge_attr)
        nodes, relations = self.states(x, graph)
        return self.answered(nodes, relations, graph)


class OfMany(ArgnpNetwork):
    """The same of many graphs, an answer per node or per graph."""

    def forward(self, x: Tensor, edge_index: Tensor, counts: Tensor) -> Tensor:  # type: ignore[override]
        graph = GraphBatch.of(edge_index, x, counts=counts)
        nodes, relations = self.states(x, graph)
        return self.answered(nodes, relations, graph)


class OfManyWithEdges(ArgnpNetwork):
    """The same of edges with features."""

    def forward(  # type: ignore[override]
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, counts: Tensor
    ) -> Tensor:
        graph = GraphBatch.of(edge_index, x, edge_attr, counts)
        nodes, relations = self.states(x, graph)
        return self.answered(nodes, relations, graph)


class OfPairs(ArgnpNetwork):
    """The same for pairs of nodes, both side by side: a pair need not be an edge, so that it has no relation."""

    def forward(self, x: Tensor, edge_index: Tensor, pairs: Tensor) -> Tensor:  # type: ignore[override]
        nodes = self.states(x, GraphBatch.of(edge_index, x))[0]
        return self.joined(nodes, pairs)

    def joined(self, nodes: Mapping[int, Tensor], pairs: Tensor) -> Tensor:
        fused = self.fused(self.fuse, nodes)
        return self.answer(torch.cat([fused[pairs[0]], fused[pairs[1]]], 1))


class OfPairsWithEdges(OfPairs):
    """The same of edges with features."""

    def forward(  # type: ignore[override]
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, pairs: Tensor
    ) -> Tensor:
        nodes = self.states(x, GraphBatch.of(edge_index, x, edge_attr))[0]
        return self.joined(nodes, pairs)


def network_for(graphs: Graphs) -> type[ArgnpNetwork]:
    """The class whose networks are called with the tensors of the task."""
    return by_inputs(graphs, (ArgnpNetwork, WithEdges), (OfMany, OfManyWithEdges), (OfPairs, OfPairsWithEdges))
