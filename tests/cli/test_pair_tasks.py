"""Links, edges with classes and nodes with numbers by the commands: data, a search, a training, an export, answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import said_in

Say = Callable[..., tuple[int, str, str]]
SIZE = ("--size", "hidden=8,dropout=0", "--threads", "1")
KINDS = {
    "link-prediction": ("auc", "mrr", "hits_at_10"),
    "edge-classification": ("accuracy",),
    "node-regression": ("rmse", "mae", "r2"),
}
OWN = """
import torch
from torch import nn
from torch_geometric.nn import GCNConv


class Net(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.first, self.second = GCNConv(features, 128), GCNConv(128, 64)

    def forward(self, x, edge_index, pairs):
        z = self.second(self.first(x, edge_index).relu(), edge_index)
        return (z[pairs[0]] * z[pairs[1]]).sum(1, keepdim=True)


def net(task):
    return Net(task.graphs("pair").features)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of each kind, and a training of its best trial."""
    place = tmp_path_factory.mktemp("pairs")
    for kind in KINDS:
        search = ("--space", "nasbench_graph", "--data", f"karate?task={kind}", "--trials", "2", "--epochs", "2")
        said_in(place, "search", *search, "--study", kind, *SIZE)
        said_in(place, "train", kind, "--epochs", "2", "--recipe", "quick")
    return place


@pytest.fixture
def here(trained: Path, folder: Path) -> Path:
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_and_a_training_report_what_the_kind_says(say: Say, here: Path, kind: str) -> None:
    for trial in json.loads(say("trials", kind, "--json")[1]):
        assert {f"val_{name}" for name in KINDS[kind]} <= trial["metrics"].keys()
    found = json.loads(say("train", kind, "--epochs", "2", "--recipe", "quick", "--json")[1])
    assert {f"{part}_{name}" for name in KINDS[kind] for part in ("val", "test")} <= found["metrics"].keys()
    found = json.loads(say("data", "check", f"karate?task={kind}", "--json")[1])
    assert found["task"]["kind"] == kind
    assert found["split_hash"]


@pytest.mark.parametrize(("kind", "formats"), [("link-prediction", "onnx,pt2,python"), ("edge-classification", "onnx")])
@pytest.mark.usefixtures("forked_checks")
def test_an_exported_network_answers_for_pairs_of_a_file(say: Say, here: Path, kind: str, formats: str) -> None:
    code, _, err = say("export", kind, "--out", "out", "--format", formats)
    assert code == 0, err
    [onnx] = (here / "out").glob("*.onnx")
    x = np.eye(34)
    edges, pairs = np.array([[0, 1, 2], [1, 0, 3]]), np.array([[0, 5, 33], [1, 6, 0]])
    np.savez(here / "asked.npz", x=x, edge_index=edges, pairs=pairs)
    code, out, err = say("infer", str(onnx), "graph:asked.npz", "--json")
    assert code == 0, err
    answers = json.loads(out)
    assert len(answers) == 3
    text = json.dumps(answers)
    assert "asked.npz:0-1" in text
    assert "asked.npz:33-0" in text
    if kind == "link-prediction":
        assert all(0 <= answer["numbers"][0] <= 1 for answer in answers)
    for changes, said in (
        ({"pairs": np.array([[0], [34]])}, "pairs names node 34; the 34 nodes are numbered from 0"),
        ({"pairs": np.arange(3)}, "pairs have shape (3,); needed are nodes [2, pairs]"),
        ({"x": np.ones((34, 3))}, "features have shape (34, 3); the network takes [nodes, 34]"),
        ({"x": np.eye(34) * np.nan}, "features hold NaN or infinite values"),
        ({"edge_index": edges + 40}, "edge_index names node 43"),
    ):
        np.savez(here / "bad.npz", **{"x": x, "edge_index": edges, "pairs": pairs, **changes})
        code, _, err = say("infer", str(onnx), "graph:bad.npz")
        assert code != 0
        assert said in err
        assert "Traceback" not in err
    np.savez(here / "bad.npz", x=x, edge_index=edges)
    assert "has no 'pairs'" in say("infer", str(onnx), "graph:bad.npz")[2]
    assert "is no graph, but the network answers for pairs" in say("infer", str(onnx), "asked.npz")[2]


def test_a_space_is_told_what_it_is_not_for(say: Say, folder: Path) -> None:
    (folder / "net.py").write_text(OWN)
    code, _, err = say("train", "net.py:net", "--data", "karate", "--epochs", "1")
    assert code != 0
    assert "needed is a task on graphs with one answer per pair; 'node-classification' has one per node" in err
    code, _, err = say("search", "--space", "activation", "--data", "karate?task=link-prediction", "--trials", "1")
    assert code == 2
    assert "link-prediction" in err
    np.savez(
        folder / "g.npz",
        x=np.eye(12),
        edge_index=np.array([[a, (a + step) % 12] for a in range(12) for step in (1, 2)]).T,
        edge_attr=np.ones(24),
    )
    search = ("search", "--space", "nasbench_graph", "--trials", "1", "--epochs", "1", "--size", "hidden=8", "--study")
    code, _, err = say(*search, "a", "--data", "graph:g.npz?task=link-prediction")
    assert code != 0
    assert "edges have 1 features each" in err
    assert "Traceback" not in err
    code, _, err = say(*search, "b", "--data", "graph:g.npz?task=link-prediction&edge_attr=drop")
    assert code == 0, err


@pytest.mark.slow
def test_two_layers_find_links_of_cora(say: Say, folder: Path, shared_data: Path) -> None:
    """A GCN with a dot product, 100 epochs: 0.909 of the test part, measured; answering alike for all pairs is 0.5."""
    (folder / "net.py").write_text(OWN)
    data = f"graph:{shared_data / 'planetoid_cora.npz'}?task=link-prediction&normalise=rows"
    code, out, err = say("train", "net.py:net", "--data", data, "--epochs", "100", "--json")
    assert code == 0, err
    metrics = json.loads(out)["metrics"]
    assert metrics["test_auc"]["mean"] > 0.87
    assert metrics["test_mrr"]["mean"] > 0.1
