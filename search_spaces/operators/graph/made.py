"""Node operators as graph networks call them."""

from __future__ import annotations

from torch import Tensor, nn

from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.operator import Operator


class OnTensor(nn.Module):
    """An operator that knows nothing of `GraphBatch`: it gets the edges as a tensor `[2, edges]`."""

    def __init__(self, operator: nn.Module) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: Tensor, edges: Tensor | GraphBatch) -> Tensor:
        answer: Tensor = self.operator(x, GraphBatch.of(edges, x).edge_index)
        return answer


def made(operator: Operator, width: int, hidden: int) -> nn.Module:
    """The operator from `width` to `hidden` features, called with `(x, links)`."""
    module = operator.make(width, hidden)
    return module if getattr(module, "takes_graph", False) else OnTensor(module)


def takes_sparse(operator: Operator) -> bool:
    """Whether it can be given features as a sparse tensor."""
    return bool(getattr(operator.kind, "takes_sparse", False))
