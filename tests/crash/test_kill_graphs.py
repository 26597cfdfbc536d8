"""Every kind of task on graphs by the commands, in every space of graphs: a search that is killed and goes on to the
bit, a training of its best, and an export that is held against it.

Faster: `test_killed_searches_of_graphs` and `_of_links` (tests/crash/test_kill.py), tests/cli/test_graph_tasks.py and
test_pair_tasks.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from nas_cli.app import run as nas
from tests.crash.running import Fork, finish
from tests.crash.test_kill import check_kills
from tests.zygote import Zygote

CORA, MUTAG, PROTEINS = "planetoid_cora.npz", "tu_mutag.npz", "tu_proteins.npz"


class Kind(NamedTuple):
    """What is searched: a reference of data (`{shared}` their folder), the first metric, a space, and its size."""

    data: str
    metric: str
    space: str
    size: str = ""


KINDS = {
    "nodes": Kind(f"graph:{{shared}}/{CORA}?normalise=rows", "accuracy", "auto-gnn"),
    "links": Kind(f"graph:{{shared}}/{CORA}?task=link-prediction", "auc", "graphnas-micro(training=False)", "hidden=8"),
    "nodes-of-many": Kind("sbm-cluster?graphs=24", "mean_recall", "gnas(layers=2)", "hidden=8"),
    "mutag": Kind(
        f"graph:{{shared}}/{MUTAG}?labels=renumber", "accuracy", "graphgym(training=False)", "target_params=2000"
    ),
    "proteins": Kind(f"graph:{{shared}}/{PROTEINS}?labels=renumber", "accuracy", "graphnas"),
    "numbers": Kind(
        "random-graphs?target=triangles&graphs=40",
        "mae",
        "argnp(vertices=4)",
        "node=8,relation=4,node_output=8,relation_output=4",
    ),
    "edges": Kind(
        "graph:{here}/edges.npz", "accuracy", "argnp(vertices=4)", "node=8,relation=4,node_output=8,relation_output=4"
    ),
}


def write_edges(path: Path) -> None:
    """60 nodes on a ring with chords, whose edges have features, and a class by whether both ends are alike."""
    rng = np.random.default_rng(0)
    ends = np.array([(node, (node + step) % 60) for node in range(60) for step in (1, 2, 7)]).T
    groups = rng.integers(0, 2, 60)
    both = np.concatenate([ends, ends[::-1]], 1)
    labels = (groups[both[0]] == groups[both[1]]).astype(int)
    x = np.eye(2)[groups] + rng.normal(0, 0.1, (60, 2))
    np.savez(path, x=x, edge_index=both, edge_y=labels, edge_attr=np.ones((both.shape[1], 1)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_from_a_killed_search_to_an_export(
    kind: str,
    zygote: Zygote,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = KINDS[kind]
    shared = request.getfixturevalue("shared_data") if "{shared}" in task.data else ""
    write_edges(tmp_path / "edges.npz")
    fork: Callable[..., Fork] = partial(Fork, zygote, function="tests.crash.eager:run")
    arguments = [
        *("--space", task.space, "--data", task.data.format(shared=shared, here=tmp_path), "--threads", "1"),
        *("--seed", "3", "--trials", "4", "--epochs", "3", *(("--size", task.size) if task.size else ())),
        *("-s", "checkpoint_seconds=0", "-s", "recipe.batch_size=64", "-s", "split.limit=300"),
    ]
    check_kills(fork, tmp_path, arguments, kills=2, per_study=2, durations=False)
    whole = tmp_path / "whole"
    finish(fork, ["train", "s", "--epochs", "2"], whole)
    finish(fork, ["export", "s", "--out", "out", "--format", "pt2,onnx"], whole)
    assert {path.suffix for path in (whole / "out").iterdir()} >= {".pt2", ".onnx"}
    monkeypatch.chdir(whole)
    capsys.readouterr()
    assert nas(["trials", "s", "--json"]) == 0
    trials = json.loads(capsys.readouterr().out)
    trained = [trial for trial in trials if trial["state"] == "complete"]  # a cell of zeros is rejected
    assert len(trained) >= 3
    assert all(f"val_{task.metric}" in trial["metrics"] for trial in trained)
