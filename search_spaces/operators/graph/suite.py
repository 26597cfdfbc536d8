"""The contract of the catalogue's roles: `check` yields what is wrong with an entry; no finding means that it holds.

Costs only the entries of the tables must say; all else holds for a user's own as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from search_spaces.counter import counts
from search_spaces.layers.csr import Csr
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.layers.sparse_features import SparseFeatures
from search_spaces.operators.graph import ENCODING, GRAPH
from search_spaces.operators.graph.made import takes_sparse
from search_spaces.operators.graph.probe import EDGE_DIM, WIDTH, Probe, trait
from search_spaces.operators.graph.sample import ring
from search_spaces.operators.operator import Operator

NODES, EDGES = 12, 30
SIZES = ((5, 9), (1, 0), (6, 14))  # nodes and edges of graphs that are one batch
ODD: Mapping[str, tuple[int, list[list[int]]]] = {
    "without edges": (3, [[], []]),
    "of one node": (1, [[0], [0]]),
    "with loops, repeated edges and isolated nodes": (5, [[0, 0, 1, 1, 2], [0, 1, 2, 2, 2]]),
}
CLOSE = 1e-5
ROUNDED = 1e-4  # of the largest value: what float32 may differ by


def check(operator: Operator) -> Iterator[str]:
    """What is wrong with an operator, in a sentence each."""
    what = f"{operator.role.name} '{operator.reference}'"
    try:
        with torch.random.fork_rng(devices=[]):
            for edge_dim in (None, EDGE_DIM) if getattr(operator.kind, "takes_edges", False) else (None,):
                for finding in _findings(operator, edge_dim):
                    yield f"{what}{'' if edge_dim is None else ' with features of edges'}: {finding}"
    except Exception as error:
        yield f"{what} raises {type(error).__name__}: {error}"


def _findings(operator: Operator, edge_dim: int | None) -> Iterator[str]:
    probe, twin = _made(operator, edge_dim), _made(operator, edge_dim)
    others = twin.state_dict()
    if any(not torch.equal(value, others[name]) for name, value in probe.state_dict().items()):
        yield "two that are made from one seed have other weights"
    x, edges = torch.randn(NODES, WIDTH, requires_grad=True), ring(NODES, EDGES)
    answer = probe.train()(x, edges)
    yield from _traits(operator, answer, x)
    if operator.zero:
        return
    wanted = _shape(probe, answer)
    if not isinstance(answer, Tensor) or answer.shape != wanted:
        shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        yield f"answers {shape} instead of [{probe.answers}, width], {wanted}"
        return
    yield from _learning(probe, answer, x)
    with torch.no_grad():
        yield from _function(probe.eval(), x.detach(), edges)
        if operator.role is GRAPH and takes_sparse(operator):
            row, column = x.nonzero(as_tuple=True)
            features = SparseFeatures(Csr.of(row, column, x.detach()[row, column], (NODES, WIDTH)))
            if not torch.allclose(probe(features, edges), probe(x.detach(), edges), atol=CLOSE):
                yield "takes_sparse is True, but sparse features have another answer"
    yield from _costs(operator, edge_dim)
    yield from _export(probe.eval())


def _made(operator: Operator, edge_dim: int | None = None) -> Probe:
    torch.manual_seed(0)
    return Probe(operator, edge_dim=edge_dim)


def _shape(probe: Probe, answer: Any, nodes: int = NODES, edges: int = EDGES, graphs: int = 1) -> tuple[int, int]:
    rows = {"nodes": nodes, "edges": edges, "graphs": graphs}[probe.answers]
    return rows, probe.out_features if probe.out_features is not None else answer.shape[-1]


def _traits(operator: Operator, answer: Any, x: Tensor) -> Iterator[str]:
    if operator.skip and not (isinstance(answer, Tensor) and torch.equal(answer, x)):
        yield "skip is True, but it does not hand its input on"
    if operator.zero and isinstance(answer, Tensor) and answer.abs().sum() > 0:
        yield "zero is True, but it adds something"


def _learning(probe: Probe, answer: Tensor, x: Tensor) -> Iterator[str]:
    weights = dict(probe.named_parameters())
    if not answer.requires_grad and (probe.role is ENCODING and not weights):
        return
    answer.square().sum().backward()
    learnt = [parameter.grad for parameter in weights.values() if parameter.grad is not None]
    if weights and not any(gradient.abs().sum() > 0 for gradient in learnt):
        yield "none of its parameters gets a gradient"
    if not all(torch.isfinite(gradient).all() for gradient in learnt):
        yield "a gradient is not finite"
    if probe.role is not ENCODING and (x.grad is None or not x.grad.abs().sum() > 0):
        yield "its input gets no gradient"


def _function(probe: Probe, x: Tensor, edges: Tensor) -> Iterator[str]:
    """In evaluation mode: repeatable, blind to numbers and to company, finite on odd graphs."""
    torch.manual_seed(1)
    answer, again = probe(x, edges), probe(x, edges)
    torch.manual_seed(1)
    stochastic = bool(trait(probe, "stochastic"))
    if not torch.equal(answer, probe(x, edges)):
        yield "two passes after one seed differ"
    if stochastic == torch.equal(answer, again):
        yield (
            "stochastic is True, but two passes are the same"
            if stochastic
            else ("two passes in evaluation mode differ; if that has to be so, say stochastic = True")
        )
    for what, (nodes, pairs) in ODD.items():
        other = probe(x[:nodes], torch.tensor(pairs, dtype=torch.long))
        if other.shape != _shape(probe, answer, nodes, len(pairs[0])) or not torch.isfinite(other).all():
            yield f"on a graph {what} its answer has the wrong shape or is not finite"
    if stochastic:
        return
    yield from _forms(probe, x, edges, answer)
    yield from _order(probe, x, edges, answer)
    yield from _company(probe)
    wide = probe.double()(x.double(), edges)
    probe.float()
    if (answer - wide).abs().max() > ROUNDED * max(1.0, float(wide.abs().max())):
        yield "float64 has another answer"


def _forms(probe: Probe, x: Tensor, edges: Tensor, answer: Tensor) -> Iterator[str]:
    """A graph that was prepared before, and edges as a tensor where no graph is made of them, are the same."""
    if not torch.allclose(probe(x, GraphBatch.of(edges, x).carrier()), answer, atol=CLOSE) and probe.answers != "edges":
        yield "a graph that travels with its edges is answered otherwise than the edges alone"
    if probe.role is GRAPH:
        operator, e = probe.entry.operator, probe.features(x, edges)
        plain = operator(x, edges) if e is None else operator(x, edges, e)
        if not torch.allclose(plain, answer, atol=CLOSE):
            yield "edges as a tensor are answered otherwise than as a graph"


def _order(probe: Probe, x: Tensor, edges: Tensor, answer: Tensor) -> Iterator[str]:
    """Neither the numbering of nodes nor the order of edges means anything, but where it says so."""
    generator = torch.Generator().manual_seed(0)
    order, sequence = torch.randperm(NODES, generator=generator), torch.randperm(EDGES, generator=generator)
    renumbered = probe(x[order], order.argsort()[edges])
    shuffled = probe(x, edges[:, sequence])
    by_node = torch.allclose(renumbered, answer[order] if probe.answers == "nodes" else answer, atol=CLOSE)
    by_edge = torch.allclose(shuffled, answer[sequence] if probe.answers == "edges" else answer, atol=CLOSE)
    reason = trait(probe, "ordered")
    if reason is not None:
        if not isinstance(reason, str) or not reason:
            yield f"ordered is {reason!r}, which is no reason"
        if by_node and by_edge:
            yield "it says that it is ordered, but neither another order of edges nor of nodes changes it"
        return
    if not by_node:
        yield f"renumbering the nodes does more than to {'renumber' if probe.answers == 'nodes' else 'keep'} the answer"
    if not by_edge:
        yield "another order of the edges changes its answer; if that has to be so, say why in ordered"


def _company(probe: Probe) -> Iterator[str]:
    """Graphs in a batch are answered as each by itself."""
    generator = torch.Generator().manual_seed(2)
    features = [torch.randn(nodes, WIDTH, generator=generator) for nodes, _ in SIZES]
    edges = [ring(nodes, count) for nodes, count in SIZES]
    alone = torch.cat([probe(*one) for one in zip(features, edges, strict=True)])
    counts_ = torch.tensor([nodes for nodes, _ in SIZES])
    starts = counts_.cumsum(0) - counts_
    joined = torch.cat([one + start for one, start in zip(edges, starts, strict=True)], 1)
    together = probe(torch.cat(features), joined, counts_)
    if together.shape != alone.shape or not torch.allclose(together, alone, atol=CLOSE):
        yield "graphs in a batch are answered otherwise than one by one"


def _costs(operator: Operator, edge_dim: int | None) -> Iterator[str]:
    torch.manual_seed(0)
    probe = Probe(operator, edge_dim=edge_dim)
    inputs = (torch.ones(NODES, WIDTH), ring(NODES, EDGES))
    params, macs = counts(lambda: Probe(operator, edge_dim=edge_dim), inputs)
    if params != sum(parameter.numel() for parameter in probe.parameters()) or macs < 0:
        yield f"its costs are counted as {params} parameters and {macs} MACs"
    said = probe.said_macs(NODES, EDGES)
    if said is not None and said != macs:
        yield f"it says that it costs {said} MACs, and {macs} are counted"
    if not operator.own and said is None:
        yield "it does not say what it costs: macs(nodes, edges)"
    if not operator.own and probe.said_signature() is None:
        yield "it has no signature()"


def _export(probe: Probe) -> Iterator[str]:
    reason = trait(probe, "why_not_exportable")
    if reason is not None:
        if not isinstance(reason, str) or not reason:
            yield f"why_not_exportable is {reason!r}, which is no reason"
        return
    try:
        program = exported(probe).module()
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        yield f"torch.export cannot trace it ({first}); if it has to be so, say why in why_not_exportable"
        return
    for what, inputs in samples(probe).items():
        if not torch.allclose(program(*inputs), probe(*inputs), atol=CLOSE):
            yield f"its exported program answers another graph differently: {what}"


def exported(probe: Probe) -> torch.export.ExportedProgram:
    """A program with as many nodes, edges and graphs as one likes. Raises whatever torch does."""
    from torch.export import Dim, export

    inputs = samples(probe)["several graphs"]
    free: Any = ({0: Dim("nodes", min=0)}, {1: Dim("edges", min=0)}, {0: Dim("graphs", min=1)})
    return export(probe.eval(), inputs, dynamic_shapes=free[: len(inputs)])


def samples(probe: Probe) -> dict[str, tuple[Tensor, ...]]:
    """Inputs of a probe on several graphs, on one, and on one without edges."""
    generator = torch.Generator().manual_seed(3)
    found: dict[str, tuple[Tensor, ...]] = {}
    for what, sizes in {"several graphs": SIZES, "one graph": ((7, 12),), "no edges": ((4, 0),)}.items():
        counts_ = torch.tensor([nodes for nodes, _ in sizes])
        starts = (counts_.cumsum(0) - counts_).tolist()
        edges = torch.cat([ring(*size) + start for size, start in zip(sizes, starts, strict=True)], 1)
        found[what] = (torch.randn(int(counts_.sum()), WIDTH, generator=generator), edges, counts_)
    return found
