"""Networks written as Python: one readable file that computes what the network does, and knows nothing of a search."""

from __future__ import annotations

import ast
import importlib.util
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from nas_cli.packages import PACKAGES
from nas_core import moves, refs
from nas_core.architecture import Architecture
from nas_core.moves import sample
from nas_core.space import HasNamed, SearchSpace
from nas_core.task import (
    IMAGE_CLASSIFICATION,
    NODE_CLASSIFICATION,
    TABULAR_REGRESSION,
    InputSpec,
    Task,
    graph_task,
    multi_task,
    question_task,
    text_task,
)
from search_spaces import BUILTIN, GROUP
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.moe import Moe
from search_spaces.supernet.supernet import Supernet
from training.export.formats import module_name
from training.export.python import check
from training.export.python.layout import statement
from training.export.python.module import Subject, network_source
from training.export.python.terms import Unwritable, literal
from training.inputs import GraphInputs, ImageInputs, Inputs
from training.inputs.pictures import pixels
from training.tasks.multi_task import DIGITS

IMAGES = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 16, 16), outputs=5)
LARGE = Task(kind=IMAGE_CLASSIFICATION, input_shape=(1, 40, 40), outputs=3)
GRAPH = Task(kind=NODE_CLASSIFICATION, input_shape=(12,), outputs=4, nodes=30, edges=80)
FIELDS = InputSpec(name="x", shape=(9,), categories=(1, 4, 1, 3))
TABLE = Task(kind=TABULAR_REGRESSION, inputs=(FIELDS,), outputs=1, metric="rmse")
TEXT = text_task(128, 9, "bpc")
QUESTIONS = question_task(19, 136, "exact_match")
SEVERAL = multi_task((1, 8, 8), DIGITS)

# A space, a task, a size, how many architectures are drawn.
DRAWN: Sequence[tuple[str, Task, dict[str, Any], int]] = (
    ("nasbench201", IMAGES, {"channels": 4, "cells": 2}, 6),
    ("darts", IMAGES, {"channels": 4, "layers": 5}, 2),
    ("darts", IMAGES, {"channels": 5, "layers": 3, "auxiliary": True}, 1),
    ("darts(levels=3)", LARGE, {"channels": 4, "layers": 7, "stem": "imagenet", "auxiliary": True}, 1),
    ("nasnet", IMAGES, {"cells": 1, "filters": 72, "stem_filters": 6, "auxiliary": True}, 2),
    ("nasnet(blocks=3)", LARGE, {"cells": 2, "filters": 48, "stem_filters": 5, "stem": "imagenet"}, 2),
    ("ae-cnn", IMAGES, {"width_scale": 0.1, "depth_scale": 0.4}, 4),
    ("regnet", IMAGES, {"width_scale": 0.25, "stem_width": 7}, 3),
    ("regnet(se=False, bottleneck=2, stages=3)", LARGE, {"width_scale": 0.25, "stem_stride": 2}, 2),
    ("stages", IMAGES, {"width_scale": 0.0625}, 3),
    ("stages(blocks=('selective-kernel',))", LARGE, {"width_scale": 0.0625, "stem": "imagenet"}, 1),
    ("nasbench_graph", GRAPH, {"hidden": 8, "dropout": 0.0}, 12),
    ("gnas(layers=2, vertices=3)", GRAPH, {"hidden": 6, "dropout": 0.0}, 4),
    ("argnp(vertices=4)", GRAPH, {"node": 6, "relation": 4, "node_output": 6, "dropout": 0.0}, 4),
    ("auto-gnn", GRAPH, {"dropout": 0.0}, 6),
    ("auto-gnn(layers=3)", GRAPH, {"dropout": 0.0, "batchnorm": True, "residual": True}, 3),
    ("graphnas", GRAPH, {"dropout": 0.0}, 4),
    ("graphnas-micro(nodes=5, training=False)", GRAPH, {"hidden": 8, "dropout": 0.0, "layers": 3}, 4),
    ("graphgym", GRAPH, {"hidden": 8}, 6),
    ("graphgym(operators=('gcn', 'gat', 'gatv2', 'transformer', 'sgc', 'appnp'))", GRAPH, {"hidden": 8}, 3),
    (
        "graphgym(operators=('general', 'gat'), pre=(0, 1), post=(0, 1))",
        GRAPH,
        {"hidden": 8},
        3,
    ),
    ("graphgym(operators=('gine', 'pna', 'gcn2', 'gin', 'cheb', 'arma'))", GRAPH, {"hidden": 8}, 3),
    ("mlp", TABLE, {"width_scale": 0.25}, 6),
    ("moe", TABLE, {"width": 8}, 4),
    ("moe(backbone=text)", TEXT, {"width": 8}, 4),
    ("moe(backbone=text)", QUESTIONS, {"width": 8}, 1),
    ("moe(backbone=patches)", IMAGES, {"width": 8}, 3),
    ("moe(backbone=tasks)", SEVERAL, {"width": 8}, 3),
)


