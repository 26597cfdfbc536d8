"""Whole trainings of graph networks by the fit loop, beside plain layers of PyTorch Geometric on dense features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, SAGEConv

from search_spaces.layers.dropout import Dropout
from search_spaces.layers.feature_dropout import FeatureDropout
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.layers.sparse_features import SparseFeatures
from search_spaces.operators.graph import GRAPH
from search_spaces.operators.graph.made import made
from training import recipe as recipes
from training.data.source import GraphSource, graph_source
from training.data.split import Split
from training.fit import fit

NODES, WORDS, CLASSES = 80, 300, 3
PLAIN: dict[str, list[nn.Module]] = {
    "gcn": [GCNConv(WORDS, 8), GCNConv(8, CLASSES)],
    "sage": [SAGEConv(WORDS, 8), SAGEConv(8, CLASSES)],
    "gat": [GATConv(WORDS, 4, heads=2), GATConv(8, CLASSES)],
}


def bags_of_words() -> GraphSource:
    """A ring with shortcuts, repeated edges, loops and an isolated node, whose nodes have a few words each."""
    random = np.random.default_rng(0)
    number = np.arange(NODES - 1)
    ring = np.stack([number, (number + 1) % len(number)])
    edges = np.concatenate([ring, ring[::-1], random.integers(0, NODES - 1, (2, 60)), [[3, 3, 3], [3, 9, 9]]], axis=1)
    labels = random.integers(0, CLASSES, NODES)
    words = (random.random((NODES, WORDS)) < 0.02).astype(np.float32)
    words[np.arange(NODES), labels] = 1.0
    return graph_source("made", words, labels, edges, Split())


class Fast(nn.Module):
    """Operators of the catalogue, as spaces put them together; `seen` is what the first one was given."""

    def __init__(self, name: str) -> None:
        super().__init__()
        first, last = GRAPH.operators([name, "gat(heads=1)"]) if name == "gat" else GRAPH.operators([name]) * 2
        self.layers = nn.ModuleList([made(first, WORDS, 8), made(last, 8, CLASSES)])
        self.drop_features, self.drop = FeatureDropout(0.5), Dropout(0.5)
        self.seen: set[type] = set()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        graph = GraphBatch.of(edge_index, x)
        x = self.drop_features(x, graph)
        self.seen.add(type(x))
        answer: Tensor = self.layers[1](self.drop(self.layers[0](x, graph).relu()), graph)
        return answer


def renamed(name: str, layer: nn.Module) -> dict[str, Tensor]:
    """The weights of an operator of the catalogue, as PyTorch Geometric calls them."""
    known = {"neighbours.weight": "lin_l.weight", "bias": "lin_l.bias", "itself.weight": "lin_r.weight"}
    return {known[key] if name == "sage" else key: value for key, value in layer.state_dict().items()}


class Slow(nn.Module):
    """The same of plain layers, which are given dense features and edges as a tensor; the same values are dropped."""

    def __init__(self, name: str, fast: Fast) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PLAIN[name])
        for plain, layer in zip(self.layers, fast.layers, strict=True):
            plain.load_state_dict(renamed(name, layer))
        self.drop_features, self.drop = FeatureDropout(0.5), Dropout(0.5)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        words = self.drop_features(x, GraphBatch.of(edge_index, x))
        dense = words.csr.dense if isinstance(words, SparseFeatures) else words
        edges = edge_index.as_tensor() if hasattr(edge_index, "as_tensor") else edge_index
        answer: Tensor = self.layers[1](self.drop(self.layers[0](dense, edges).relu()), edges)
        return answer


@pytest.mark.parametrize("name", PLAIN)
def test_trainings_are_those_of_plain_layers(name: str) -> None:
    """After 40 epochs by Adam the weights are the same, and so is every figure on the way."""
    source = bags_of_words()
    plan = recipes.recipe("standard", source.task, epochs=40, lr=0.03, weight_decay=5e-4, keep="last")
    torch.manual_seed(0)
    fast = Fast(name)
    slow = Slow(name, fast)
    reports: list[list[Any]] = []
    for network in (fast, slow):
        trained = fit(network, source.bind("cpu"), plan, device=torch.device("cpu"), seed=3, test=True)
        reports.append([report.metrics for report in trained])
    assert fast.seen == {SparseFeatures}
    for ours, plain in zip(*reports, strict=True):
        assert {key: value for key, value in ours.items() if "loss" in key} == pytest.approx(
            {key: value for key, value in plain.items() if "loss" in key}, rel=1e-4, abs=1e-5
        )
    for layer, plain in zip(fast.layers, slow.layers, strict=True):
        torch.testing.assert_close(renamed(name, layer), dict(plain.state_dict()), atol=1e-4, rtol=1e-4)
    assert reports[0][-1]["train_loss"] < 0.8 * reports[0][0]["train_loss"]
