"""How a design becomes a network."""

from __future__ import annotations

from typing import Any

from torch import nn

from nas_core.task import Graphs
from search_spaces.graphgym.costs import Design
from search_spaces.graphgym.network import (
    ACTIVATIONS,
    GraphGymNetwork,
    MessageLayer,
    OfMany,
    OfManyWithEdges,
    OfPairs,
    OfPairsWithEdges,
    WithEdges,
    after,
    step_of,
)
from search_spaces.layers.by_inputs import by_inputs
from search_spaces.operators.graph import HEAD
from search_spaces.operators.graph.sample import encoding_counts


def built(design: Design, graphs: Graphs, outputs: int, degree: float, hidden: int, l2norm: bool) -> nn.Module:
    """The untrained network of a design for such graphs, `hidden` wide."""
    values = design.values
    norm, dropout = bool(values["batchnorm"]), float(values["dropout"])
    activation: Any = ACTIVATIONS[str(values["activation"])]

    def linears(width: int, out: int, layers: int) -> list[nn.Module]:
        found: list[nn.Module] = []
        for _ in range(layers):
            found += [nn.Linear(width, out, bias=not norm), *after(out, norm, dropout), activation()]
            width = out
        return found

    width, encodings = graphs.features, []
    if design.encoding is not None:
        encodings.append(design.encoding.make())
        width += encoding_counts(design.encoding, 2, 2)[0]
    before = nn.Sequential(*linears(width, hidden, int(values["layers/pre"])))
    width, layers = hidden, []
    connectivity = str(values["connectivity"])
    aggregator = None if design.aggregator is None else design.aggregator.reference
    for _ in range(int(values["layers/message"])):
        step = step_of(design.operator, aggregator, not norm, width, hidden, graphs.edge_features, degree)
        layers.append(MessageLayer(step, nn.Sequential(*after(hidden, norm, dropout)), activation(), connectivity))
        width = width + hidden if connectivity == "skipconcat" else hidden
    readout: nn.Module | None = None
    pairs: nn.Module | None = None
    if graphs.level == "graph":
        readout = design.readout.make(width)
        width = getattr(readout, "out_features", width)
    aggregator = getattr(readout, "aggregator", None)
    if aggregator is not None:
        readout = None
    if graphs.level == "pair":
        pairs = HEAD.operator("dot").make(width, outputs)
    last = nn.Linear(width, width if pairs is not None else outputs)
    head = nn.Sequential(*linears(width, width, int(values["layers/post"]) - 1), last)
    of_one, of_many, of_pairs = (GraphGymNetwork, WithEdges), (OfMany, OfManyWithEdges), (OfPairs, OfPairsWithEdges)
    kind: type[GraphGymNetwork] = by_inputs(graphs, of_one, of_many, of_pairs)
    rewirings = [] if design.rewiring is None else [design.rewiring.make()]
    return kind(encodings, before, layers, aggregator, readout, head, pairs, l2norm, rewirings)
