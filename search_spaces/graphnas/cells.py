"""The networks of GraphNAS's cells (Gao et al. 2020, section 3.4): cells, what they read, and what is classified.

They are called with the tensors of the task (`nas_core.task.Graphs`): a class for each sequence of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from nas_core.task import Graphs
from search_spaces.graphnas.design import Design, cells_of_use
from search_spaces.layers.by_inputs import by_inputs
from search_spaces.layers.feature_dropout import FeatureDropout
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph.made import joined, step
from search_spaces.operators.graph.sample import encoding_counts

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "linear": nn.Identity,
    "elu": nn.ELU,
}


@dataclass(frozen=True)
class Widths:
    """Of the two inputs of a cell, of its nodes, and of edges."""

    before: int
    last: int
    hidden: int
    edge: int | None
    degree: float


class Cell(nn.Module):
    """`act(join(nodes))` of what the cell before the last one and the last one answered, `[n, before]` and `[n, last]`:
    those that are read go through a linear map each; every node is an operator's answer, `[n, hidden]`, to one of them
    or to an earlier node. All nodes are added up, multiplied, or put side by side."""

    def __init__(self, design: Design, widths: Widths) -> None:
        super().__init__()
        given = {0: widths.before, 1: widths.last}
        self.maps = nn.ModuleDict({str(number): nn.Linear(given[number], widths.hidden) for number in design.reads})
        self.sources = design.sources
        self.steps = nn.ModuleList(
            step(operator, widths.hidden, widths.hidden, widths.edge, widths.degree) for operator in design.operators
        )
        self.join, self.nodes = design.join, design.joined
        self.activation = ACTIVATIONS[design.activation]()

    def forward(self, before: Tensor, last: Tensor, graph: Tensor | GraphBatch) -> Tensor:
        graph = GraphBatch.of(graph, before)
        inputs = {"0": before, "1": last}
        states = {int(number): linear(inputs[number]) for number, linear in self.maps.items()}
        for number, (source, operator) in enumerate(zip(self.sources, self.steps, strict=True), 2):
            # What an operator of zeros reads may be no state.
            states[number] = operator(states.get(source, before), graph.edge_attr, graph)
        nodes = [states[number] for number in self.nodes]
        answer: Tensor = self.activation(self.joined(nodes))
        return answer

    def joined(self, nodes: Sequence[Tensor]) -> Tensor:
        if self.join == "concat":
            return torch.cat(list(nodes), 1)
        found = nodes[0]
        for node in nodes[1:]:
            found = found + node if self.join == "add" else found * node
        return found


class NodeNetwork(nn.Module):
    """Cells, and a linear map of what the last one answers: `(x, edge_index)` to an answer per node `[n, outputs]`.
    Cells that none reads are not there. Dropout is of the features alone."""

    def __init__(self, design: Design, graphs: Graphs, outputs: int, degree: float, layers: int) -> None:
        super().__init__()
        width, self.encodings = graphs.features, nn.ModuleList()
        if design.encoding is not None:
            self.encodings.append(design.encoding.make())
            width += encoding_counts(design.encoding, 2, 2)[0]
        self.drop_features = FeatureDropout(design.dropout)
        self.cells = nn.ModuleDict()
        widths = [width, width, *[design.width] * layers]
        of_use = cells_of_use(design.reads, layers)
        for number, (before, last) in enumerate(pairwise(widths[:-1])):
            if number in of_use:
                made = Cell(design, Widths(before, last, design.hidden, graphs.edge_features, degree))
                self.cells[str(number)] = made
        width = design.width
        self.readout: nn.Module | None = None
        self.aggregator: nn.Module | None = None  # of nodes: what most readouts are; source needs no graph for it
        if graphs.level == "graph":
            readout = design.readout.make(width)
            width = getattr(readout, "out_features", width)
            self.aggregator = getattr(readout, "aggregator", None)
            self.readout = readout if self.aggregator is None else None
        self.classify = nn.Linear(width, outputs)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        answer: Tensor = self.classify(self.hidden(x, GraphBatch.of(edge_index, x)))
        return answer

    def hidden(self, x: Tensor, graph: GraphBatch) -> Tensor:
        """What the last cell answers for each node."""
        x = joined(x, self.encodings, graph)
        features = self.drop_features(x, graph)
        states = {-2: features, -1: features}
        for number, cell in self.cells.items():
            place = int(number)
            # A cell that is not there is not read.
            states[place] = cell(states.get(place - 2, features), states.get(place - 1, features), graph)
        return states[max(states)]


class WithEdges(NodeNetwork):
    """The same of edges with features."""

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:  # type: ignore[override]
        answer: Tensor = self.classify(self.hidden(x, GraphBatch.of(edge_index, x, edge_attr)))
        return answer


class OfMany(NodeNetwork):
    """The same of many graphs, which are answered for where there is a readout, or else their nodes."""

    def forward(self, x: Tensor, edge_index: Tensor, counts: Tensor) -> Tensor:  # type: ignore[override]
        graph = GraphBatch.of(edge_index, x, counts=counts)
        return self.answered(self.hidden(x, graph), graph)

    def answered(self, x: Tensor, graph: GraphBatch) -> Tensor:
        if self.aggregator is not None:
            x = self.aggregator(x, graph.batch, graph.graphs)
        elif self.readout is not None:
            x = self.readout(x, graph)
        answer: Tensor = self.classify(x)
        return answer


class OfManyWithEdges(OfMany):
    """The same of edges with features."""

    def forward(  # type: ignore[override]
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, counts: Tensor
    ) -> Tensor:
        graph = GraphBatch.of(edge_index, x, edge_attr, counts)
        return self.answered(self.hidden(x, graph), graph)


class OfPairs(NodeNetwork):
    """The same for pairs of nodes: of the product of both, feature by feature (DistMult, Yang et al., ICLR 2015)."""

    def forward(self, x: Tensor, edge_index: Tensor, pairs: Tensor) -> Tensor:  # type: ignore[override]
        hidden = self.hidden(x, GraphBatch.of(edge_index, x))
        answer: Tensor = self.classify(hidden[pairs[0]] * hidden[pairs[1]])
        return answer


class OfPairsWithEdges(NodeNetwork):
    """The same of edges with features."""

    def forward(  # type: ignore[override]
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, pairs: Tensor
    ) -> Tensor:
        hidden = self.hidden(x, GraphBatch.of(edge_index, x, edge_attr))
        answer: Tensor = self.classify(hidden[pairs[0]] * hidden[pairs[1]])
        return answer


def network_for(graphs: Graphs) -> type[NodeNetwork]:
    """The class whose networks answer for what is asked."""
    return by_inputs(graphs, (NodeNetwork, WithEdges), (OfMany, OfManyWithEdges), (OfPairs, OfPairsWithEdges))
