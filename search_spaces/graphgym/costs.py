"""What networks of GraphGym cost: formulas, so that nothing is built; operators beside the general one are counted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from nas_core.choice import Value
from nas_core.task import Level
from search_spaces.operators.graph.counted import encoding_costs, plain, readout_costs, rewiring_costs
from search_spaces.operators.operator import Operator

STACK = "stack"
"""Nothing goes around a layer of message passing."""


@dataclass(frozen=True)
class Shape:
    """What a network is built for: features of nodes and of edges, outputs, what is answered for, a graph's size."""

    features: int
    outputs: int
    level: Level
    nodes: int
    edges: int
    edge_features: int | None


@dataclass(frozen=True, eq=False)
class Design:
    """An architecture with its operators. `values` are of all twelve dimensions."""

    values: Mapping[str, Value]
    operator: Operator
    aggregator: Operator | None
    encoding: Operator | None
    readout: Operator
    rewiring: Operator | None


def costs(design: Design, shape: Shape, hidden: int) -> tuple[int, int]:
    """Parameters, and multiply-accumulates on one graph, `hidden` wide. Pairs are as many as edges; normalisation,
    activations and biases count no MACs."""
    values, nodes, edges = design.values, shape.nodes, shape.edges
    norm = 2 if values["batchnorm"] else 0  # per feature
    slope = 1 if values["activation"] == "prelu" else 0
    params = macs = 0

    def linear(wide: int, out: int, rows: int) -> None:
        nonlocal params, macs
        params += wide * out + (norm or 1) * out + slope
        macs += rows * wide * out

    width = shape.features
    if design.encoding is not None:
        wide, more, its_macs = encoding_costs(design.encoding, nodes, edges)
        width, params, macs = width + wide, params + more, macs + its_macs
    for _ in range(int(values["layers/pre"])):
        linear(width, hidden, nodes)
        width = hidden
    passed = shape
    if design.rewiring is not None:
        more_nodes, more_edges, more, its_macs = rewiring_costs(design.rewiring, width, nodes, edges)
        passed, params, macs = replace(shape, nodes=more_nodes, edges=more_edges), params + more, macs + its_macs
    answers = hidden if shape.level == "pair" else shape.outputs
    for layer in message_layers(design, width, hidden, answers):
        found = message_costs(design, layer, passed)
        params, macs, width = params + found[0], macs + found[1], layer.after
        if not layer.answers:
            params += norm * hidden + slope
    rows = nodes
    if shape.level == "graph":
        width, more, its_macs = readout_costs(design.readout, width, nodes)
        params, macs, rows = params + more, macs + its_macs, 1
    out = width if shape.level == "pair" else shape.outputs
    for _ in range(int(values["layers/post"]) - 1):
        linear(width, width, rows)
    if int(values["layers/post"]):
        params, macs = params + (width + 1) * out, macs + rows * width * out
    if shape.level == "pair":
        more = 0 if shape.outputs == 1 else width * shape.outputs
        params, macs = params + more + (shape.outputs if more else 0), macs + edges * (width + more)
    return params, macs


@dataclass(frozen=True, eq=False)
class Message:
    """A layer of message passing from `width` to `out` features. What it `answers` is what the network does: nothing
    follows it."""

    operator: Operator
    width: int
    out: int
    connectivity: str
    bias: bool
    answers: bool

    @property
    def after(self) -> int:
        """Features of what it hands on."""
        return self.width + self.out if self.connectivity == "skipconcat" else self.out


def places(values: Mapping[str, Value]) -> Iterator[tuple[str, bool]]:
    """Of each layer of message passing what goes around it, and whether it answers.

    Without a linear layer before them the first one maps features, and without one after them the last one answers:
    nothing goes around either.
    """
    last = int(values["layers/message"]) - 1
    for number in range(last + 1):
        answers = number == last and not values["layers/post"]
        maps = number == 0 and not values["layers/pre"]
        yield STACK if answers or maps else str(values["connectivity"]), answers


def message_layers(design: Design, width: int, hidden: int, outputs: int) -> Iterator[Message]:
    """The layers of message passing after what is `width` wide; one that answers is `outputs` wide. Attention has one
    head there (Velickovic et al. 2018, section 3.3)."""
    for connectivity, answers in places(design.values):
        operator = _with_one_head(design.operator) if answers else design.operator
        bias = answers or not design.values["batchnorm"]
        layer = Message(operator, width, outputs if answers else hidden, connectivity, bias, answers)
        yield layer
        width = layer.after


@lru_cache
def _with_one_head(operator: Operator) -> Operator:
    if "heads" not in inspect.signature(operator.kind).parameters:
        return operator
    return replace(operator, options={**operator.options, "heads": 1})


def message_costs(design: Design, layer: Message, shape: Shape) -> tuple[int, int]:
    """Parameters and multiply-accumulates of the operator of a layer."""
    width, out = layer.width, layer.out
    if design.aggregator is not None and plain(design.aggregator):
        given = (shape.edge_features or 0) * out
        macs = 2 * shape.nodes * width * out + shape.edges * (out + given)
        return 2 * width * out + given + (out if layer.bias else 0), macs
    aggregator = None if design.aggregator is None else design.aggregator.reference
    return _step(layer.operator, aggregator, layer.bias, width, out, shape.nodes, shape.edges, shape.edge_features)


@lru_cache(maxsize=4096)
def _step(
    operator: Operator,
    aggregator: str | None,
    bias: bool,
    width: int,
    hidden: int,
    nodes: int,
    edges: int,
    edge_dim: int | None,
) -> tuple[int, int]:
    from search_spaces.graphgym.network import step_of
    from search_spaces.operators.graph.sample import step_counts

    degree = edges / max(1, nodes)
    return step_counts(
        lambda: step_of(operator, aggregator, bias, width, hidden, edge_dim, degree), width, nodes, edges, edge_dim
    )


def matched(count: Callable[[int], int], target: int) -> int:
    """The width that the published rule ends at (GraphGym, `match_computation` with `match_upper`): the smallest one
    whose count is at least the target, 1 where that is more already."""
    low = high = 1
    while count(high) < target:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= target else (middle + 1, high)
    return low
