"""Graphs that cannot be learned from, and what is not for them, end a search in a line or two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Say = Callable[..., tuple[int, str, str]]
Arrays = Mapping[str, NDArray[Any]]

NODES, GRAPHS = 30, 24
RING = np.array([[node, (node + step) % NODES] for node in range(NODES) for step in (1, 2)]).T
RINGS = np.concatenate([np.array([[0, 1, 2, 3], [1, 2, 3, 0]]) + 4 * graph for graph in range(GRAPHS)], 1)
CLASSES = np.arange(NODES) % 3
PARTS = {
    name: (start <= np.arange(NODES)) & (np.arange(NODES) < end)
    for name, start, end in (("train_mask", 0, 18), ("val_mask", 18, 24), ("test_mask", 24, NODES))
}
ONE: Arrays = {
    "x": np.eye(NODES, 4),
    "edge_index": np.concatenate([RING, RING[::-1]], 1),
    "y": CLASSES,
}
"""One graph whose nodes have classes."""
MANY: Arrays = {
    "x": np.eye(4 * GRAPHS, 3),
    "edge_index": np.concatenate([RINGS, RINGS[::-1]], 1),
    "graph_id": np.repeat(np.arange(GRAPHS), 4),
    "graph_label": np.arange(GRAPHS) % 2,
}
"""Graphs of four nodes each, which have classes."""
LINKS: Arrays = {"x": ONE["x"], "edge_index": ONE["edge_index"], "test_pairs": RING[:, :5]}


def changed(array: NDArray[Any], place: Any, value: Any) -> NDArray[Any]:
    """A copy with another value there."""
    found = array.copy()
    found[place] = value
    return found


def without(given: Arrays, name: str) -> Arrays:
    return {key: value for key, value in given.items() if key != name}


def searched(say: Say, data: str, *more: str, space: str = "gnas(layers=1)") -> tuple[int, str]:
    short = () if "--strategy" in more else ("--trials", "1", "--epochs", "1")
    code, _, err = say("search", "--space", space, "--data", data, *short, *more)
    return code, err


@pytest.mark.parametrize(
    ("given", "more", "said"),
    [
        (without(ONE, "x"), (), "no features; save some as x [nodes, features], such as their degrees, np.bincount("),
        (without(MANY, "x"), (), "no features (x, or node_tag); ?features=degree adds"),
        ({**ONE, "x": changed(ONE["x"], (3, 1), np.nan)}, (), "features hold NaN"),
        ({**MANY, "x": changed(MANY["x"], (3, 1), np.inf)}, (), "hold NaN or infinite"),
        ({**ONE, "edge_index": ONE["edge_index"] + 1}, (), "edge_index names node 30; the 30 nodes are numbered from"),
        ({**MANY, "edge_index": MANY["edge_index"] - 1}, (), "edge_index names node -1"),
        ({**ONE, **PARTS, "y": changed(CLASSES, 20, -1)}, (), "the valid nodes include one without a label"),
        (
            {**MANY, "graph_label": MANY["graph_label"] / 3},
            (),
            "graph_label is float64; numbers that are",
        ),
        ({**ONE, "y": CLASSES / 7}, ("--objective", "val_accuracy"), "val_accuracy"),
        ({**MANY, "graph_label": 0 * MANY["graph_label"]}, (), "there is only one class"),
        (
            {**MANY, "graph_label": np.arange(GRAPHS) // (GRAPHS - 1)},
            ("-s", "split.folds=3"),
            "3 folds: class 1 has 1 sample, and every fold needs one",
        ),
        (MANY, ("-s", "split.folds=13"), "13 folds: class 0 has 12 samples, and every fold needs one"),
        ({**MANY, "graph_id": MANY["graph_id"][::-1]}, (), "graph_id is not sorted: node 4 is of graph 22"),
        (
            {**MANY, "graph_id": MANY["graph_id"] + (MANY["graph_id"] > 4), "graph_label": np.arange(GRAPHS + 1) % 2},
            (),
            "graph 5 has no node",
        ),
        ({**MANY, "edge_attr": np.ones((5, 2))}, (), "edge_attr has shape (5, 2); needed are values of the 192 edges"),
        ({**LINKS, "edge_attr": np.ones((5, 2))}, (), "edge_attr has shape (5, 2); needed are values of the 120 edges"),
        ({**LINKS, "train_pairs": RING[::-1, 3:9]}, (), "an edge that is held out for the test part"),
    ],
)
def test_graphs_that_cannot_be_learned_from(
    given: Arrays, more: tuple[str, ...], said: str, folder: Path, say: Say
) -> None:
    np.savez(folder / "g.npz", **given)  # type: ignore[arg-type]
    task = "?task=link-prediction" if "test_pairs" in given else ""
    code, err = searched(say, f"graph:g.npz{task}", *more)
    assert code == 2, err
    assert said in err
    assert len(err.splitlines()) <= 2, err
    assert not (folder / "nas.db").exists()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (18, "class '2' has no validation sample (6 in train, 2 in test)"),
        (0, "class '2' has no training sample (2 in valid, 2 in test), so no network can learn it"),
    ],
)
def test_a_part_without_a_class_is_warned_of(place: int, said: str, folder: Path, say: Say) -> None:
    part = slice(place, 18 if place == 0 else 24)
    np.savez(folder / "g.npz", **{**ONE, **PARTS, "y": changed(CLASSES, part, CLASSES[part] % 2)})  # type: ignore[arg-type]
    assert f"nas: warning: graph:g.npz: {said}" in say("data", "check", "graph:g.npz")[2]


def test_nodes_without_edges_and_edges_of_a_node_to_itself_are_taken(folder: Path, say: Say) -> None:
    edges = np.concatenate([RING, [[0, 0, 3], [0, 0, 3]]], 1)
    np.savez(folder / "g.npz", x=np.eye(NODES + 3, 4), edge_index=edges, y=np.arange(NODES + 3) % 3)
    code, err = searched(say, "graph:g.npz", "--size", "hidden=4")
    assert code == 0, err


@pytest.mark.parametrize(
    ("space", "data", "more", "said"),
    [
        ("evonorm", "karate?task=edge-classification", (), "'karate?task=edge-classification' is edge-classification;"),
        ("nasbench_graph", "random-graphs", (), "is graph-regression; take another space (argnp, "),
        ("gnas(readouts=('mean',))", "karate", (), "is node-classification; readouts make one answer of a whole graph"),
        ("graphgym", "karate", ("--size", "target_params=2"), "target_params 2 is below"),
        ("graphgym(pre=(0, 0))", "karate", (), "graphgym: pre is (0, 0); give different numbers of layers, pre=(0, 1"),
        ("gnas(operators=('gatt',))", "karate", (), "unknown graph operator 'gatt'; did you mean 'gat'"),
        (
            "argnp(vertices=3)",
            "karate",
            ("--strategy", "argnp", "-s", "strategy.rounds=2"),
            "2 rounds are too many for space 'argnp-3', which has room for 1",
        ),
    ],
)
def test_what_does_not_go_together(space: str, data: str, more: tuple[str, ...], said: str, say: Say) -> None:
    code, err = searched(say, data, *more, space=space)
    assert code == 2, err
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("space", "more", "said"),
    [
        (
            "graphgym",
            ("--size", "hidden=8,target_params=2000"),
            "size hidden=8 says nothing: target_params finds the w",
        ),
        (
            "auto-gnn",
            ("--size", "embedding=8"),
            "size embedding=8 says nothing: it is of pairs of nodes, which the tas",
        ),
        (
            "argnp(vertices=3)",
            ("--final-size", "relation_output=9"),
            "size relation_output=9 says nothing: it is of gra",
        ),
    ],
)
def test_sizes_that_say_nothing_are_warned_of(space: str, more: tuple[str, ...], said: str, say: Say) -> None:
    code, err = searched(say, "karate", *more, space=space)
    assert code == 0, err
    assert err.count(f"nas: {said}") == err.count("says nothing") == 1
    # What pairs are asked for, and what a preset says, is not.
    code, err = searched(say, "karate?task=link-prediction", "--size", "embedding=8", space="auto-gnn")
    assert (code, "says nothing" in err) == (0, False), err
