"""Quantised programs of every kind of task: small, the same in every process, judged by what they answer."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from nas_core.architecture import Architecture
from nas_core.errors import Notice, UsageError
from training import tasks
from training.data.loading import Loading
from training.data.source import Source
from training.data.split import Split
from training.export import compared
from training.export.formats import QUANTIZED, check_formats
from training.export.proof import proofs_of
from training.export.quantize import quantized, share
from training.fit import fit
from training.infer import classify, open_model
from training.networks import build
from training.quantized import FP16, INT8
from training.recipe import recipe
from training.testing.toy_space import ToySpace

ARCH = Architecture("toy", {"width": 32})
pytestmark = pytest.mark.usefixtures("forked_checks")


@cache
def trained(name: str) -> tuple[nn.Module, Source]:
    kind = tasks.find(name)
    source = kind.embedded(Split(limit=300 if kind.apart else None))
    assert source is not None
    space = ToySpace(kinds=(name,))
    network = build(space, ARCH, source.task, space.Size(), 0)
    plan = recipe("quick", source.task, epochs=5)
    data = source.bind("cpu", Loading(batch_size=plan.batch_size))
    *_, _ = fit(network, data, plan, device=torch.device("cpu"), seed=0)
    return network.eval(), source


# Kinds with the inputs of another one.
ALIKE = ("link-prediction", "graph-classification", "inductive-node-classification", "tabular-classification")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in tasks.names()]
)
def test_every_kind_of_network_is_quantised(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compared, "SECONDS", 0.05)
    network, source = trained(name)
    kind = tasks.kind_of(source.task)
    first = kind.metrics_of(source.task)[0]
    found = compared.quantize(network, source, INT8, tmp_path)
    metrics = found.metrics
    assert metrics["int8_agreement"] >= 0.9
    assert metrics["int8_bytes"] == found.path.stat().st_size
    counts = [(weight.dim() > 1, weight.numel()) for weight in network.parameters()]
    matrices = sum(count for matrix, count in counts if matrix) / sum(count for _, count in counts)
    assert metrics["int8_share"] > 0.95 * matrices  # biases of a small network are a part of it
    assert min(metrics["float_latency_ms"], metrics["int8_latency_ms"]) > 0
    # The float program is the network.
    with torch.no_grad():
        batches = list(source.bind("cpu", Loading(batch_size=64)).batches("test", 0, 0))
        pairs = [batch.answered(network(*batch.inputs)) for batch in batches]
    outputs, targets = (torch.cat(column) for column in zip(*pairs, strict=True))
    value = first.function(outputs, targets)
    value = float(value.double().mean() if first.per_sample else value)
    assert metrics[f"float_test_{first.name}"] == pytest.approx(value, rel=1e-4)
    program = compared.Program(found.path.read_bytes())
    given = [source.inputs.restored(tuple(one.numpy() for one in batch.inputs)) for batch in batches]
    answers = [batch.answered(torch.from_numpy(program(one)))[0] for batch, one in zip(batches, given, strict=True)]
    assert metrics["int8_agreement"] == pytest.approx(kind.agreement(outputs, torch.cat(answers)), abs=1e-4)
    # What is in the file answers a file of the data as 'nas infer' asks it.
    model = open_model(found.path)
    assert model.inside
    assert model.inputs == source.inputs
    proof = proofs_of(source)[0]
    (tmp_path / proof.name).write_bytes(proof.content)
    assert classify(model, proof.argument.format(tmp_path))[0]
    assert [path.name for path in tmp_path.glob("*.onnx")] == ["quantized.int8.onnx"]


def test_agreement_is_of_classes_or_of_numbers() -> None:
    one, other = torch.tensor([[1.0, 2], [3, 1], [0, 1]]), torch.tensor([[2.0, 1], [5, 1], [0, 9]])
    assert tasks.find("image-classification").agreement(one, other) == pytest.approx(2 / 3)
    numbers, near = torch.tensor([[0.0], [2]]), torch.tensor([[0.0], [1]])
    assert tasks.find("tabular-regression").agreement(numbers, near) == pytest.approx(0.5)
    assert tasks.find("tabular-regression").agreement(numbers[:1], numbers[:1]) == 1


class Wide(nn.Module):
    """A convolution and two linear maps: 20,800 weights in all."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 16, 3, padding=1), nn.Linear(16, 256)
        self.last = nn.Linear(256, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.second(self.first(x).relu().mean((2, 3))).relu())


