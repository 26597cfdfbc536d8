"""Networks written as Python: one readable file that computes what the network does, and knows nothing of a search."""

from __future__ import annotations

import ast
import importlib.util
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
from torch import Tensor, nn

from nas_cli.packages import PACKAGES
from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.moves import sample
from nas_core.space import HasNamed, SearchSpace
from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, Task
from search_spaces import BUILTIN, GROUP
from training.export.python import check
from training.export.python.module import Subject, network_source
from training.inputs import Inputs

IMAGES = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 16, 16), outputs=5)
LARGE = Task(kind=IMAGE_CLASSIFICATION, input_shape=(1, 40, 40), outputs=3)
GRAPH = Task(kind=NODE_CLASSIFICATION, input_shape=(12,), outputs=4, nodes=30, edges=80)

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
    ("nasbench_graph", GRAPH, {"hidden": 8, "dropout": 0.0}, 12),
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
    if task.kind == IMAGE_CLASSIFICATION:
        return (torch.randn(3, *task.input_shape, generator=generator),)
    # Loops, edges that occur twice, nodes without edges, and directed ones.
    edges = torch.randint(0, 24, (2, 80), generator=generator)
    return torch.rand(30, *task.input_shape, generator=generator), edges


def written(
    network: nn.Module, task: Task, inputs: Inputs | None = None, own: Callable[[Any], bool] = ours
) -> tuple[str, tuple[str, ...]]:
    subject = Subject("A network", ("Of a test.",), "net", "net.safetensors")
    source = network_source(network, task, inputs, subject, own)
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


def assert_same(network: nn.Module, again: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """The same state, the same answers, and in training the same loss, gradients and running statistics."""
    state, other = network.state_dict(), again.state_dict()
    assert list(state) == list(other)
    assert all(torch.equal(tensor, other[name]) for name, tensor in state.items())
    with torch.inference_mode():
        torch.testing.assert_close(again(*inputs), network.eval()(*inputs), rtol=1e-5, atol=1e-6)
    losses = []
    for each in (network.train(), again.train()):
        torch.manual_seed(0)
        answer = each(*inputs)
        parts = answer if isinstance(answer, tuple) else (answer,)
        loss = sum(part.square().mean() for part in parts)
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)
    theirs = dict(again.named_parameters())
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(theirs[name].grad, parameter.grad, rtol=1e-3, atol=1e-5, msg=name)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


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
    words = re.findall(r"\b(?:Features|Links|Mixed|Pick|route|style|supernet|once)\b", text)
    assert words == []
    parts = {target for name, node in classes_of(text).items() for target in _parts(node)}
    assert all(f"self.{part}" in text.replace(f"self.{part} = ", "", 1) for part in parts)


def _parts(node: ast.ClassDef) -> Iterator[str]:
    for each in ast.walk(node):
        if not isinstance(each, ast.Assign) or not isinstance(each.targets[0], ast.Attribute):
            continue
        # A weight that takes no part is still one of the network: `recurrent` of ARMA, norms of raw nodes.
        if not re.search("nn.Parameter|BatchNorm", ast.unparse(each.value)):
            yield each.targets[0].attr


@pytest.mark.parametrize(("reference", "task", "size", "count"), DRAWN, ids=lambda value: str(value)[:40])
def test_drawn_architectures_of_every_space(
    reference: str, task: Task, size: dict[str, Any], count: int, tmp_path: Path
) -> None:
    space, rng = space_of(reference), np.random.default_rng(7)
    for _ in range(count):
        arch = sample(space, rng)
        torch.manual_seed(0)
        network = disturbed(space.build(arch, task, space.Size(**size)))
        text, needs = written(network, task)
        assert needs == (("torch",) if task is not GRAPH else needs)
        assert set(needs) <= {"torch", "torch-geometric"}
        assert_readable(text)
        assert_same(network, loaded(text, tmp_path, network).load(), example(task))


def _named() -> Iterator[tuple[str, str, SearchSpace, Architecture, dict[str, Any]]]:
    sizes = {
        "darts": {"channels": 4, "layers": 5, "drop_path": 0.2, "auxiliary": True},
        "nasnet": {"cells": 1, "filters": 48, "stem_filters": 6, "drop_path": 0.4, "auxiliary": True},
    }
    for reference, size in sizes.items():
        space = space_of(reference)
        assert isinstance(space, HasNamed)
        for name, arch in space.named.items():
            yield reference, name, space, arch, size


def test_every_file_runs_where_this_program_is_unknown(tmp_path: Path) -> None:
    """One of every space and all published cells, in a process that can import none of our packages."""
    cases = []
    for reference, task, size, _ in DRAWN:
        space = space_of(reference)
        cases.append((space.build(sample(space, np.random.default_rng(1)), task, space.Size(**size)), task))
    cases += [(space.build(arch, IMAGES, space.Size(**size)), IMAGES) for _, _, space, arch, size in _named()]
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
    network = check._load(folder + "/net.py").load()
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
