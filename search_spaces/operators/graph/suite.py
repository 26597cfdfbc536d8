"""The contract of a node operator: `check` yields what is wrong with one; no finding means that it holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.operators.graph.made import made, takes_sparse
from search_spaces.operators.graph.sample import counted, ring
from search_spaces.operators.operator import Operator

NODES, EDGES, WIDTH, HIDDEN = 12, 30, 6, 4
ODD = {
    "without edges": (3, [[], []]),
    "of one node": (1, [[0], [0]]),
    "with loops, repeated edges and isolated nodes": (5, [[0, 0, 1, 1, 2], [0, 1, 2, 2, 2]]),
}


def check(operator: Operator) -> Iterator[str]:
    """What is wrong with an operator, in a sentence each."""
    try:
        with torch.random.fork_rng(devices=[]):
            for finding in _findings(operator):
                yield f"graph operator '{operator.reference}': {finding}"
    except Exception as error:
        yield f"graph operator '{operator.reference}' raises {type(error).__name__}: {error}"


def _findings(operator: Operator) -> Iterator[str]:
    hidden = WIDTH if operator.skip else HIDDEN
    module, twin = _made(operator, WIDTH, hidden), _made(operator, WIDTH, hidden)
    others = twin.state_dict()
    if any(not torch.equal(value, others[name]) for name, value in module.state_dict().items()):
        yield "two that are made from one seed have other weights"
    x, edges = torch.randn(NODES, WIDTH, requires_grad=True), ring(NODES, EDGES)
    answer = module.train()(x, edges)
    yield from _traits(operator, answer, x)
    if operator.zero:
        return
    if not isinstance(answer, Tensor) or answer.shape != (NODES, hidden):
        shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        yield f"answers {shape} instead of [nodes, hidden], {(NODES, hidden)}"
        return
    answer.square().sum().backward()
    learnt = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    if any(True for _ in module.parameters()) and not any(gradient.abs().sum() > 0 for gradient in learnt):
        yield "none of its parameters gets a gradient"
    if x.grad is None or not x.grad.abs().sum() > 0:
        yield "its input gets no gradient"
    with torch.no_grad():
        yield from _function(module.eval(), x.detach(), edges)
        if takes_sparse(operator):
            sparse, dense = (module(given, edges) for given in (x.detach().to_sparse(), x.detach()))
            if not torch.allclose(sparse.to_dense() if sparse.is_sparse else sparse, dense, atol=1e-5):
                yield "takes_sparse is True, but sparse features have another answer"
    params, macs = counted(operator, WIDTH, hidden, NODES, EDGES)
    if params != sum(parameter.numel() for parameter in module.parameters()) or macs < 0:
        yield f"its costs are counted as {params} parameters and {macs} MACs"
    yield from _export(operator, module.eval())


def _made(operator: Operator, width: int, hidden: int) -> nn.Module:
    torch.manual_seed(0)
    return made(operator, width, hidden)


def _traits(operator: Operator, answer: Any, x: Tensor) -> Iterator[str]:
    if operator.skip and not (isinstance(answer, Tensor) and torch.equal(answer, x)):
        yield "skip is True, but it does not hand its input on"
    if operator.zero and isinstance(answer, Tensor) and answer.abs().sum() > 0:
        yield "zero is True, but it adds something"


def _function(module: nn.Module, x: Tensor, edges: Tensor) -> Iterator[str]:
    """In evaluation mode: repeatable, blind to the numbering of nodes, finite on odd graphs."""
    answer = module(x, edges)
    if not torch.equal(answer, module(x, edges)):
        yield "two passes in evaluation mode differ"
    order = torch.randperm(NODES, generator=torch.Generator().manual_seed(0))
    renumbered = module(x[order], order.argsort()[edges])
    if not torch.allclose(renumbered, answer[order], atol=1e-5):
        yield "renumbering the nodes does more than to renumber the answer"
    for what, (nodes, pairs) in ODD.items():
        other = module(x[:nodes], torch.tensor(pairs, dtype=torch.long))
        if other.shape != (nodes, answer.shape[1]) or not torch.isfinite(other).all():
            yield f"on a graph {what} its answer has the wrong shape or is not finite"


def _export(operator: Operator, module: nn.Module) -> Iterator[str]:
    reason = getattr(operator.kind, "why_not_exportable", None)
    if reason is not None:
        if not isinstance(reason, str) or not reason:
            yield f"why_not_exportable is {reason!r}, which is no reason"
        return
    from torch.export import Dim, export

    free = ({0: Dim("nodes", min=0)}, {1: Dim("edges", min=0)})
    x, edges = torch.randn(NODES, WIDTH), ring(NODES, EDGES)
    try:
        program = export(module, (x, edges), dynamic_shapes=free).module()
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        yield f"torch.export cannot trace it ({first}); if it has to be so, say why in why_not_exportable"
        return
    other = (x[:5], ring(5, 7))
    if not torch.allclose(program(*other), module(*other), atol=1e-5):
        yield "its exported program answers another graph differently"
