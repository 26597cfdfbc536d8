"""Networks without half of their units as ONNX programs: onnxruntime answers as they do."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from compressors.comparison import difference
from nas_core.task import Task
from tests.compressors import test_groups, test_groups_of_spaces
from tests.compressors.networks import NETWORKS
from tests.compressors.test_groups import halved
from tests.compressors.test_groups_of_spaces import IMAGES, SMALL
from training.export.formats import Signature, signature_of
from training.export.verify import TOLERANCE
from training.export.write import onnx_bytes, trace
from training.tasks import kind_of

USUAL = "lstm"
"""Of the networks written by hand; the others are slow, since an export takes seconds."""


def answered(network: nn.Module, task: Task, inputs: tuple[Tensor, ...], signature: Signature) -> None:
    """The program answers inputs of several sizes as the network does."""
    content = onnx_bytes(trace(network, inputs, signature), signature, {})
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for given in kind_of(task).variants(inputs).values():
        answer, *_ = session.run(None, {name: one.numpy() for name, one in zip(signature.inputs, given, strict=True)})
        with torch.no_grad():
            assert difference(torch.from_numpy(answer), network(*given)) <= TOLERANCE


@pytest.mark.parametrize(
    "name", [name if name == USUAL else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_networks_written_by_hand(name: str) -> None:
    network, inputs = test_groups.made(name)
    smaller = halved(network, test_groups.traced(name))
    answered(smaller, IMAGES, inputs, Signature(("x",), ({0: "batch"},)))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(test_groups_of_spaces.DRAWN))
@pytest.mark.parametrize("space", SMALL)
def test_architectures(space: str, number: int) -> None:
    task, _ = SMALL[space]
    network, inputs, groups = test_groups_of_spaces.traced(space, number)
    answered(halved(network, groups), task, inputs, signature_of(task))
