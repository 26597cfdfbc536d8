"""Drawn networks of every space of graphs: trained, written as Python and as programs, asked, loaded and made smaller.
Faster, and one of each: `test_auto_gnn.py`, `test_graphnas.py`, `test_graphgym.py`,
`tests/compressors/test_groups_of_spaces.py`, `tests/training/test_python_source.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.cli.conftest import said_in
from tests.cli.drawn import Say, answer, made_smaller, written_and_asked
from training.data import load

SIZES = {
    "gnas(layers=2)": "hidden=8",
    "argnp(vertices=4)": "node=8,relation=6,node_output=8,relation_output=6",
    "auto-gnn": "",
    "graphnas": "",
    "graphnas-micro": "",
    "graphgym": "hidden=16",
    "graphgym(pre=(0,), post=(0,))": "hidden=16",
}
DATA = {"nodes": "karate", "graphs": "random-graphs?target=degrees&graphs=40", "pairs": "karate?task=link-prediction"}


@pytest.fixture(scope="module", params=[(space, level) for space in SIZES for level in DATA], ids="-".join)
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with three drawn and trained networks, and what they answer for."""
    space, level = request.param
    place, size = tmp_path_factory.mktemp("drawn"), ("--size", SIZES[space]) if SIZES[space] else ()
    words = ("--space", space, "--data", DATA[level], "--strategy", "random", "--seed", "5", "--trials", "3")
    said_in(place, "search", "--study", "s", *words, *size, "--epochs", "1", "--threads", "1")
    said_in(place, "train", "s", "--top", "3", "--epochs", "1", *size)
    return place, level


def asked(level: str) -> tuple[Tensor, ...]:
    """Inputs of a network: of several graphs the first two of the data, of pairs three."""
    if level == "graphs":
        counts = torch.tensor([3, 2])
        features = load(DATA[level]).task.graphs().features
        return torch.rand(5, features), torch.tensor([[0, 1, 3], [1, 2, 4]]), counts
    x, edges = torch.eye(34), torch.tensor([[0, 1, 2], [1, 0, 3]])
    return (x, edges) if level == "nodes" else (x, edges, torch.tensor([[0, 5, 33], [1, 6, 0]]))


def write(path: Path, level: str, inputs: tuple[Tensor, ...]) -> None:
    """The same as a file."""
    held: dict[str, Any] = {"x": inputs[0].numpy(), "edge_index": inputs[1].numpy()}
    if level == "graphs":
        held["graph_id"] = np.repeat(np.arange(2), inputs[2].numpy())
    elif level == "pairs":
        held["pairs"] = inputs[2].numpy()
    np.savez(path, **held)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_checks")
def test_three_drawn_networks_are_written_and_asked(
    study: tuple[Path, str], tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, level = study
    monkeypatch.chdir(place)
    inputs = asked(level)
    file = tmp_path / "asked.npz"
    write(file, level, inputs)
    written_and_asked(say, tmp_path, f"graph:{file}", inputs, {"nodes": 34, "graphs": 2, "pairs": 3}[level])


@pytest.mark.slow
@pytest.mark.usefixtures("forked_checks")
def test_a_drawn_network_becomes_programs(
    study: tuple[Path, str], tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They answer as the weights do, for other numbers of nodes, edges, graphs and pairs, and without edges."""
    place, level = study
    monkeypatch.chdir(place)
    code, _, err = say("export", "s:0", "--format", "pt2,onnx,safetensors", "--out", str(tmp_path))
    assert code == 0, err
    x, edges, *rest = asked(level)
    for given in (edges, edges[:, :0]):
        file = tmp_path / "asked.npz"
        write(file, level, (x, given, *rest))
        weights, *programs = (
            answer(say, tmp_path / f"s-0.{ending}", f"graph:{file}") for ending in ("safetensors", "onnx", "pt2")
        )
        for program in programs:
            assert program == pytest.approx(weights, rel=1e-3, abs=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_checks")
def test_three_drawn_networks_are_made_smaller_or_say_what_stands_in_the_way(
    study: tuple[Path, str], say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = study
    monkeypatch.chdir(place)
    made_smaller(say, epochs=1)
