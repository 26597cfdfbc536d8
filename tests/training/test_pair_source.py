"""Links, edges with classes and nodes with numbers as data: what is held out, what is drawn, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.batch import HALVES, PARTS
from nas_core.errors import UsageError
from training.data import load
from training.data.pair_source import EdgeSource, LinkSource, edge_source, link_source
from training.data.split import Split

NODES = 30


def graph(seed: int, nodes: int = NODES, edges: int = 90, *, undirected: bool = True) -> np.ndarray[Any, Any]:
    """Random edges [2, e], with a self-loop and a repeated one."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, nodes, (2, edges))
    found[1] = (found[0] + rng.integers(1, nodes, edges)) % nodes
    found[:, 0] = 3
    found[:, 1:3] = [[1, 1], [2, 2]]
    return np.concatenate([found, found[::-1]], axis=1) if undirected else found


def features(nodes: int = NODES) -> np.ndarray[Any, Any]:
    return np.random.default_rng(7).random((nodes, 4)).astype(np.float32)


def pairs_of(edges: np.ndarray[Any, Any]) -> set[frozenset[int]]:
    return {frozenset(pair) for pair in edges.T.tolist() if pair[0] != pair[1]}


def links(seed: int = 0, *, undirected: bool = True, split: Split | None = None, **options: Any) -> LinkSource:
    edges = graph(seed, undirected=undirected)
    return link_source("made", features(), edges, split or Split(), **options)


