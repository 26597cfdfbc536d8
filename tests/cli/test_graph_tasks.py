"""Tasks on many graphs by the commands: data, a search, a training, an export, and answers for files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import said_in

Say = Callable[..., tuple[int, str, str]]
SPACE = f"{Path(__file__).resolve().parents[2] / 'examples' / 'my_graph_space.py'}:space"


@pytest.fixture
def mutag(shared_data: Path) -> str:
    return f"graph:{shared_data / 'tu_mutag.npz'}?labels=renumber"


def test_data_check_says_what_many_graphs_are(say: Say, mutag: str) -> None:
    found = json.loads(say("data", "check", mutag, "--json")[1])
    assert found["task"]["kind"] == "graph-classification"
    assert found["task"]["level"] == "graph"
    assert [each["name"] for each in found["task"]["inputs"]] == ["x", "edge_index", "counts"]
    assert found["classes"] == ["0", "2"]
    assert found["parts"] == {"train": 135, "valid": 15, "test": 38}
    code, out, err = say("data", "check", mutag.partition("?")[0])
    assert code == 0
    assert "graph-classification" in out
    assert "add ?labels=renumber" in err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """A folder with a study on MUTAG and a training of its best trial."""
    place, data = tmp_path_factory.mktemp("mutag"), f"graph:{shared_data / 'tu_mutag.npz'}?labels=renumber"
    search = ("--space", SPACE, "--data", data, "--trials", "2", "--epochs", "2", "--study", "m", "--threads", "1")
    said_in(place, "search", *search)
    said_in(place, "train", "m", "--epochs", "2")
    return place


def test_a_search_on_graphs_reports_what_the_kind_says(say: Say, trained: Path, folder: Path) -> None:
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    trials = json.loads(say("trials", "m", "--json")[1])
    assert len(trials) == 2
    assert all(trial["metrics"]["val_accuracy"] >= 0 for trial in trials)


@pytest.mark.usefixtures("forked_checks")
def test_a_network_of_graphs_is_exported_and_answers_for_a_file(
    say: Say, trained: Path, folder: Path, mutag: str
) -> None:
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    code, _, err = say("export", "m", "--out", "out")
    assert code == 0, err
    [onnx] = (folder / "out").glob("*.onnx")
    assert list((folder / "out").glob("*.pt2"))
    code, out, err = say("infer", str(onnx), mutag.partition("?")[0], "--json")
    assert code == 0, err
    assert len(json.loads(out)) == 188
    path = folder / "bad.npz"
    np.savez(path, edge_index=np.zeros((2, 0), int), graph_id=np.zeros(3, int))
    code, _, err = say("infer", str(onnx), f"graph:{path}")
    assert code != 0
    assert "node_tag is missing" in err


def test_features_of_edges_are_refused_where_they_are_of_no_use(say: Say, folder: Path) -> None:
    edges = np.array([[0, 1, 2, 3], [1, 0, 3, 2]])
    counts = np.full(12, 2)
    np.savez(
        folder / "g.npz",
        x=np.ones((24, 1)),
        edge_index=np.concatenate([edges[:, :2] + 2 * graph for graph in range(12)], axis=1),
        edge_attr=np.ones(24),
        graph_id=np.repeat(np.arange(12), counts),
        graph_label=np.arange(12) % 2,
    )
    search = ("search", "--space", SPACE, "--trials", "1", "--epochs", "1", "--threads", "1", "--study")
    code, _, err = say(*search, "e", "--data", "graph:g.npz")
    assert code != 0
    assert "edges have 1 features each" in err
    assert "Traceback" not in err
    code, _, err = say(*search, "d", "--data", "graph:g.npz?edge_attr=drop")
    assert code == 0, err


def test_a_space_of_ones_own_for_many_graphs_is_checked(say: Say) -> None:
    code, out, err = say("spaces", "check", SPACE)
    assert (code, out.strip()) == (0, "ok"), err


@pytest.mark.parametrize(
    ("data", "metric"),
    [
        ("random-graphs?graphs=60", "mae"),
        ("random-graphs?target=roles&graphs=40", "micro_f1"),
        ("sbm-cluster?graphs=30", "mean_recall"),
    ],
)
@pytest.mark.usefixtures("forked_checks")
def test_every_kind_on_many_graphs_goes_from_a_search_to_an_export(
    say: Say, folder: Path, data: str, metric: str
) -> None:
    code, _, err = say(
        *("search", "--space", SPACE, "--data", data, "--trials", "1", "--epochs", "2", "--study", "k"),
        *("--threads", "1"),
    )
    assert code == 0, err
    [trial] = json.loads(say("trials", "k", "--json")[1])
    assert f"val_{metric}" in trial["metrics"]
    code, _, err = say("train", "k", "--epochs", "1")
    assert code == 0, err
    if "sbm" not in data:  # tests/contracts/test_tasks.py exports a network of every kind
        return
    code, _, err = say("export", "k", "--out", "out", "--format", "onnx")
    assert code == 0, err
    assert list((folder / "out").glob("*.onnx"))
