"""Links: numbers of pairs, pairs without an edge, which edges are held out; and metrics of links."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.errors import UsageError
from nas_core.seeds import generator
from training.data.links import NonEdges, PairNumbers, is_directed, kept
from training.link_metrics import Hits, auc, average_precision, mrr, ranks


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("nodes", range(2, 9))
def test_every_pair_has_a_number_of_its_own(nodes: int, directed: bool) -> None:
    numbers = PairNumbers(nodes, directed)
    grid = np.array([(a, b) for a in range(nodes) for b in range(nodes) if (a != b if directed else a < b)]).T
    found = numbers.of(grid)
    assert sorted(found) == list(range(numbers.count))
    assert np.array_equal(numbers.pairs(found), grid)
    assert np.array_equal(numbers.of(grid[::-1]), found) != directed or nodes < 2


@given(st.integers(1, 60), st.data())
@settings(max_examples=80, deadline=None)
def test_what_is_drawn_is_free_and_every_free_number_can_be(count: int, data: st.DataObject) -> None:
    edges = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1))), dtype=np.int64)
    others, rng = NonEdges(edges, count), generator(data.draw(st.integers(0, 9)))
    free = sorted(set(range(count)) - set(edges.tolist()))
    assert set(others.draw(200, rng)) <= set(free)
    assert sorted(others.choose(count, rng)) == free
    for many in {1, len(free) // 3, len(free)}:
        chosen = others.choose(many, rng)
        assert len(set(chosen)) == many
        assert set(chosen) <= set(free)


def test_all_free_numbers_are_drawn_alike() -> None:
    drawn = NonEdges(np.array([0, 3, 4]), 8).draw(50_000, generator(0))
    counts = np.bincount(drawn, minlength=8)
    assert counts[[0, 3, 4]].tolist() == [0, 0, 0]
    assert counts[[1, 2, 5, 6, 7]] == pytest.approx(10_000, abs=4 * math.sqrt(8_000))


def test_a_held_out_edge_goes_in_both_directions_and_loops_stay() -> None:
    edges = np.array([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 2, 2]])
    held = PairNumbers(3).of(np.array([[1], [0]]))
    assert kept(edges, 3, held).tolist() == [False, False, True, True, True, True]
    assert is_directed(edges, 3)
    assert not is_directed(edges[:, :5], 3)


def scored(seed: int, edges: int, others: int, ties: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    scores = torch.randn(edges + others, 1, generator=draws)
    order = torch.randperm(edges + others, generator=draws)
    targets = torch.cat([torch.ones(edges, 1), torch.zeros(others, 1)])[order]
    return (scores.round() if ties else scores) + targets, targets


@pytest.mark.parametrize("seed", range(4))
def test_metrics_of_links_are_those_of_torch_geometric(seed: int) -> None:
    from torch_geometric.metrics import LinkPredHitRatio, LinkPredMRR

    outputs, targets = scored(seed, 17, 40)
    edge = targets[:, 0] > 0
    others = outputs[~edge, 0]
    # Every edge is a query, its candidates are itself, number 0, and all pairs without an edge.
    candidates = torch.cat([outputs[edge], others.expand(17, -1)], 1).argsort(1, descending=True)
    wanted = torch.stack([torch.arange(17), torch.zeros(17, dtype=torch.int64)])
    for k in (1, 5, 10, 41):
        of_k = LinkPredHitRatio(k)
        of_k.update(candidates[:, :k], wanted)
        assert Hits(k)(outputs, targets) == pytest.approx(float(of_k.compute()))
    whole = LinkPredMRR(41)
    whole.update(candidates, wanted)
    assert mrr(outputs, targets) == pytest.approx(float(whole.compute()))


def test_of_equal_scores_the_worst_rank_counts() -> None:
    outputs, targets = scored(0, 9, 30, ties=True)
    found = ranks(outputs, targets)
    scores, others = outputs[targets > 0], outputs[targets == 0]
    assert found.tolist() == [1 + int((others >= score).sum()) for score in scores]
    flat = torch.zeros(20, 1)
    labels = torch.arange(20)[:, None].fmod(2)
    assert mrr(flat, labels) == pytest.approx(1 / 11)
    assert Hits(10)(flat, labels) == 0
    assert auc(flat, labels) == 0.5


def test_a_part_without_edges_or_without_others_has_no_figure() -> None:
    outputs = torch.randn(4, 1)
    assert all(math.isnan(metric(outputs, torch.zeros(4, 1))) for metric in (auc, average_precision, mrr, Hits(2)))
    assert all(math.isnan(metric(outputs, torch.ones(4, 1))) for metric in (auc, average_precision))
    assert mrr(outputs, torch.ones(4, 1)) == 1
    with pytest.raises(UsageError, match="hits: k=0; at least 1 is needed"):
        Hits(0)


def test_areas_are_those_of_pairs_that_are_in_order() -> None:
    outputs, targets = scored(3, 13, 29)
    edge, others = outputs[targets > 0], outputs[targets == 0]
    assert auc(outputs, targets) == pytest.approx(float((edge[:, None] > others).double().mean()))
    assert average_precision(*scored(3, 13, 29)) > 0.3
