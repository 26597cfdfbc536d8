"""Operators of one's own in the graph space: checked, searched, refused once they changed; mistakes are said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]
OPERATORS = """
import torch
from torch import nn
from torch_geometric.nn import MessagePassing


class Widest(MessagePassing):
    def __init__(self, width, hidden, hops=1):
        super().__init__(aggr="max")
        self.linear = nn.Linear(2 * width, hidden)
        self.hops = hops

    def forward(self, x, edge_index):
        near = x
        for _ in range(self.hops):
            near = self.propagate(edge_index, x=near)
        return self.linear(torch.cat([x, near], 1))


class Narrow(Widest):
    def __init__(self, width, hidden):
        super().__init__(width, 3)


class Through(nn.Identity):
    skip = True

    def __init__(self, width, hidden):
        super().__init__()
"""
SPACE = "nasbench_graph(operators=('gcn', 'skip', 'my_ops.py:Widest', 'my_ops.py:Widest(hops=2)'))"


@pytest.fixture
def own(folder: Path) -> Path:
    (folder / "my_ops.py").write_text(OPERATORS)
    return folder


@pytest.mark.usefixtures("forked_checks")
def test_checked_searched_resumed_and_refused_once_changed(own: Path, say: Say) -> None:
    code, out, err = say("spaces", "check", SPACE)
    assert code == 0, out + err
    words = (
        "--data",
        "karate",
        "--epochs",
        "1",
        "--threads",
        "1",
        "--size",
        "hidden=4",
        "--study",
        "s",
        "--trials",
        "4",
    )
    code, _, err = say("search", "--space", SPACE, *words)
    assert code == 0, err
    found = {
        name
        for trial in json.loads(say("trials", "s", "--json")[1])
        for name in json.loads(say("show", f"s:{trial['number']}", "--json")[1])["architecture"].values()
    }
    assert found & {"Widest", "Widest(hops=2)"}
    assert say("resume", "s", "--trials", "5")[0] == 0
    (own / "my_ops.py").write_text(OPERATORS.replace("hops=1", "hops=3"))
    code, _, err = say("resume", "s", "--trials", "6")
    assert (code, "restore it" in err) == (2, True), err


@pytest.mark.usefixtures("forked_checks")
def test_exports_bring_the_file_along(own: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from nas_core.errors import NotFoundError, UsageError
    from training.export import load_network

    words = (
        "--data",
        "karate",
        "--epochs",
        "1",
        "--threads",
        "1",
        "--size",
        "hidden=4",
        "--study",
        "s",
        "--trials",
        "1",
    )
    only = "nasbench_graph(operators=('my_ops.py:Widest', 'my_ops.py:Widest(hops=2)'))"
    assert say("search", "--space", only, *words)[0] == 0
    assert say("train", "s", "--epochs", "1")[0] == 0
    code, _, err = say("export", "s", "--format", "safetensors,json,python", "--out", "export")
    assert code == 0, err
    (own / "my_ops.py").unlink()
    monkeypatch.chdir(own / "export")
    [description] = Path().glob("*.json")
    assert "class Widest(MessagePassing)" in next(Path().glob("*[0-9].py")).read_text()
    network = load_network(description, description.with_suffix(".safetensors"))
    assert network(torch.rand(5, 34), torch.tensor([[0, 1], [1, 2]])).shape == (5, 4)
    Path("my_ops.py").write_text(OPERATORS + "\n")
    with pytest.raises(UsageError, match=r"my_ops.py' was changed since"):
        load_network(description)
    Path("my_ops.py").unlink()
    with pytest.raises(NotFoundError, match="there is no file"):
        load_network(description)


def test_architectures_are_written_and_costs_counted(own: Path, say: Say) -> None:
    words = ("show", "--architecture", f"{SPACE}:0012:gcn,Widest(hops=2),skip,Widest", "--json")
    code, out, err = say(*words)
    assert code == 0, err
    shown = json.loads(out)
    assert shown["notation"] == "0012:gcn,Widest(hops=2),skip,Widest"
    assert all(value > 0 for costs in shown["costs"].values() for value in costs.values())


@pytest.mark.usefixtures("forked_checks")
@pytest.mark.parametrize(
    ("operators", "message"),
    [
        ("('gcn', 'gna')", "unknown graph operator 'gna'"),
        ("('skip',)", "needs an operator beside 'skip'"),
        ("('gcn', 'my_ops.py:Narrow')", None),
        ("('gcn', 'my_ops.py:Through')", "has no place for 'Through', which hands its input on; 'skip' does"),
        ("('gcn', 'my_ops.py:Absent')", "no object 'Absent' in it"),
        ("('gcn', 'my_ops.py:Widest(hop=2)')", "unexpected keyword argument 'hop'"),
        ("gcn", "list them, for example"),
    ],
)
def test_mistakes_are_said(own: Path, say: Say, operators: str, message: str | None) -> None:
    code, out, err = say("spaces", "check", f"nasbench_graph(operators={operators})")
    if message is None:
        assert (code, "answers (12, 3) instead of [nodes, width]" in out + err) == (1, True), out + err
    else:
        assert code in (2, 3)
        assert message in err
        assert "Traceback" not in err


def test_the_benchmarks_table_has_no_rows_of_other_operators(own: Path, say: Say, shared_data: Path) -> None:
    table = ("--table", str(shared_data / "nasbench_graph.csv.gz"), "--data", "cora")
    code, _, err = say("search", "--space", SPACE, *table, "--trials", "2")
    assert (code, bool(re.search(r"nasbench_graph-[0-9a-f]{8}\b", err))) == (2, True), err
