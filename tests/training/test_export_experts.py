"""Programs (ONNX, `torch.export`) of networks of experts, one per router: all experts are in them, for any batch."""

from __future__ import annotations

import io
import zlib

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from nas_core import moves
from nas_core.task import TABULAR_REGRESSION, Task, image_task, multi_task, table_task, text_task
from search_spaces.counter import params
from search_spaces.layers.moe import MixtureOfExperts
from search_spaces.moe import Moe, Size
from training.export.formats import signature_of
from training.export.write import onnx_bytes, pt2_bytes, trace
from training.tasks import kind_of
from training.tasks.multi_task import DIGITS

TASKS: dict[str, Task] = {
    "table": table_task(TABULAR_REGRESSION, (1,) * 5 + (3,), 1, "rmse"),
    "text": text_task(12, 7, "bpc"),
    "patches": image_task((1, 8, 8), 10),
    "tasks": multi_task((1, 8, 8), DIGITS),
}
SPACES = {backbone: Moe(backbone) for backbone in TASKS}
ROUTERS = tuple(SPACES["tasks"].routers)
KINDS = tuple(SPACES["tasks"].kinds)


def drawn() -> list[tuple[str, str, str]]:
    """Every router in a backbone that gives it what it needs, with experts of a kind: backbones and kinds in turn."""
    found = []
    for place, router in enumerate(ROUTERS):
        able = [backbone for backbone, space in SPACES.items() if router in space.routers]
        found.append((able[place % len(able)], router, KINDS[place % len(KINDS)]))
    assert {backbone for backbone, _, _ in found} == set(SPACES)
    assert {kind for _, _, kind in found} == set(KINDS)
    return found


def built(backbone: str, router: str, kind: str) -> nn.Module:
    """A dense block and one of experts, with a shared one, and weights unlike new ones."""
    space = SPACES[backbone]
    dense = {f"block1/{place}": "dense" for place in space.backbone.places}
    wanted = {"ffn": router, "depth": 2, "experts": 4, "expert": kind, "shared": 1, **dense}
    arch = moves.complete(space, wanted, moves.first)
    assert wanted.items() <= arch.values.items()
    torch.manual_seed(zlib.crc32(router.encode()))
    network = space.build(arch, TASKS[backbone], Size(width=8)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def given(backbone: str, batch: int) -> tuple[Tensor, ...]:
    task = TASKS[backbone]
    return kind_of(task).sample_inputs(task, batch, torch.Generator().manual_seed(batch))


@torch.inference_mode()
def answers(model: bytes, inputs: tuple[Tensor, ...]) -> Tensor:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return torch.from_numpy(session.run(None, feed)[0])


def check(backbone: str, router: str, kind: str) -> None:
    network, signature = built(backbone, router, kind), signature_of(TASKS[backbone])
    of_experts = [module for module in network.modules() if isinstance(module, MixtureOfExperts)]
    experts = sum(params(layer.experts) for layer in of_experts)
    assert experts > 0
    program = trace(network, given(backbone, 2), signature)
    model, archive = onnx_bytes(program, signature, {}), pt2_bytes(program, {})
    assert sum(torch.Size(tensor.dims).numel() for tensor in onnx.load_from_string(model).graph.initializer) > experts
    loaded = torch.export.load(io.BytesIO(archive)).module()
    for batch in (1, 5):
        inputs = given(backbone, batch)
        with torch.inference_mode():
            expected = network(*inputs)
            scale = float(expected.abs().max())
            for answer in (loaded(*inputs), answers(model, inputs)):
                assert answer.shape == expected.shape
                assert float((answer - expected).abs().max()) <= 1e-4 * scale


def test_programs_of_a_network_of_experts() -> None:
    check("table", "noisy-top-k", "gelu")


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "router", "kind"), drawn())
def test_programs_with_every_router(backbone: str, router: str, kind: str) -> None:
    check(backbone, router, kind)
