"""How a design becomes a network."""

from __future__ import annotations

from typing import Any

from torch import nn

from nas_core.task import Graphs
from search_spaces.graphgym.costs import Design, message_layers
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
from search_spaces.layers.feature_dropout import FeatureDropout
from search_spaces.operators.graph import HEAD
from search_spaces.operators.graph.made import of_width, takes_sparse
from search_spaces.operators.graph.sample import encoding_counts


def built(
    design: Design, graphs: Graphs, outputs: int, degree: float, hidden: int, l2norm: bool, dropout_features: float
) -> nn.Module:
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
    width, layers = hidden if len(before) else width, []
    aggregator = None if design.aggregator is None else design.aggregator.reference
    for each in message_layers(design, width, hidden, hidden if graphs.level == "pair" else outputs):
        step = step_of(each.operator, aggregator, each.bias, each.width, each.out, graphs.edge_features, degree)
        wrapper = [] if each.answers else after(hidden, norm, dropout)
        then = nn.Identity() if each.answers else activation()
        layers.append(MessageLayer(step, nn.Sequential(*wrapper), then, each.connectivity))
        width = each.after
    afterwards = int(values["layers/post"])
    readout: nn.Module | None = None
    pairs: nn.Module | None = None
    if graphs.level == "graph":
        readout = design.readout.make(width) if afterwards else of_width(design.readout, width)
        width = getattr(readout, "out_features", width)
    aggregator = getattr(readout, "aggregator", None)
    if aggregator is not None:
        readout = None
    if graphs.level == "pair":
        pairs = HEAD.operator("dot").make(width, outputs)
    head = nn.Sequential(*linears(width, width, afterwards - 1))
    if afterwards:
        head.append(nn.Linear(width, width if pairs is not None else outputs))
    of_one, of_many, of_pairs = (GraphGymNetwork, WithEdges), (OfMany, OfManyWithEdges), (OfPairs, OfPairsWithEdges)
    kind: type[GraphGymNetwork] = by_inputs(graphs, of_one, of_many, of_pairs)
    rewirings = [] if design.rewiring is None else [design.rewiring.make()]
    drop_features = FeatureDropout(dropout_features)
    # Linear maps take sparse features.
    drop_features.dense = not len(before) and bool(rewirings or not takes_sparse(design.operator))
    return kind(
        encodings, drop_features, before, layers, aggregator, readout, head, pairs, l2norm and afterwards > 0, rewirings
    )