@given(st.integers(0, 30), st.booleans(), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_held_out_edges_leave_the_graph_in_both_directions(seed: int, undirected: bool, number: int) -> None:
    edges, source = graph(seed, undirected=undirected), links(seed, undirected=undirected, split=Split(seed=number))
    every, parts = pairs_of(edges), {name: pairs_of(source.edges[name]) for name in PARTS}
    assert set.union(*parts.values()) == every
    assert sum(map(len, parts.values())) == len(every)
    assert pairs_of(source.edge_index) == parts["train"]
    assert (source.edge_index[:, source.edge_index[0] == source.edge_index[1]] == 3).all()
    assert (np.diff(source.edge_index[1]) >= 0).all()
    # An edge of the training part is there as often as it was given, and so are self-loops.
    given_edges = [tuple(edge) for edge in edges.T.tolist() if frozenset(edge) in parts["train"] or edge == [3, 3]]
    assert sorted(map(tuple, source.edge_index.T.tolist())) == sorted(given_edges)
    for name in PARTS:
        directed = {tuple(edge) for edge in edges.T.tolist()}
        assert {tuple(edge) for edge in source.edges[name].T.tolist()} <= directed
        assert undirected == (source.edges[name][0] < source.edges[name][1]).all() or not undirected


@given(st.integers(0, 30), st.booleans())
@settings(max_examples=30, deadline=None)
def test_pairs_without_an_edge_have_none(seed: int, undirected: bool) -> None:
    source, edges = links(seed, undirected=undirected), graph(seed, undirected=undirected)
    directed = {tuple(edge) for edge in edges.T.tolist()}
    seen: list[tuple[int, int]] = []
    for name in ("valid", "test"):
        assert source.others[name].shape == source.edges[name].shape
        seen += map(tuple, source.others[name].T.tolist())
    assert len(set(seen)) == len(seen)
    assert not set(seen) & directed
    assert all(one != other for one, other in seen)
    assert undirected is False or all(one < other for one, other in seen)


def test_while_training_they_are_drawn_anew_in_every_epoch() -> None:
    data = links().bind("cpu")
    train = pairs_of(links().edges["train"])

    def others(part: str, epoch: int, seed: int) -> torch.Tensor:
        (batch,) = data.batches(part, epoch, seed)
        assert batch.target.shape == (batch.inputs[-1].shape[1], 1)
        assert batch.target.mean() == 0.5
        return batch.inputs[-1][:, batch.target[:, 0] == 0]

    for part in ("train", HALVES[0]):
        first = others(part, 0, 0)
        assert torch.equal(first, others(part, 0, 0))
        assert not torch.equal(first, others(part, 1, 0))
        assert not torch.equal(first, others(part, 0, 1))
        assert not pairs_of(first.numpy()) & train
    for part in ("valid", "test", HALVES[1]):
        assert torch.equal(others(part, 0, 0), others(part, 1, 5))
    assert torch.equal(others("valid", 0, 0), others(HALVES[1], 0, 0))


def test_the_same_split_is_the_same_for_all_and_is_named_by_the_hash() -> None:
    assert links().split_hash == links().split_hash
    assert links().split_hash != links(split=Split(seed=1)).split_hash
    assert links().split_hash != links(1).split_hash
    assert links().split_hash != links(edge_attr=np.ones(180)).split_hash
    assert links().sizes["train"] == 2 * links().edges["train"].shape[1]


def test_edges_are_dealt_into_folds() -> None:
    sources = [links(split=Split(folds=4, fold=fold)) for fold in range(4)]
    tested = [pair for source in sources for pair in pairs_of(source.edges["test"])]
    assert len(tested) == len(set(tested)) == len(pairs_of(graph(0)))
    assert pairs_of(sources[1].edges["valid"]) == pairs_of(sources[2].edges["test"])


def test_features_of_edges_go_with_them() -> None:
    edges = graph(0)
    values = edges[0] * 100.0 + edges[1]
    source = links(edge_attr=values)
    assert source.edge_attr is not None
    assert (source.edge_attr[:, 0] == source.edge_index[0] * 100 + source.edge_index[1]).all()
    assert [spec.name for spec in source.task.inputs] == ["x", "edge_index", "edge_attr", "pairs"]
    (batch,) = source.bind("cpu").batches("valid", 0, 0)
    assert [tensor.shape[0] for tensor in batch.inputs] == [NODES, 2, len(source.edge_attr), 2]


def test_parts_that_the_data_bring_are_kept() -> None:
    edges, new = graph(0), np.array([[0, 5], [29, 28]])
    source = link_source("made", features(), edges, Split(), valid=edges[:, 10:13], test=new)
    assert pairs_of(source.edges["test"]) == pairs_of(new)
    assert pairs_of(source.edges["valid"]) == pairs_of(edges[:, 10:13])
    assert not pairs_of(source.edge_index) & pairs_of(edges[:, 10:13])
    assert pairs_of(source.edges["train"]) == pairs_of(edges) - pairs_of(edges[:, 10:13]) - pairs_of(new)
    fewer = link_source("made", features(), edges, Split(), train=edges[:, 20:40], valid=edges[:, 10:13], test=new)
    assert pairs_of(fewer.edges["train"]) == pairs_of(edges[:, 20:40])
    assert pairs_of(fewer.edge_index) == pairs_of(source.edge_index)


def test_where_few_pairs_have_no_edge_there_are_fewer_of_them() -> None:
    every = np.array([(a, b) for a in range(8) for b in range(8) if a != b and {a, b} not in ({0, 1}, {2, 3}, {4, 5})])
    source = link_source("made", features(8), every.T, Split())
    assert sum(others.shape[1] for others in source.others.values()) == 3
    assert "only 3 pairs have no edge, fewer than edges are held out" in source.warnings
    with pytest.raises(UsageError, match="nearly every pair of its 4 nodes has an edge"):
        link_source("made", features(4), np.array([(a, b) for a in range(4) for b in range(4) if a != b]).T, Split())


def edges_with(labels: np.ndarray[Any, Any], edges: np.ndarray[Any, Any], **options: Any) -> EdgeSource:
    return edge_source("made", features(), labels, edges, options.pop("split", Split()), **options)


def test_an_edge_and_its_way_back_are_one_sample_where_they_have_one_label() -> None:
    edges = graph(2)
    source = edges_with((edges.sum(0) % 3).astype(np.int64), edges)
    found = {tuple(pair) for pair in source.pairs.T.tolist()}
    assert {frozenset(pair) for pair in found} == {*pairs_of(edges), frozenset([3])}
    assert len(found) == source.pairs.shape[1]
    assert (source.labels == source.pairs.sum(0) % 3).all()
    assert source.edge_index.shape == edges.shape
    data = source.bind("cpu")
    for part in PARTS:
        (batch,) = data.batches(part, 0, 0)
        assert torch.equal(batch.target, batch.inputs[-1].sum(0) % 3)
        assert torch.equal(data.targets(part), batch.target)


def test_edges_of_other_labels_than_their_ways_back_are_samples_of_one_part() -> None:
    edges = graph(4)
    source = edges_with((edges[0] < edges[1]).astype(np.int64), edges)
    assert source.pairs.shape == edges.shape
    part_of: dict[frozenset[int], str] = {}
    for name, part in source.parts.items():
        for pair in source.pairs[:, part].T.tolist():
            assert part_of.setdefault(frozenset(pair), name) == name
    assert sum(source.sizes.values()) == edges.shape[1]


def test_edges_without_a_label_are_in_no_part() -> None:
    edges = graph(1, undirected=False)
    labels = np.where(np.arange(90) % 3 == 0, -1, np.arange(90) % 2)
    labels[2] = labels[1]
    source = edges_with(labels, edges)
    assert sum(source.sizes.values()) == int((source.labels >= 0).sum())
    assert all((source.labels[part] >= 0).all() for _, part in source.parts.items())


def test_public_lists_of_edges_are_kept() -> None:
    edges = graph(1, undirected=False)[:, 3:]
    edges = edges[:, np.unique(np.sort(edges, axis=0), axis=1, return_index=True)[1]]
    labels, number = np.arange(edges.shape[1]) % 2, np.arange(edges.shape[1])
    source = edges_with(labels, edges, train=number[:10], valid=number[10:14], test=number[14:20])
    assert source.sizes == {"train": 10, "valid": 4, "test": 6}
    wanted = {frozenset(pair) for pair in edges[:, 10:14].T.tolist()}
    assert {frozenset(pair) for pair in source.pairs[:, source.parts.valid].T.tolist()} == wanted


def saved(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "g.npz", **arrays)
    return f"graph:{folder / 'g.npz'}"


def test_what_is_learned_of_a_file_follows_from_its_arrays(tmp_path: Path) -> None:
    edges, x = graph(0), features()
    both = {"x": x, "edge_index": edges}
    kinds = {
        "node-classification": {"y": np.arange(NODES) % 3},
        "node-regression": {"y": np.arange(NODES) / 3},
        "edge-classification": {"edge_y": edges.sum(0) % 3},
    }
    for kind, labels in kinds.items():
        assert load(saved(tmp_path, **both, **labels)).task.kind == kind
    one_hot = np.eye(3)[np.arange(NODES) % 3]
    assert load(saved(tmp_path, **both, y=one_hot)).task.kind == "node-classification"
    source = load(saved(tmp_path, **both, y=np.arange(NODES) % 3) + "?task=link-prediction")
    assert source.task.kind == "link-prediction"
    assert any("y" in text for text in source.warnings)  # type: ignore[attr-defined]
    source = load(saved(tmp_path, **both, y=np.arange(NODES)) + "?task=node-regression")
    assert (source.task.kind, source.task.outputs) == ("node-regression", 1)


def test_numbers_of_nodes_are_standardised_by_the_training_part(tmp_path: Path) -> None:
    y = np.stack([np.arange(NODES) * 2.0, np.arange(NODES) + 100.0], axis=1)
    y[4] = np.nan
    source: Any = load(saved(tmp_path, x=features(), edge_index=graph(0), y=y))
    assert 4 not in np.concatenate([part for _, part in source.parts.items()])
    data = source.bind("cpu")
    (batch,) = data.batches("train", 0, 0)
    learned = batch.scored(batch.target)[1]
    assert float(learned.mean()) == pytest.approx(0, abs=1e-5)
    assert float(learned.std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert batch.answered(batch.target)[1].numpy() == pytest.approx(y[source.parts.train], rel=1e-5)
    assert source.inputs.in_own_unit(learned.numpy()) == pytest.approx(y[source.parts.train], rel=1e-5)


EDGES = graph(0, undirected=False)
GOOD: dict[str, Any] = {"x": features(), "edge_index": EDGES}
WRONG = {
    "no-features": ({"x": None}, "link-prediction", "its nodes have no features; save some as x"),
    "nan-features": ({"x": features() * np.nan}, "link-prediction", "features hold NaN or infinite values"),
    "index": (
        {"edge_index": EDGES + 5},
        "link-prediction",
        "edge_index names node 34; the 30 nodes are numbered from 0",
    ),
    "two-edges": (
        {"edge_index": EDGES[:, :3]},
        "link-prediction",
        "1 edges between two nodes; each of three parts needs",
    ),
    "pairs-index": ({"test_pairs": np.array([[0], [30]])}, "link-prediction", "test_pairs names node 30"),
    "pairs-shape": ({"test_pairs": np.arange(4)}, "link-prediction", "test_pairs have shape (4,); needed are nodes"),
    "pairs-self": ({"test_pairs": np.array([[4], [4]])}, "link-prediction", "test_pairs name node 4 with itself"),
    "pairs-valid": ({"valid_pairs": EDGES[:, 5:8]}, "link-prediction", "has valid_pairs and no test_pairs; give both"),
    "pairs-train": ({"train_pairs": EDGES[:, 5:8]}, "link-prediction", "has train_pairs and no test_pairs"),
    "held-out": (
        {"train_pairs": EDGES[::-1, 5:8], "test_pairs": EDGES[:, 5:6]},
        "link-prediction",
        "train_pairs name the pair",
    ),
    "held-out-valid": (
        {"valid_pairs": EDGES[:, 5:8], "test_pairs": EDGES[:, 5:6]},
        "link-prediction",
        "an edge that is held out for the test part",
    ),
    "attr": (
        {"edge_attr": np.ones(7)},
        "link-prediction",
        "edge_attr has shape (7,); needed are values of the 90 edges",
    ),
    "no-labels": ({}, "edge-classification", "has no 'edge_y'"),
    "no-labels-of-nodes": ({}, None, "has no 'y' (needed: y of nodes, or edge_y of edges"),
    "labels": ({"edge_y": np.arange(7) % 2}, "edge-classification", "7 labels for 90 edges"),
    "real-labels": ({"edge_y": np.arange(90) / 7}, "edge-classification", "labels are float64 (90,); needed are whole"),
    "real-y": ({"y": np.arange(30) / 7}, "node-classification", "labels are float64 (30,); needed are whole numbers"),
    "one-class": ({"edge_y": np.zeros(90, int)}, "edge-classification", "there is only one class"),
    "no-label-in-part": (
        {
            "edge_y": np.where(np.arange(90) == 9, -1, np.arange(90) % 2) * (np.arange(90) > 2),
            **{f"{name}_idx": np.arange(at, at + 4) for name, at in (("train", 4), ("valid", 8), ("test", 12))},
        },
        "edge-classification",
        "the valid edges include one without a label",
    ),
    "both-parts": (
        {
            "edge_y": np.arange(90) % 2,
            "train_idx": np.array([1, 7]),
            "valid_idx": np.array([2]),
            "test_idx": np.array([9]),
        },
        "edge-classification",
        "edge 1, or its way back, is in the train and in the valid part",
    ),
    "two-lists": (
        {"edge_y": np.arange(90) % 2, "train_idx": np.array([1, 7]), "test_idx": np.array([9])},
        "edge-classification",
        "has train and test edges; give all three parts, or none",
    ),
    "same-numbers": ({"y": np.ones(30)}, "node-regression", "y is 1 for all nodes of the training part"),
    "infinite": ({"y": np.full(30, np.inf)}, "node-regression", "y holds infinite values"),
    "some": ({"y": np.array([[1.0, np.nan]] * 30)}, "node-regression", "some nodes have some of their 2 numbers"),
    "text-numbers": ({"y": np.array(["a"] * 30)}, "node-regression", "needed are numbers of the 30 nodes"),
    "no-numbers": ({"y": np.full(30, np.nan)}, "node-regression", "too few to work with"),
    "split": ({}, "link-prediction&split=1", "split=1 is for graphs with labels, not for links"),
    "renumber": ({"y": np.arange(30) / 7}, "node-regression&labels=renumber", "labels=renumber is for classes"),
    "unknown": ({}, "links", "Input should be 'node-classification'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_a_line(name: str, tmp_path: Path) -> None:
    changes, task, said = WRONG[name]
    arrays = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    reference = saved(tmp_path, **arrays) + (f"?task={task}" if task else "")
    with pytest.raises(UsageError) as caught:
        load(reference)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_more_folds_than_edges_of_a_class_are_refused() -> None:
    labels = np.zeros(90, int)
    labels[30:34] = 1
    with pytest.raises(UsageError, match="6 folds: class 1 has 3 samples, and every fold needs one"):
        edges_with(labels, EDGES, split=Split(folds=6))


def test_a_part_without_one_of_the_classes_is_told() -> None:
    edges = EDGES[:, 3:]
    edges = edges[:, np.unique(np.sort(edges, axis=0), axis=1, return_index=True)[1]]
    labels = (np.arange(edges.shape[1]) >= 4).astype(np.int64)
    number = np.arange(edges.shape[1])
    source = edges_with(labels, edges, train=number[2:30], valid=number[[0, 1]], test=number[40:])
    assert [text for text in source.warnings if "no validation sample" in text]
    assert [text for text in source.warnings if "no test sample" in text]


def many(path: Path, **changes: Any) -> str:
    """Ten rings of 5 to 14 nodes, whose edges, both ways, have a class by the lower of their ends."""
    counts = np.arange(5, 15)
    starts = np.cumsum(counts) - counts
    rings = [start + np.stack([np.arange(n), (np.arange(n) + 1) % n]) for start, n in zip(starts, counts, strict=True)]
    edges = np.concatenate([np.concatenate([ring, ring[::-1]], axis=1) for ring in rings], axis=1)
    held = {
        "x": np.ones((counts.sum(), 2)),
        "edge_index": edges,
        "graph_id": np.repeat(np.arange(10), counts),
        "edge_y": edges.min(axis=0) % 2,
        **changes,
    }
    np.savez(path, **{key: value for key, value in held.items() if value is not None})
    return f"graph:{path}"


def test_edges_of_many_graphs_are_divided_by_graphs(tmp_path: Path) -> None:
    source: Any = load(many(tmp_path / "g.npz"), Split(seed=3))
    assert isinstance(source, EdgeSource)
    graph_of = np.repeat(np.arange(10), np.arange(5, 15))
    of_pair = graph_of[source.pairs[0]]
    assert (of_pair == graph_of[source.pairs[1]]).all()
    held = {name: set(of_pair[part].tolist()) for name, part in source.parts.items()}
    assert sum(map(len, held.values())) == len(set.union(*held.values())) == 10
    assert all(held.values())
    # An edge and its way back are one sample; every ring has as many edges as nodes.
    assert {name: len(part) for name, part in source.parts.items()} == {
        name: sum(5 + graph for graph in graphs) for name, graphs in held.items()
    }
    assert (source.labels == source.pairs.min(axis=0) % 2).all()
    assert source.edge_index.shape == (2, 2 * 95)
    public = many(tmp_path / "p.npz", train_idx=np.arange(6), valid_idx=np.arange(6, 8), test_idx=np.arange(8, 10))
    parts = load(public).parts
    assert set(of_pair[parts.test].tolist()) == {8, 9}
    assert load(many(tmp_path / "f.npz"), Split(folds=5, fold=1)).split_hash != source.split_hash


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"x": None}, "", "its nodes have no features"),
        ({}, "?features=degree", r"\?features= is for graphs and their nodes"),
        ({"edge_y": np.zeros(3, int)}, "", "3"),
        ({"edge_y": np.full(190, -1)}, "", "only one class"),
        (
            {
                "edge_y": np.where(np.arange(190) < 162, np.arange(190) % 2, -1),  # the last ring has none
                **{f"{part}_idx": at for part, at in (("train", np.arange(8)), ("valid", [8]), ("test", [9]))},
            },
            "",
            "no edge of the test graphs has a label",
        ),
        ({"graph_id": np.arange(95) % 10}, "", "graph_id is not sorted"),
        ({"edge_y": None, "y": np.arange(95) % 2}, "?task=edge-classification", "has no 'edge_y'"),
        ({}, "?task=link-prediction", "task=link-prediction is for files of one graph"),
    ],
)
def test_edges_of_many_graphs_that_cannot_be_learned_from(
    tmp_path: Path, changes: dict[str, Any], options: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        load(many(tmp_path / "g.npz", **changes) + options)


def test_classes_of_nodes_come_before_those_of_edges_of_many_graphs(tmp_path: Path) -> None:
    reference = many(tmp_path / "g.npz", y=np.arange(95) % 2)
    assert load(reference).task.level == "node"
    assert load(f"{reference}?task=edge-classification").task.level == "pair"
