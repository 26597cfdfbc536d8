"""Stochastic block models of "Benchmarking graph neural networks" (JMLR 2023): sizes, probabilities, patterns, values;
and the loss and the metric of that benchmark."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from training.data import load
from training.data.many_graphs import ManyGraphSource
from training.data.split import Split
from training.loss import complement_weights
from training.tasks.inductive_nodes import mean_recall


def made(reference: str) -> ManyGraphSource:
    source = load(reference, Split())
    assert isinstance(source, ManyGraphSource)
    assert source.task.kind == "inductive-node-classification"
    return source


def adjacencies(source: ManyGraphSource) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of every graph its adjacency, classes and values."""
    starts = np.cumsum(source.counts) - source.counts
    found = []
    for start, count in zip(starts, source.counts, strict=True):
        inside = (source.edge_index[1] >= start) & (source.edge_index[1] < start + count)
        matrix = np.zeros((count, count), int)
        matrix[tuple(source.edge_index[:, inside] - start)] += 1
        rows = slice(start, start + count)
        found.append((matrix, source.targets[rows], source.features[rows].argmax(1)))
    return found


def test_cluster_has_six_communities_with_one_marked_node_each() -> None:
    source = made("sbm-cluster?graphs=150")
    assert (source.task.outputs, source.task.input_shape) == (6, (7,))
    inside, between = np.zeros(2), np.zeros(2)
    orders = []
    for matrix, classes, values in adjacencies(source):
        assert (matrix == matrix.T).all()
        assert matrix.max() == 1
        assert not matrix.diagonal().any()
        sizes = np.bincount(classes, minlength=6)
        assert 5 <= sizes.min() <= sizes.max() <= 34
        assert np.bincount(values, minlength=7)[1:].tolist() == [1] * 6
        marked = values > 0
        assert (values[marked] == classes[marked] + 1).all()
        same = classes[:, None] == classes
        others = ~np.eye(len(classes), dtype=bool)
        inside += matrix[same & others].sum(), (same & others).sum()
        between += matrix[~same].sum(), (~same).sum()
        orders.append((np.diff(classes) < 0).any())
    assert all(orders)  # nodes are in random order
    assert inside[0] / inside[1] == pytest.approx(0.55, abs=0.005)
    assert between[0] / between[1] == pytest.approx(0.25, abs=0.005)
    assert source.counts.mean() == pytest.approx(6 * 19.5, rel=0.05)


def test_pattern_hides_one_of_few_patterns_in_five_communities() -> None:
    source = made("sbm-pattern?graphs=150")
    assert (source.task.outputs, source.task.input_shape) == (2, (3,))
    found = adjacencies(source)
    joined = np.zeros(2)
    patterns = []
    for matrix, classes, values in found:
        own = classes == 1
        assert own.sum() == 20
        assert 25 <= (~own).sum() <= 170
        joined += matrix[own][:, ~own].sum(), own.sum() * (~own).sum()
        degrees = matrix[own][:, own].sum(1)
        # Nodes are in another order in every graph: degrees inside of the pattern with values tell patterns apart.
        patterns.append(tuple(sorted(zip(degrees.tolist(), values[own].tolist(), strict=True))))
    assert joined[0] / joined[1] == pytest.approx(0.5, abs=0.01)
    assert len(set(patterns[:140])) == 1
    assert len(set(patterns[140:])) == 1
    assert patterns[0] != patterns[140]
    values = source.features[source.targets == 0].mean(0)
    assert values == pytest.approx([1 / 3] * 3, abs=0.02)


def test_probabilities_of_pattern_are_those_of_the_published_code() -> None:
    """p = 0.5 in communities of 19.5 nodes on average, q = 0.2 between: by the share of all pairs that are joined."""
    found = adjacencies(made("sbm-pattern?graphs=150"))
    pairs = [(matrix[classes == 0][:, classes == 0], (classes == 0).sum()) for matrix, classes, _ in found]
    density = sum(matrix.sum() for matrix, _ in pairs) / sum(count * (count - 1) for _, count in pairs)
    sizes = np.arange(5, 35)
    same = 5 * (sizes * (sizes - 1)).mean()
    between = 20 * sizes.mean() ** 2
    assert density == pytest.approx((0.5 * same + 0.2 * between) / (same + between), abs=0.004)


@pytest.mark.parametrize("name", ["sbm-cluster", "sbm-pattern"])
def test_block_models_depend_on_the_seed_alone(name: str) -> None:
    one, same, other = (made(f"{name}?graphs=12&seed={seed}") for seed in (1, 1, 2))
    assert one.split_hash == same.split_hash != other.split_hash
    more = made(f"{name}?graphs=12&seed=1")
    assert np.array_equal(one.features, more.features)


def test_the_loss_weighs_a_class_by_the_share_of_other_nodes() -> None:
    targets = torch.tensor([0, 0, 0, 2])
    weights = complement_weights(targets, 4)
    assert weights.tolist() == [0.25, 0.0, 0.75, 0.0]
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    by_hand = sum(
        float(weights[target] * -row.log_softmax(0)[target]) for row, target in zip(logits, targets, strict=True)
    )
    assert float(functional.cross_entropy(logits, targets, weights)) == pytest.approx(by_hand / 1.5, rel=1e-5)


def test_mean_recall_is_over_the_classes_that_occur() -> None:
    targets = torch.tensor([0, 0, 0, 0, 2, 2])
    outputs = functional.one_hot(torch.tensor([0, 0, 0, 1, 2, 1]), 4).float()
    assert mean_recall(outputs, targets) == pytest.approx((3 / 4 + 1 / 2) / 2)