@cache
def program() -> bytes:
    from training.export.formats import Signature
    from training.export.write import onnx_bytes, trace

    torch.manual_seed(0)
    signature = Signature(("image",), ({0: "batch"},))
    return onnx_bytes(trace(Wide().eval(), (torch.rand(2, 1, 8, 8),), signature), signature, {"inputs": "kept"})


def batches(count: int = 4) -> list[tuple[np.ndarray, ...]]:
    return [(np.random.default_rng(number).random((16, 1, 8, 8), np.float32),) for number in range(count)]


def run(content: bytes, given: np.ndarray) -> np.ndarray:
    answer: np.ndarray = compared.Program(content)((given,))
    return answer


def test_int8_is_qdq_with_a_scale_per_channel_and_seven_bits() -> None:
    content = quantized(program(), INT8, batches())
    model = onnx.load_from_string(content)
    operators = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= operators
    assert not any("Integer" in name or name.startswith("QLinear") for name in operators)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = [
        (tensors[node.input[0]], tensors[node.input[1]])
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and getattr(tensors.get(node.input[0]), "dtype", None) == np.int8
    ]
    assert {scale.size for _, scale in weights} == {16, 256, 64}  # output channels
    assert max(abs(weight.astype(int)).max() for weight, _ in weights) == 64  # saturates nowhere without VNNI
    assert share(model, INT8) > 0.9
    assert [(entry.key, entry.value) for entry in model.metadata_props if entry.key == "inputs"] == [("inputs", "kept")]
    assert [entry.name for entry in (*model.graph.input, *model.graph.output)] == ["image", "logits"]
    assert len(content) < 0.4 * len(program())
    (given,) = batches(9)[-1]
    wanted = run(program(), given)
    assert np.abs(run(content, given) - wanted).max() < 0.03 * np.abs(wanted).max()


def test_fp16_stores_halves_and_computes_in_float() -> None:
    content = quantized(program(), FP16, [])
    model = onnx.load_from_string(content)
    assert share(model, FP16) > 0.99
    assert len(content) < 0.52 * len(program())
    assert [entry.type.tensor_type.elem_type for entry in (*model.graph.input, *model.graph.output)] == [
        TensorProto.FLOAT
    ] * 2
    (given,) = batches(1)[0]
    wanted = run(program(), given)
    assert np.abs(run(content, given) - wanted).max() < 1e-3 * np.abs(wanted).max()


def test_what_half_precision_cannot_hold_stays() -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("MatMul", ["y", "v"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 8])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [None, 8])],
        [
            numpy_helper.from_array(np.full((8, 8), 1e6, np.float32), "w"),
            numpy_helper.from_array(np.full((8, 8), 0.5, np.float32), "v"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    content = quantized(model.SerializeToString(), FP16, [])
    assert share(onnx.load_from_string(content), FP16) == 0.5
    given = np.ones((1, 8), np.float32)
    assert run(content, given) == pytest.approx(np.full((1, 8), 8e6 * 4))


def test_what_has_no_weights_cannot_be_quantised() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 4])],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    for kind in QUANTIZED:
        with pytest.raises(UsageError, match=f"--quantize {kind}: the program has no weight that could be stored"):
            quantized(content, kind, [(np.ones((2, 4), np.float32),)])


def test_quantisation_is_a_function_of_program_and_samples(tmp_path: Path) -> None:
    """Also where strings hash otherwise."""
    (tmp_path / "program.onnx").write_bytes(program())
    code = (
        "import sys, hashlib, numpy as np\n"
        "from training.export.quantize import quantized\n"
        "given = [(np.random.default_rng(n).random((16, 1, 8, 8), np.float32),) for n in range(4)]\n"
        "print(hashlib.sha256(quantized(open(sys.argv[1], 'rb').read(), 'int8', given)).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "program.onnx")],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == hashlib.sha256(quantized(program(), INT8, batches())).hexdigest()


def test_few_agreements_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compared, "LEAST", 1.01)
    monkeypatch.setattr(compared, "SECONDS", 0.01)
    network, source = trained("tabular-classification")
    with pytest.warns(Notice, match="the fp16 program agrees with the float one on"):
        metrics = compared.quantize(network, source, FP16, tmp_path).metrics
    assert metrics["fp16_test_accuracy"] == pytest.approx(metrics["float_test_accuracy"], abs=0.03)
    assert metrics["fp16_bytes"] < metrics["float_bytes"]


def test_formats_of_quantised_programs_are_those_that_there_are() -> None:
    task = tasks.find("image-classification").example
    assert check_formats(["int8", "onnx"], task, ("int8",)) == ("onnx", "int8")
    with pytest.raises(UsageError, match="format 'fp16': it was not quantised so"):
        check_formats(["fp16"], task, ("int8",))
