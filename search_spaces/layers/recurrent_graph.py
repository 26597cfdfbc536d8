"""Recurrent layers that are wired like a random graph.

Stier, Darji and Granitzer, "Experiments on Properties of Hidden Structures of Sparse Neural Networks", 2021, and Darji,
"Investigating Sparsity in Recurrent Neural Networks", 2021: a Watts-Strogatz or Barabasi-Albert graph, whose edges lead
from the lower to the higher number of a vertex, becomes layers. A vertex is one recurrent unit; its layer is the length
of the longest path that leads to it; an edge is one connection of every gate from unit to unit; within a layer the
units see one another's states.

Deviations: what is read are all units that no edge leads out of, and not the last layer alone; edges that skip layers
are connections like the others, to the gates of their unit, and not a linear map of their own before it. The generators
are those of the papers of the two kinds of graph, drawn by numpy.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas_core.errors import UsageError
from nas_core.seeds import generator

Edges = Collection[tuple[int, int]]
"""Pairs of vertices, the lower one first, each once."""

GATES: dict[type[nn.RNNBase], int] = {nn.RNN: 1, nn.GRU: 3, nn.LSTM: 4}


def watts_strogatz(vertices: int, neighbours: int, rewired: float, seed: int) -> list[tuple[int, int]]:
    """A ring in which each vertex has `neighbours` (an even number) nearest ones; the far end of each edge is another
    vertex with probability `rewired` (Watts and Strogatz, "Collective dynamics of small-world networks", Nature 393,
    1998). Raises UsageError."""
    if neighbours < 2 or neighbours % 2 or neighbours >= vertices:
        raise UsageError(f"{neighbours} neighbours of {vertices} vertices: take an even number, below that of vertices")
    draws = generator(seed, "watts-strogatz")
    ring = [(v, (v + far) % vertices) for far in range(1, neighbours // 2 + 1) for v in range(vertices)]
    found = {_ordered(*edge) for edge in ring}
    for v, w in ring:
        if float(draws.random()) >= rewired:
            continue
        free = [u for u in range(vertices) if u != v and _ordered(u, v) not in found]
        if free:
            found.remove(_ordered(v, w))
            found.add(_ordered(v, free[int(draws.integers(len(free)))]))
    return sorted(found)


def barabasi_albert(vertices: int, attached: int, seed: int) -> list[tuple[int, int]]:
    """A star of `attached + 1` vertices, to which vertices are added that are joined to `attached` others each, drawn
    by their degrees (Barabasi and Albert, "Emergence of Scaling in Random Networks", Science 286, 1999). Raises
    UsageError."""
    if not 1 <= attached < vertices:
        raise UsageError(f"{attached} edges of each of {vertices} vertices: take at least 1, and fewer than vertices")
    draws = generator(seed, "barabasi-albert")
    found = [(v, attached) for v in range(attached)]
    ends = [v for edge in found for v in edge]  # every vertex as often as it has edges
    for v in range(attached + 1, vertices):
        others: set[int] = set()
        while len(others) < attached:
            others.add(ends[int(draws.integers(len(ends)))])
        found += [(other, v) for other in sorted(others)]
        ends += [*others, *[v] * attached]
    return sorted(found)


def _ordered(v: int, w: int) -> tuple[int, int]:
    return (v, w) if v < w else (w, v)


def layers_of(vertices: int, edges: Edges) -> list[list[int]]:
    """The vertices of every layer: by the length of the longest path that leads to them."""
    depth = [0] * vertices
    for v, w in sorted(edges):  # in the order of the paths, as every edge leads to a higher number
        depth[w] = max(depth[w], depth[v] + 1)
    found: list[list[int]] = [[] for _ in range(max(depth) + 1)]
    for v, at in enumerate(depth):
        found[at].append(v)
    return found


class GraphRecurrent(nn.Module):
    """Steps `[n, steps, inputs]` to the states of the units that no edge leads out of, `[n, steps, outputs]`.

    The first layer reads the inputs, all others the layers before them where the graph has edges. Weights of what is no
    edge are 0, and stay so: they are left out of every pass.
    """

    def __init__(self, kind: type[nn.RNNBase], inputs: int, vertices: int, edges: Edges) -> None:
        super().__init__()
        order = layers_of(vertices, edges)
        inner = {v for v, _ in edges}
        self.layers = nn.ModuleList()
        before: list[int] = []
        for number, here in enumerate(order):
            layer = kind(len(before) if number else inputs, len(here), batch_first=True)
            if number:
                mask = _mask(before, here, edges).repeat(GATES[kind], 1)
                with torch.no_grad():
                    layer.weight_ih_l0 *= mask
                self.register_buffer(f"mask{number}", mask, persistent=False)
            self.layers.append(layer)
            before += here
        read = [place for place, v in enumerate(before) if v not in inner]
        self.outputs = len(read)
        self.register_buffer("read", torch.tensor(read), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        states: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            given = torch.cat(states, 2) if number else x
            weights = {"weight_ih_l0": layer.weight_ih_l0 * getattr(self, f"mask{number}")} if number else {}
            states.append(functional_call(layer, weights, (given,))[0])
        return torch.cat(states, 2).index_select(2, self.read)


def _mask(before: Sequence[int], here: Sequence[int], edges: Edges) -> Tensor:
    """[here, before]: 1 where an edge leads from one to the other."""
    known = set(edges)
    return torch.tensor([[float((v, w) in known) for v in before] for w in here])