def space_of(reference: str) -> SearchSpace:
    space: SearchSpace = refs.load(reference, BUILTIN, GROUP, "search space").object
    return space


def ours(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).startswith("search_spaces.")


def disturbed(network: nn.Module) -> nn.Module:
    """With weights and statistics unlike those of a new network."""
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.1 * torch.rand(tensor.shape, generator=generator)
    return network


def example(task: Task) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    if task.positions is not None:
        return (torch.randint(task.tokens()[1], (3, *task.input_shape), generator=generator),)
    if task.nodes is None:
        asked = (torch.arange(3) % len(task.heads),) if task.heads else ()
        return (torch.randn(3, *task.input_shape, generator=generator), *asked)
    # Loops, edges that occur twice, nodes without edges, and directed ones.
    edges = torch.randint(0, 24, (2, 80), generator=generator)
    return torch.rand(30, *task.input_shape, generator=generator), edges


def written(
    network: nn.Module, task: Task, inputs: Inputs | None = None, own: Callable[[Any], bool] = ours
) -> tuple[str, tuple[str, ...]]:
    subject = Subject("A network", ("Of a test.",), "net", "net.safetensors", task, inputs)
    source = network_source(network, subject, own)
    return source.text, source.needs


def loaded(text: str, folder: Path, network: nn.Module) -> ModuleType:
    """The file as a module, beside the weights of the network."""
    (folder / "net.py").write_text(text, encoding="utf-8")
    (folder / "net.safetensors").write_bytes(
        safetensors.torch.save({name: tensor.clone() for name, tensor in network.state_dict().items()})
    )
    spec = importlib.util.spec_from_file_location("net", folder / "net.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["net"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def learnt(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a step of training, and its gradients by the parameter's name."""
    torch.manual_seed(0)
    network.zero_grad()
    answer = network.train()(*inputs)
    parts = answer if isinstance(answer, tuple) else (answer,)
    loss = torch.stack([part.square().mean() for part in parts]).sum()
    loss.backward()
    found = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    return loss.detach(), found


def assert_same(network: nn.Module, again: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """The same state, the same answers, and in training the same loss, gradients and running statistics."""
    state, other = network.state_dict(), again.state_dict()
    assert list(state) == list(other)
    assert all(torch.equal(tensor, other[name]) for name, tensor in state.items())
    with torch.inference_mode():
        torch.testing.assert_close(again(*inputs), network.eval()(*inputs), rtol=1e-5, atol=1e-6)
    (loss, gradients), (other_loss, others) = (learnt(each, inputs) for each in (network, again))
    torch.testing.assert_close(loss, other_loss, rtol=1e-5, atol=1e-6)
    assert gradients.keys() == others.keys()
    if not all(torch.allclose(others[name], gradient, rtol=1e-3, atol=1e-5) for name, gradient in gradients.items()):
        # Normalisation that divides by little, one layer after the other, enlarges what is rounded.
        exact = tuple(one.double() if one.is_floating_point() else one for one in inputs)
        (_, gradients), (_, others) = (learnt(each.double(), exact) for each in (network, again))
        for name, gradient in gradients.items():
            torch.testing.assert_close(others[name], gradient, rtol=1e-6, atol=1e-9, msg=name)
    other = again.state_dict()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def classes_of(text: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}


def assert_readable(text: str) -> None:
    """Short lines, no more classes and functions than it uses, nothing of a search, imports that are used."""
    tree = ast.parse(text)
    assert max(map(len, text.split("\n"))) <= 120
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    read |= {
        node.value.id for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    entries = {"Network", "load", "preprocess", "normalise", "CLASSES", "FEATURES"}
    for node in tree.body:
        names = []
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.asname or alias.name for alias in node.names]
            roots = {(node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name}
            assert not {root.partition(".")[0] for root in roots} & {*PACKAGES, "safetensors", "numpy"}
        for name in {*names} - entries - {"annotations"}:
            assert name in read, name
    words = re.findall(r"\b(?:Features|GraphBatch|MixedOp|MixedRoute|Picker|route|style|supernet|once)\b", text)
    assert words == []
    parts = {target for name, node in classes_of(text).items() for target in _parts(node)}
    assert all(f"self.{part}" in text.replace(f"self.{part} = ", "", 1) for part in parts)


def _parts(node: ast.ClassDef) -> Iterator[str]:
    for each in ast.walk(node):
        if not isinstance(each, ast.Assign) or not isinstance(each.targets[0], ast.Attribute):
            continue
        if (
            ast.unparse(each.targets[0].value) != "self" or each.targets[0].attr == "loads"
        ):  # written, and read by no one
            continue
        # A weight that takes no part is still one of the network: `recurrent` of ARMA, norms of raw nodes.
        if not re.search("nn.Parameter|BatchNorm", ast.unparse(each.value)):
            yield each.targets[0].attr


@pytest.mark.parametrize(("reference", "task", "size", "count"), DRAWN, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("part", [1 / 3, pytest.param(1, marks=pytest.mark.slow)], ids=["third", "all"])
def test_drawn_architectures_of_every_space(
    reference: str, task: Task, size: dict[str, Any], count: int, part: float, tmp_path: Path
) -> None:
    space, rng = space_of(reference), np.random.default_rng(7)
    for _ in range(math.ceil(part * count)):
        arch = sample(space, rng)
        torch.manual_seed(0)
        network = disturbed(space.build(arch, task, space.Size(**size)))
        text, needs = written(network, task)
        assert needs == (("torch",) if task is not GRAPH else needs)
        assert set(needs) <= {"torch", "torch-geometric"}
        assert_readable(text)
        assert_same(network, loaded(text, tmp_path, network).load(), example(task))


def test_experts_are_written_after_a_pass_with_other_loads_in_every_layer(tmp_path: Path) -> None:
    space = space_of("moe")
    assert isinstance(space, HasNamed)
    torch.manual_seed(0)
    network = disturbed(space.build(space.named["switch"], TABLE, space.Size(width=8)))
    network(torch.randn(16, 9))
    text, _ = written(network, TABLE)
    assert_same(network, loaded(text, tmp_path, network).load(), example(TABLE))


@pytest.mark.parametrize(
    ("router", "kind"), [*((router, "gelu") for router in Moe("tasks").routers), ("noisy-top-k", "mixed")]
)
def test_every_router_is_written(router: str, kind: str, tmp_path: Path) -> None:
    space = Moe("tasks")  # which gives a router all that one may need
    wanted = {"ffn": router, "expert": kind, "depth": 2, "experts": 4, "shared": 1, "layers": 2}
    arch = moves.complete(space, wanted, moves.first)
    torch.manual_seed(0)
    network = disturbed(space.build(arch, SEVERAL, space.Size(width=8)))
    text, needs = written(network, SEVERAL)
    assert needs == ("torch",)
    assert_readable(text)
    assert_same(network, loaded(text, tmp_path, network).load(), example(SEVERAL))


def doubled(x: Tensor) -> Tensor:
    return x + x


twice = doubled


class Followed(nn.Module):
    """A block whose source says too little, for it knows a function by another name; it reads a weight of a part."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 4)
        self.last = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(twice(x) @ self.table.weight.softmax(1))


def test_weights_of_parts_are_written_where_a_pass_is_followed(tmp_path: Path) -> None:
    network = disturbed(Followed())
    text, _ = written(network, IMAGES, own=lambda thing: getattr(thing, "__module__", None) == __name__)
    assert "(x + x) @ self.table.weight.softmax(1)" in text
    x = torch.randn(2, 3)
    assert_same(network, loaded(text, tmp_path, network).load(), (x,))


def _named() -> Iterator[tuple[str, str, SearchSpace, Architecture, dict[str, Any]]]:
    sizes = {
        "darts": {"channels": 4, "layers": 5, "drop_path": 0.2, "auxiliary": True},
        "nasnet": {"cells": 1, "filters": 48, "stem_filters": 6, "drop_path": 0.4, "auxiliary": True},
        "evonorm": {"width": 8, "stages": 2},
        "activation": {"width": 4, "stages": 2},
    }
    few = {  # the others have the same classes
        "activation": ("gelu", "swish", "recurrent-rational"),
        "evonorm": ("bn-relu", "gn-silu", "frn", "evonorm-b0", "evonorm-s0"),
    }
    for reference, size in sizes.items():
        space = space_of(reference)
        assert isinstance(space, HasNamed)
        for name in few.get(reference, space.named):
            yield reference, name, space, space.named[name], size


ONE_OF_EACH = ("nasbench201", "nasbench_graph", "argnp(vertices=4)", "mlp", "moe(backbone=text)")
"""A space for each kind of inputs that networks have, and for each way in which their source is written."""


@pytest.mark.parametrize(
    ("reference", "size"),
    [
        ("gnas(layers=1, operators=('gcn',), readouts=('sum', 'softmax'))", {"hidden": 6, "dropout": 0.0}),
        ("argnp(vertices=2, operators=('gine',))", {"node": 6, "relation": 4, "dropout": 0.0}),
        ("auto-gnn(operators=('sage',), readouts=('sum',))", {"dropout": 0.0}),
    ],
)
def test_networks_of_many_graphs_are_written(reference: str, size: dict[str, Any], tmp_path: Path) -> None:
    task = graph_task(12, 4, 15, 40, kind="graph-classification", level="graph", counts=True)
    space, counts = space_of(reference), torch.tensor([10, 20])
    torch.manual_seed(0)
    network = disturbed(space.build(sample(space, np.random.default_rng(1)), task, space.Size(**size)))
    text, _ = written(network, task)
    x, edges = example(GRAPH)
    assert_same(network, loaded(text, tmp_path, network).load(), (x, edges % 10, counts))


def test_dropout_of_attention_is_written(tmp_path: Path) -> None:
    """As an argument of a plain layer, whose draws come in another order."""
    for name in ("gat", "gatv2", "transformer"):
        space: Any = space_of(f"graphgym(operators=('{name}(dropout=0.6)',), training=False)")
        network = space.build(sample(space, np.random.default_rng(0)), GRAPH, space.Size(hidden=8)).eval()
        text, _ = written(network, GRAPH)
        assert "dropout=0.6" in text
        again = loaded(text, tmp_path, network).load()
        torch.testing.assert_close(again(*example(GRAPH)), network(*example(GRAPH)), rtol=1e-5, atol=1e-6)


def test_a_rewiring_is_not_written() -> None:
    space: Any = space_of("graphgym(rewirings=('virtual-node',))")
    for seed in range(8):
        arch = sample(space, np.random.default_rng(seed))
        if arch.values["rewiring"] != "none":
            break
    with pytest.raises(Unwritable, match="its input 'graph' is more than a tensor"):
        written(space.build(arch, GRAPH, space.Size(hidden=8)), GRAPH)


class Reading(nn.Module):
    """Its values have no names, and one of its inputs is called as such values are."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 4)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        graph = GraphBatch.of(h, x)
        return self.linear(self.squared(x + 1) + self.squared(x - 1) + graph.propagate(x, "sum"))

    def squared(self, value: Tensor) -> Tensor:
        return value * value


def test_values_are_not_called_as_inputs_are(tmp_path: Path) -> None:
    network = disturbed(Reading())
    text, _ = written(network, GRAPH, own=lambda thing: getattr(thing, "__module__", None) == __name__)
    assert "h2 = x + 1" in text
    assert_same(network, loaded(text, tmp_path, network).load(), example(GRAPH))


def test_a_file_of_each_kind_runs_where_this_program_is_unknown(tmp_path: Path) -> None:
    drawn = [(reference, task, size) for reference, task, size, _ in DRAWN if reference in ONE_OF_EACH]
    assert {reference for reference, _, _ in drawn} == set(ONE_OF_EACH)
    _run_alone([_drawn(reference, task, size) for reference, task, size in drawn], tmp_path)


@pytest.mark.slow
def test_every_file_runs_where_this_program_is_unknown(tmp_path: Path) -> None:
    """One of every space and all published cells."""
    cases = [_drawn(reference, task, size) for reference, task, size, _ in DRAWN]
    cases += [(space.build(arch, IMAGES, space.Size(**size)), IMAGES) for _, _, space, arch, size in _named()]
    _run_alone(cases, tmp_path)


def _drawn(reference: str, task: Task, size: dict[str, Any]) -> tuple[nn.Module, Task]:
    space = space_of(reference)
    return space.build(sample(space, np.random.default_rng(1)), task, space.Size(**size)), task


def _run_alone(cases: Sequence[tuple[nn.Module, Task]], tmp_path: Path) -> None:
    """The files of networks answer as these do in a process that can import none of our packages."""
    folders = []
    for number, (network, task) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        network = disturbed(network).eval()
        text, _ = written(network, task)
        assert_readable(text)
        loaded(text, folder, network)
        inputs = example(task)
        with torch.inference_mode():
            tensors = {f"input{position}": tensor for position, tensor in enumerate(inputs)}
            (folder / "case.safetensors").write_bytes(safetensors.torch.save({**tensors, "output": network(*inputs)}))
        folders.append(str(folder))
    program = f"""
import importlib.util, sys
import safetensors.torch, torch
sys.path.insert(0, {str(Path(check.__file__).parent)!r})
import check
cases = [(f, safetensors.torch.load_file(f + "/case.safetensors")) for f in {folders!r}]
check.Refuse({[*PACKAGES, "safetensors", "pydantic"]!r})
for folder, case in cases:
    network = check.load(folder + "/net.py").load()
    assert not network.training
    inputs = [case[name] for name in sorted(case) if name.startswith("input")]
    torch.testing.assert_close(network(*inputs), case["output"], rtol=1e-5, atol=1e-6)
print(len(cases))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout.strip() == str(len(cases)), done.stderr
    if shutil.which("ruff"):
        lint = ["ruff", "check", "--isolated", "--line-length", "120", "--select", "E,F,I", str(tmp_path)]
        found = subprocess.run(lint, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout


def test_what_a_cell_does_not_use_is_not_there() -> None:
    space = space_of("nasbench201")
    # Edge 1-3 is none, so nothing of node 1 reaches the output; edge 0-1 keeps its weights, pooling has none.
    cell = "|{}~0|+|nor_conv_1x1~0|none~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
    texts = {
        operation: written(space.build(space.from_text(cell.format(operation)), IMAGES, space.Size()), IMAGES)[0]  # type: ignore[attr-defined]
        for operation in ("avg_pool_3x3", "nor_conv_3x3")
    }
    assert ['"0-1"' in text for text in texts.values()] == [False, True]
    assert "nn.AvgPool2d(3" not in texts["avg_pool_3x3"]
    empty = space.from_text("|none~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|none~0|skip_connect~1|nor_conv_3x3~2|")  # type: ignore[attr-defined]
    text, _ = written(space.build(empty, IMAGES, space.Size()), IMAGES)
    assert not re.search("zeros|node1|AvgPool2d\\(3", text)
    bare, gated = (
        written(space.build(sample(space, np.random.default_rng(0)), IMAGES, space.Size()), IMAGES)[0]
        for space in (space_of("regnet(se=False)"), space_of("regnet"))
    )
    assert "SqueezeExcite" in gated
    assert not re.search("SqueezeExcite|gate", bare)
    space = space_of("nasnet")
    arch = space.named["NASNet-A"]  # type: ignore[attr-defined]
    plain, dropping = (
        written(space.build(arch, IMAGES, space.Size(cells=1, filters=48, auxiliary=part, drop_path=rate)), IMAGES)[0]
        for part, rate in ((False, 0.0), (True, 0.3))
    )
    assert {"DropPath", "AuxiliaryHead"} <= set(classes_of(dropping))
    assert not re.search("(?i)drop_?path|auxiliary", plain)


def test_dropping_paths_drops_them(tmp_path: Path) -> None:
    space = space_of("darts")
    arch = space.named["DARTS_V2"]  # type: ignore[attr-defined]
    network = space.build(arch, IMAGES, space.Size(channels=4, layers=3, drop_path=0.9))
    again = loaded(written(network, IMAGES)[0], tmp_path, network).load().train()
    images = example(IMAGES)[0]
    assert torch.equal(again(images), again(images))
    drops = [module for module in again.modules() if type(module).__name__ == "DropPath"]
    for drop in drops:
        drop.progress = 1.0
    torch.manual_seed(0)
    assert len(drops) > 3
    assert not torch.allclose(again(images), again(images))
    again.eval()
    assert torch.equal(again(images), again(images))


def test_networks_of_a_supernet_in_its_style(tmp_path: Path) -> None:
    for reference, task, size in (
        ("darts", IMAGES, {"channels": 4, "layers": 3}),
        ("nasbench_graph", GRAPH, {"hidden": 8, "dropout": 0.0}),
    ):
        space = space_of(reference)
        supernet = disturbed(Supernet(space, task, space.Size(**size)))
        network = supernet.extract(sample(space, np.random.default_rng(4)))
        assert_same(network, loaded(written(network, task)[0], tmp_path, network).load(), example(task))


def test_parameters_that_are_shared_are_one_in_the_file_too(tmp_path: Path) -> None:
    """Gradients of a rational function that all layers share are those of all of them."""
    space = space_of("activation")
    assert isinstance(space, HasNamed)
    network = disturbed(space.build(space.named["recurrent-rational"], IMAGES, space.Size(width=4, stages=2)))
    again = loaded(written(network, IMAGES)[0], tmp_path, network).load()
    assert sum(each.numel() for each in again.parameters()) == sum(each.numel() for each in network.parameters())
    assert_same(network, again, example(IMAGES))


def test_changed_widths_are_written_as_they_are(tmp_path: Path) -> None:
    """What compression leaves: blocks of one class with widths of their own."""
    space = space_of("regnet(se=False)")
    network = space.build(sample(space, np.random.default_rng(2)), IMAGES, space.Size(width_scale=0.25))
    for number, block in enumerate(network.blocks):
        width = block.expand[0].out_channels
        block.expand = nn.Sequential(nn.Conv2d(block.expand[0].in_channels, 3 + number, 1), nn.ReLU())
        block.grouped = nn.Sequential(nn.Conv2d(3 + number, width, 3, block.grouped[0].stride, 1), nn.ReLU())
    text, _ = written(disturbed(network), IMAGES)
    assert_readable(text)
    assert sum(name.startswith("Bottleneck") for name in classes_of(text)) == 1
    assert_same(network, loaded(text, tmp_path, network).load(), example(IMAGES))


OWN = '''
import math
from collections import OrderedDict
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SCALE = 0.5
ROOT = math.sqrt(2)


def scaled(x, by=SCALE):
    """A helper that stays as it is."""
    return x * by


class Base(nn.Module):
    def widen(self, x):
        return self.activation(scaled(x)) * ROOT


class Block(Base):
    """A block of my own.

    More about it.
    """

    heads = 2

    def __init__(self, width, activation, extra=None):
        super().__init__()
        self.activation, self.width = activation, width
        self.first = nn.Linear(width, width)
        self.extra = extra
        self.weight = nn.Parameter(torch.ones(width))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("table", torch.arange(3.0), persistent=False)

    @property
    def half(self):
        return self.width / self.heads

    def forward(self, x):
        # This comment is mine.
        x = self.widen(self.first(x)) * self.weight
        if self.extra is not None:
            x = self.extra(x)
        for value in self.table:
            x = x + value / self.half
        return x


class Net(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.flatten = nn.Flatten()
        self.named = nn.Sequential(OrderedDict([("in", nn.Linear(768, 8)), ("act", nn.GELU(approximate="tanh"))]))
        self.blocks = nn.ModuleList([Block(8, torch.tanh), Block(8, F.relu, nn.LayerNorm(8)), Block(8, F.relu)])
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.blocks[0].first.weight
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, outputs)

    def forward(self, x):
        x = self.named(self.flatten(x))
        for block in self.blocks:
            x = block(x)
        x = self.tied(x)
        x = x + self.attention(x[:, None], x[:, None], x[:, None])[0][:, 0]
        return self.out(x)
'''


def own_module(text: str, folder: Path, name: str = "mine") -> ModuleType:
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of(module: ModuleType) -> Callable[[Any], bool]:
    return lambda thing: getattr(thing, "__module__", None) == module.__name__


def test_networks_of_ones_own(tmp_path: Path) -> None:
    module = own_module(OWN, tmp_path)
    network = disturbed(module.Net(5))
    text, needs = written(network, IMAGES, own=of(module))
    assert needs == ("torch",)
    assert "# This comment is mine." in text
    assert '"""A block of my own."""' in text
    assert "numpy" not in text
    again = loaded(text, tmp_path, network).load()
    assert_same(network, again, example(IMAGES))
    assert again.tied.weight is again.blocks[0].first.weight


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("self.activation = lambda x: x if x.sum() > 0 else -x", "class Part: it keeps a function in self.activation"),
        ("self.activation = [nn.Linear(8, 8)][0].forward", "class Part: it keeps a method in self.activation"),
        ("self.activation = lambda x: x.relu() if self.training else x", "uses variables of the function"),
        ("self.activation = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))", "activation"),
        ("self.activation = nn.TransformerEncoderLayer(8, 2, batch_first=True)", "does not keep its 'd_model'"),
        ("self.activation = nn.ParameterList([torch.ones(8)])", "is a ParameterList"),
        ("self.activation = lambda x: x.clamp_(0)", "changes a tensor in place"),
        ("self.activation = nn.Tanh(); self.register_buffer('big', torch.rand(99), persistent=False)", "99 numbers"),
        ("self.activation = nn.Linear(8, 8); self.activation.out_features = 9", "was changed after it was made"),
    ],
)
def test_what_cannot_be_written_is_named(change: str, message: str, tmp_path: Path) -> None:
    text = f"""
import torch
from torch import nn


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        {change}

    def forward(self, x):
        return self.activation(x)
"""
    module = own_module(text, tmp_path, "part")
    with pytest.raises(Unwritable, match=re.escape(message)):
        written(module.Part(), IMAGES, own=of(module))


@pytest.mark.parametrize(("mode", "fit"), [("RGB", "stretch"), ("L", "crop")])
def test_images_are_prepared_as_in_training(mode: str, fit: str, tmp_path: Path) -> None:
    channels = len(mode) if mode == "RGB" else 1
    inputs = ImageInputs.model_validate(
        {
            "kind": IMAGE_CLASSIFICATION,
            "mode": mode,
            "fit": fit,
            "channels": channels,
            "height": 16,
            "width": 12,
            "value_range": (0, 255),
            "mean": (0.4, 0.3, 0.2)[:channels],
            "deviation": (0.2, 0.3, 0.4)[:channels],
            "classes": ("a 'quoted' \"one\"", "b\\c", "ü", "d", "e"),
        }
    )
    task = Task(kind=IMAGE_CLASSIFICATION, input_shape=(channels, 16, 12), outputs=5)
    space = space_of("nasbench201")
    network = space.build(sample(space, np.random.default_rng(0)), task, space.Size(channels=2, cells=1))
    text, needs = written(network, task, inputs)
    assert needs == ("torch",)
    module = loaded(text, tmp_path, network)
    assert inputs.classes == module.CLASSES
    rng = np.random.default_rng(5)
    colours = Image.fromarray(rng.integers(0, 256, (30, 21, 4), dtype=np.uint8), "RGBA")
    turned = Image.Exif()
    turned[0x0112] = 6
    colours.save(tmp_path / "turned.png", exif=turned)
    for image in (
        colours,
        colours.convert("L"),
        colours.convert("RGB").quantize(7),
        Image.open(tmp_path / "turned.png"),
    ):
        given = pixels(image, (16, 12), inputs.fit, mode).transpose(2, 0, 1)[None].astype(np.float32) / 255
        (expected,) = inputs.normalised((given,))
        torch.testing.assert_close(module.preprocess(image), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="more than 8 bits"):
        module.preprocess(Image.new("I;16", (9, 9)))


def test_graphs_are_prepared_as_in_training(tmp_path: Path) -> None:
    for how in ("rows", "none"):
        inputs = GraphInputs(kind=NODE_CLASSIFICATION, features=12, normalise=how, classes=tuple("abcd"))
        space = space_of("nasbench_graph")
        network = space.build(space.from_text("0123:gat,gcn,gin,fc"), GRAPH, space.Size(hidden=4))  # type: ignore[attr-defined]
        module = loaded(written(network, GRAPH, inputs)[0], tmp_path, network)
        x, edges = example(GRAPH)
        x[3] = 0
        expected = inputs.normalised((x.numpy(), edges.numpy()))[0]
        torch.testing.assert_close(module.normalise(x), torch.from_numpy(expected))


def test_long_statements_are_broken_without_a_change() -> None:
    words = ["alpha", "beta_gamma", '"a, (b"', "delta[:, ::2]", "f(x)", "{1: 2, 3: g(4)}", "[i for i in range(9) if i]"]
    forms = ["f({})", "[{}]", "(z, {})", "a[{}]", "g(x, key=({}, 1))", "({} + y)"]
    rng = np.random.default_rng(0)

    def term(depth: int) -> str:
        parts = [term(depth - 1) if depth else str(rng.choice(words)) for _ in range(rng.integers(1, 5))]
        return str(rng.choice(forms)).format(", ".join(parts))

    for _ in range(100):
        text = f"{rng.choice(['value = ', 'return ', ''])}{term(2)} + {term(2)}"
        lines = statement(text, " " * 8)
        broken = ast.parse("\n".join(["def h():", "    if x:", *lines]))
        assert len(lines) > 1
        assert ast.dump(broken) == ast.dump(ast.parse(f"def h():\n if x:\n  {text}"))


def test_names_of_modules() -> None:
    names = {stem: module_name(stem) for stem in ("digits-20", "20", "class", "a.b c", "größe")}
    assert names == {
        "digits-20": "digits_20",
        "20": "model_20",
        "class": "model_class",
        "a.b c": "a_b_c",
        "größe": "gr__e",
    }
    for text in ("it's", 'a "b" \\ \n \t', "\x00\u2028é"):
        assert ast.literal_eval(literal(text)) == text


def test_what_is_left_out_is_left_out_for_every_block(tmp_path: Path) -> None:
    """A stride that is the kernel goes without saying, but not in a class whose blocks have other kernels."""
    text = """
from torch import nn


class Part(nn.Module):
    def __init__(self, kernel):
        super().__init__()
        self.pool = nn.MaxPool2d(kernel, stride=2)

    def forward(self, x):
        return self.pool(x)


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(Part(2), Part(3))
"""
    network = own_module(text, tmp_path, "part").Net()
    again = loaded(written(network, IMAGES, own=of(sys.modules["part"]))[0], tmp_path, network).load()
    assert torch.equal(again(example(IMAGES)[0]), network(example(IMAGES)[0]))


def test_a_pass_that_differs_in_training_is_not_followed(tmp_path: Path) -> None:
    text = """
from torch import nn


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.activation = lambda x: x * 2

    def forward(self, x):
        return self.activation(x) if self.training else x
"""
    module = own_module(text, tmp_path, "part")
    with pytest.raises(Unwritable, match="known only when it runs"):
        written(module.Part(), IMAGES, own=of(module))


def test_functions_that_are_kept_are_written_where_they_are_called(tmp_path: Path) -> None:
    text = """
from torch import nn


class Made(nn.Identity):
    def forward(self, x):
        return x + 1


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.made, self.layer = Made(), nn.Linear(16, 16)
        self.activation = lambda x: x * 2

    def forward(self, x):
        return self.layer(self.activation(self.made(x)))
"""
    module = own_module(text, tmp_path, "part")
    network = module.Part()
    assert_same(network, loaded(written(network, IMAGES, own=of(module))[0], tmp_path, network).load(), example(IMAGES))


def test_the_check_refuses_all_of_this_program() -> None:
    assert set(PACKAGES) < set(check.REFUSED)
