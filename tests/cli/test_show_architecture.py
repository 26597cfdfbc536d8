"""`nas show --architecture`, and the published architectures in `nas spaces show`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas_cli.architecture import split
from nas_core.task import Task
from search_spaces.nasnet.space import NASNet, Size

Said = Callable[..., tuple[int, str, str]]

SPACE = NASNet()
NASNET_A = SPACE.named["NASNet-A"]
CIFAR = Task(kind="image-classification", input_shape=(3, 32, 32), outputs=10)

OWN = '''"""A space without notation and costs of its own."""
from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.space import SearchSpace

class Mine(SearchSpace):
    name = "mine"
    tasks = frozenset({"image-classification"})
    choices = (Choice("depth", (1, 2), ordered=True),)
    named = {"deep": Architecture("mine", {"depth": 2})}

    def build(self, arch, task, size):
        from torch import nn
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5), nn.Linear(5, task.outputs))

space = Mine()
'''


def document(said: tuple[int, str, str]) -> Any:
    code, out, err = said
    assert (code, err) == (0, "")
    return json.loads(out)


def test_a_published_architecture_is_drawn_with_its_choices_and_costs(say: Said) -> None:
    code, out, err = say("show", "--architecture", "nasnet:NASNet-A")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["space", "nasnet", "(version", f"{SPACE.version})"]
    assert lines[1].split() == ["name", "NASNet-A"]
    assert SPACE.to_text(NASNET_A) in lines[2]
    assert any(line.endswith("17  normal output           ← 4, 7, 10, 13, 16") for line in lines)
    assert any(line.endswith("35  reduction output        ← 28, 31, 34") for line in lines)
    assert "  normal/block0/operation1      sep_conv_5x5" in lines
    assert "costs for an image of 3 x 32 x 32 and 10 classes" in lines
    for preset in ("search", "full"):
        (row,) = (line.split() for line in lines if line.startswith(f"{preset}\t"))
        costs = SPACE.costs(NASNET_A, CIFAR, Size.preset(preset))
        assert row[1:] == [f"{costs['params']:.0f}", f"{costs['macs']:.0f}"]


def test_as_a_document(say: Said) -> None:
    found = document(say("show", "--architecture", "nasnet:AmoebaNet-A", "--json"))
    arch = SPACE.named["AmoebaNet-A"]
    assert (found["space"], found["version"], found["name"], found["key"]) == (
        "nasnet",
        SPACE.version,
        "AmoebaNet-A",
        arch.key,
    )
    assert found["architecture"] == dict(arch.values)
    assert found["notation"] == SPACE.to_text(arch)
    assert found["identity"] == SPACE.identity(arch)
    assert found["graph"]["nodes"] == list(SPACE.graph(arch).nodes)
    assert found["costs"]["full"] == SPACE.costs(arch, CIFAR, Size.preset("full"))
    assert found["task"]["input_shape"] == [3, 32, 32]


def test_an_architecture_in_the_notation_of_its_space(say: Said) -> None:
    text = SPACE.to_text(NASNET_A)
    found = document(say("show", "--architecture", f"nasnet:{text}", "--json"))
    assert (found["name"], found["key"]) == (None, NASNET_A.key)
    code, out, err = say("show", "--architecture", "nasbench_graph:0112:gcn,gin,cheb,fc")
    assert (code, err) == (0, "")
    assert "notation  0112:gcn,gin,cheb,fc" in out
    assert "costs for a graph of 2,708 nodes with 1433 features and 7 classes" in out


def test_a_space_of_one_s_own_is_built_to_count(say: Said, folder: Path) -> None:
    (folder / "mine.py").write_text(OWN)
    found = document(say("show", "--architecture", "mine.py:space:deep", "--json"))
    assert found["architecture"] == {"depth": 2}
    assert found["notation"] is None
    weights = 3 * 32 * 32 * 5 + 5 * 10
    assert found["costs"]["search"] == {"params": weights + 15, "macs": weights}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("nasnet:NASNet-A", ("nasnet", "NASNet-A")),
        ("nasnet(blocks=2):a|b c:d", ("nasnet(blocks=2)", "a|b c:d")),
        ("nasbench_graph:0112:gcn", ("nasbench_graph", "0112:gcn")),
        ("../my.dir/file.py:space:name", ("../my.dir/file.py:space", "name")),
        ("file.py:Space(a='x'):name", ("file.py:Space(a='x')", "name")),
        ("package.module:Space:name:x", ("package.module:Space", "name:x")),
    ],
)
def test_where_the_space_ends(text: str, parts: tuple[str, str]) -> None:
    assert split(text) == parts


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nasnet:NASNet-B"], 2, ["unknown architecture 'NASNet-B'", "did you mean 'NASNet-A'?", "AmoebaNet-A"]),
        (["nasnet:"], 2, ["'nasnet:' is no architecture", "nasnet:NASNet-A"]),
        (["NASNet-A"], 2, ["'NASNet-A' is no architecture"]),
        (["nasnett:NASNet-A"], 2, ["unknown space 'nasnett'", "did you mean 'nasnet'?"]),
        (["nasnet(blocks=4):NASNet-A"], 2, ["'NASNet-A' is no architecture: write normal="]),
        (["nasnet:normal=x reduction=y"], 2, ["the normal cell 'x' has 1 blocks", "named: NASNet-A, AmoebaNet-A"]),
        (["nasbench201:|none~0|"], 2, ["'|none~0|' has 1 nodes"]),
        (["regnet:X"], 2, ["space 'regnet' has neither named architectures nor a notation"]),
        (["mine.py:space:flat"], 2, ["space 'mine.py:space' has no notation", "(named: deep)"]),
        (["none.py:space:deep"], 3, ["there is no file 'none.py'"]),
        (["nasnet:NASNet-A", "mine"], 2, ["'mine' and --architecture exclude each other"]),
    ],
)
def test_bad_input_ends_in_one_line(say: Said, folder: Path, arguments: list[str], code: int, words: list[str]) -> None:
    (folder / "mine.py").write_text(OWN)
    found, out, err = say("show", "--architecture", *arguments)
    assert (found, out) == (code, ""), err
    assert all(word in err for word in words), err
    assert len(err.splitlines()) == 1


def test_show_needs_something_to_show(say: Said) -> None:
    code, out, err = say("show")
    assert (code, out) == (2, "")
    assert "STUDY[:N]" in err
    assert "--architecture SPACE:NAME" in err
    assert len(err.splitlines()) == 1


def test_spaces_show_names_what_is_published(say: Said) -> None:
    code, out, err = say("spaces", "show", "nasnet")
    assert (code, err) == (0, "")
    assert "published      NASNet-A, AmoebaNet-A" in out
    assert "5.2E+36" in out
    assert document(say("spaces", "show", "nasnet", "--json"))["named"] == ["NASNet-A", "AmoebaNet-A"]
    assert document(say("spaces", "show", "nasbench201", "--json"))["named"] == []
    assert "published" not in say("spaces", "show", "nasbench201")[1]
