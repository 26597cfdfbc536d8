"""Every listed space keeps the contract; a new one is tested by being listed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

import search_spaces
from nas_core import moves
from nas_core.seeds import generator
from nas_core.task import Task
from nas_core.testing.findings import Reference
from nas_core.testing.space import check, check_fresh
from search_spaces.counter import counts
from search_spaces.operators.graph.sample import ring
from training.tasks import example_tasks

EXAMPLE = f"{Path(__file__).resolve().parents[2] / 'examples' / 'my_space.py'}:space"
SPACES = [
    *search_spaces.BUILTIN,
    "graphgym(condensed=True)",
    "graphgym(operators=('general', 'gat', 'pna'), encodings=('random-walk',), readouts=('sum', 'std'))",
    "graphgym(condensed=True, operators=('general', 'gat', 'gine'), rewirings=('virtual-node',))",
    "graphgym(condensed=True, operators=('general', 'gat', 'gine'), rewirings=('virtual-node',), pre=(0,), post=(0,))",
    "graphgym(operators=('general', 'gatv2'), readouts=('sum', 'softmax'), pre=(0, 2), post=(0, 1))",
    "graphnas-micro(nodes=3, operators=('gine', 'sage', 'zero'), encodings=('random-walk',), readouts=('sum', 'std'))",
    "gnas(layers=2, operators=('gcn', 'appnp(steps=2)'), aggregators=('sum', 'std'), readouts=('sum', 'softmax'), "
    "encodings=('random-walk(features=3)',))",
    "argnp(vertices=3, operators=('gcn', 'gine'), aggregators=('gem2', 'softmax'), "
    "encodings=('random-walk(features=3)', 'laplacian(features=2)'))",
    "graphnas(operators=('gcn', 'pna'), aggregators=('mlp', 'std'), encodings=('random-walk',))",
    "darts(levels=3)",
    "moe(backbone=text)",
    "moe(backbone=patches)",
    "regnet(stages=4, bottleneck=2, se=False)",
    EXAMPLE,
]
COUNTED = (EXAMPLE, "stages", "activation", "evonorm", "moe", "moe(backbone=text)", "moe(backbone=patches)")
"""Those without formulas."""


def inputs_of(task: Task) -> tuple[torch.Tensor, ...]:
    """One sample, or one graph of the mean size, whose edges are the pairs that are asked for."""
    if task.nodes is None or task.edges is None:
        return (torch.ones(1, *task.input_shape),)
    edges = ring(task.nodes, task.edges)
    known = {
        "x": torch.ones(task.nodes, *task.input_shape),
        "edge_index": edges,
        "edge_attr": torch.ones(task.edges, task.edge_features or 0),
        "counts": torch.tensor([task.nodes]),
        "pairs": edges,
    }
    return tuple(known[each.name] for each in task.inputs)


def reference(text: str) -> Reference:
    return Reference(text, search_spaces.BUILTIN, search_spaces.GROUP, "space")


@pytest.mark.parametrize("text", SPACES, ids=lambda text: Path(text).name)
def test_space_contract(text: str) -> None:
    """With one network per task."""
    assert list(check(reference(text).load(), example_tasks(), built=1)) == []


@pytest.mark.parametrize("text", [text for text in SPACES if text not in COUNTED])
def test_formulas_of_spaces_are_the_counter(text: str) -> None:
    """Parameters and MACs of the built network, on graphs without loops and repeated edges."""
    space = reference(text).load()
    size = space.Size.preset("search")
    for task in [task for task in example_tasks() if task.kind in space.tasks]:
        if task.edge_features and not text.startswith(("graphgym", "graphnas-micro(")):
            continue  # it reads none
        inputs = inputs_of(task)
        for number in range(1 if len(space.choices) > 100 else 2):  # of the largest networks one
            arch = moves.sample(space, generator("formulas", number))
            params, macs = counts(partial(space.build, arch, task, size), inputs)
            found = space.costs(arch, task, size)
            assert found["params"] == params
            # The benchmark counts edges of NAS-Bench-201 that cannot reach the output; the network does not run them.
            whole = text != "nasbench201" or "none" not in arch.values.values()
            assert found["macs"] == macs if whole else found["macs"] >= macs


@pytest.mark.matrix
@pytest.mark.parametrize("text", SPACES, ids=lambda text: Path(text).name)
def test_space_contract_with_more_networks(text: str) -> None:
    assert list(check(reference(text).load(), example_tasks(), built=6)) == []


def test_spaces_are_the_same_in_a_fresh_interpreter() -> None:
    assert list(check_fresh(*map(reference, SPACES))) == []


def test_the_example_is_short() -> None:
    assert len(Path(EXAMPLE.removesuffix(":space")).read_text(encoding="utf-8").splitlines()) < 60
