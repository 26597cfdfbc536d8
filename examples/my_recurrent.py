"""Recurrent networks of one's own for strings: `nas train examples/my_recurrent.py:gru --data "reber?strings=2000"`.

A row holds a string, a block of symbols per place (`training/data/reber.py`): the product with a matrix is an
embedding. Three layers of 50 units are those of Darji, "Investigating Sparsity in Recurrent Neural Networks" (2021).
"""

from __future__ import annotations

from torch import Tensor, nn

from nas_core.errors import UsageError
from nas_core.task import Task
from search_spaces.layers.recurrent_graph import GraphRecurrent, barabasi_albert, watts_strogatz


class Reader(nn.Module):
    """`[n, places * symbols]` to `[n, outputs]`: the strings are read from their first place to their last."""

    def __init__(self, kind: type[nn.RNNBase], symbols: int, outputs: int, units: int, layers: int) -> None:
        super().__init__()
        self.symbols = symbols
        self.embedding = nn.Linear(symbols, units, bias=False)
        self.layers = kind(units, units, num_layers=layers, batch_first=True)
        self.classifier = nn.Linear(units, outputs)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.embedding(x.unflatten(1, (-1, self.symbols)))
        return self.classifier(self.layers(steps)[0][:, -1])


def lstm(task: Task, units: int = 50, layers: int = 3) -> Reader:
    """Long short-term memory."""
    return Reader(nn.LSTM, symbols(task), task.outputs, units, layers)


def gru(task: Task, units: int = 50, layers: int = 3) -> Reader:
    """Gated recurrent units."""
    return Reader(nn.GRU, symbols(task), task.outputs, units, layers)


class GraphReader(nn.Module):
    """`[n, places * symbols]` to `[n, outputs]`, by units that are wired like a graph."""

    def __init__(self, layers: GraphRecurrent, symbols: int, width: int, outputs: int) -> None:
        super().__init__()
        self.symbols = symbols
        self.embedding = nn.Linear(symbols, width, bias=False)
        self.layers = layers
        self.classifier = nn.Linear(layers.outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.embedding(x.unflatten(1, (-1, self.symbols)))
        return self.classifier(self.layers(steps)[:, -1])


def wired(
    task: Task, cell: str = "gru", shape: str = "ba", units: int = 60, edges: int = 4, seed: int = 0
) -> GraphReader:
    """Units `gru` or `lstm`, wired like a graph: `ba` (Barabasi-Albert, so many edges of every new vertex) or `ws`
    (Watts-Strogatz, so many neighbours, all edges rewired)."""
    kind = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
    found = barabasi_albert(units, edges, seed) if shape == "ba" else watts_strogatz(units, edges, 1.0, seed)
    return GraphReader(GraphRecurrent(kind, 50, units, found), symbols(task), 50, task.outputs)


def symbols(task: Task) -> int:
    """How many there may be at every place. Raises UsageError for rows that are no strings."""
    widths = set(task.table())
    if len(widths) != 1:
        raise UsageError(f"a string has as many symbols at every place, and these rows have fields of {sorted(widths)}")
    return widths.pop()
