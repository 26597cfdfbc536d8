"""What networks of GraphGym cost: formulas, so that nothing is built; operators beside the general one are counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from nas_core.choice import Value
from nas_core.task import Level
from search_spaces.operators.graph.counted import encoding_costs, plain, readout_costs, rewiring_costs
from search_spaces.operators.operator import Operator


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
    for _ in range(int(values["layers/message"])):
        found = step_costs(design, width, hidden, passed)
        params, macs = params + found[0] + norm * hidden + slope, macs + found[1]
        width = width + hidden if values["connectivity"] == "skipconcat" else hidden
    rows, out = nodes, shape.outputs
    if shape.level == "graph":
        width, more, its_macs = readout_costs(design.readout, width, nodes)
        params, macs, rows = params + more, macs + its_macs, 1
    if shape.level == "pair":
        out = width
    for _ in range(int(values["layers/post"]) - 1):
        linear(width, width, rows)
    params, macs = params + (width + 1) * out, macs + rows * width * out
    if shape.level == "pair":
        more = 0 if shape.outputs == 1 else width * shape.outputs
        params, macs = params + more + (shape.outputs if more else 0), macs + edges * (width + more)
    return params, macs


def step_costs(design: Design, width: int, hidden: int, shape: Shape) -> tuple[int, int]:
    """Of one operator from `width` to `hidden` features."""
    if design.aggregator is not None and plain(design.aggregator):
        given = (shape.edge_features or 0) * hidden
        bias = 0 if design.values["batchnorm"] else hidden
        macs = 2 * shape.nodes * width * hidden + shape.edges * (hidden + given)
        return 2 * width * hidden + given + bias, macs
    aggregator = None if design.aggregator is None else design.aggregator.reference
    bias = not design.values["batchnorm"]
    return _step(design.operator, aggregator, bias, width, hidden, shape.nodes, shape.edges, shape.edge_features)


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
