"""What operators of nasbench_graph cost: formulas of the benchmark's, so that nothing is imported or built for them."""

from __future__ import annotations

from functools import lru_cache

from search_spaces.operators.operator import Operator

FORMULAS = frozenset({"gat", "gcn", "gin", "cheb", "sage", "arma", "graph", "fc", "skip"})


def operator_costs(operator: Operator, width: int, hidden: int, nodes: int, edges: int) -> tuple[int, int]:
    """Parameters and multiply-accumulates from `width` to `hidden` features: by formula, or counted."""
    if operator.own or operator.label not in FORMULAS:
        return _counted(operator, width, hidden, nodes, edges)
    return operation_params(operator.label, width, hidden), sum(
        operation_macs(operator.label, width, hidden, nodes, edges)
    )


@lru_cache(maxsize=1024)
def _counted(operator: Operator, width: int, hidden: int, nodes: int, edges: int) -> tuple[int, int]:
    from search_spaces.operators.graph.sample import counted

    return counted(operator, width, hidden, nodes, edges)


def operation_params(operation: str, width: int, hidden: int) -> int:
    """Parameters of an operation from `width` to `hidden` features (gat: 2 heads of half the width)."""
    dense = width * hidden
    if operation in ("gcn", "gin", "fc"):
        return dense + hidden
    if operation in ("cheb", "sage", "graph"):
        return 2 * dense + hidden
    if operation == "gat":
        return dense + 3 * hidden
    if operation == "arma":
        return 2 * dense + hidden * hidden + hidden
    return 0


def operation_macs(operation: str, width: int, hidden: int, nodes: int, edges: int) -> tuple[int, int]:
    """Multiply-accumulates of an operation: (its matrix products, its messages).

    A message costs one per feature, whether it is weighted or only added. `edges` are directed; gcn and gat
    also send one message from every node to itself, and gat scores every node as source and as target.
    """
    dense = nodes * width * hidden
    if operation == "skip":
        return 0, 0
    if operation == "fc":
        return dense, 0
    if operation == "gcn":
        return dense, (edges + nodes) * hidden
    if operation == "gat":
        return dense, (edges + 3 * nodes) * hidden
    if operation == "gin":
        return dense, edges * hidden
    return 2 * dense, edges * hidden
