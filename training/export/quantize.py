"""ONNX programs with weights of 8 or 16 bits, made of the float program that `nas export` writes.

- `int8`: static quantisation by onnxruntime (`QuantizeLinear` and `DequantizeLinear` around operators, QDQ). Weights
are
  int8 with a scale per output channel, in 7 of the 8 bits, so that no sum of two products saturates in the 16 bits of
  processors without VNNI: a file answers alike on all. Activations are uint8, with the range that samples of the
  training part take. Recurrent layers, normalisations and sums over a graph's edges stay float.
- `fp16`: weights are stored as float16 and computed with as float32, because processors emulate half precision: half
  the size, the same speed. What float16 cannot hold stays float32.

Both are functions of the program and the samples: the same in every process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from training.export.write import quiet
from training.quantized import FP16, INT8

if TYPE_CHECKING:
    from numpy.typing import NDArray

Tensors = tuple["NDArray[Any]", ...]

_SCALED = ("QuantizeLinear", "DequantizeLinear")  # their inputs but the first are scales and zero points
_SMALLEST = 16  # values of a tensor that is worth a cast


def quantized(content: bytes, kind: str, batches: Sequence[Tensors]) -> bytes:
    """The ONNX program `content` with smaller numbers; names of inputs and outputs, and what it says of them, stay.

    `batches` are inputs as the program takes them, on which the ranges of activations are observed (`int8`).
    Raises UsageError where there is no weight that could be made smaller.
    """
    import onnx

    model = onnx.load_from_string(content)
    made = _int8(model, batches) if kind == INT8 else _fp16(model)
    if not share(made, kind):
        raise UsageError(
            f"--quantize {kind}: the program has no weight that could be stored in fewer bits (convolutions, linear "
            "maps and products with a matrix have)"
        )
    _shorten(made)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString(deterministic=True))


def share(model: Any, kind: str) -> float:
    """The share of the values of a program's weights that are stored in the smaller type, 0 to 1."""
    from onnx import TensorProto

    small = TensorProto.INT8 if kind == INT8 else TensorProto.FLOAT16
    scaling = {name for node in model.graph.node if node.op_type in _SCALED for name in node.input[1:]}
    weights = [tensor for tensor in model.graph.initializer if tensor.name not in scaling]
    counts = [(int(np.prod(tensor.dims)), tensor.data_type) for tensor in weights]
    stored = (small, TensorProto.FLOAT, TensorProto.INT32)  # biases of 8-bit weights are int32
    total = sum(count for count, kind in counts if kind in stored)
    return sum(count for count, kind in counts if kind == small) / max(1, total)


def _int8(model: Any, batches: Sequence[Tensors]) -> Any:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    names = [entry.name for entry in model.graph.input]

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self.left, None)
            return None if batch is None else dict(zip(names, batch, strict=True))

    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "quantized.onnx"
        quantize_static(
            *(model, path, Reader()),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
        return onnx.load(path)


def _fp16(model: Any) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    limit = float(np.finfo(np.float16).max)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < _SMALLEST or not np.abs(values).max() <= limit:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_{FP16}"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _shorten(model: Any) -> None:
    """Numbers for the names of what is inside: in a small network names, of which quantisation makes many, would be a
    fifth of the file."""
    graph = model.graph
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return  # what is inside of branches and loops refers to names outside
    names = {entry.name: entry.name for entry in (*graph.input, *graph.output)} | {"": ""}
    for tensor in graph.initializer:
        tensor.name = names.setdefault(tensor.name, f"w{len(names)}")
        tensor.doc_string = ""
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.setdefault(end, f"w{len(names)}") for end in ends]
        node.name, node.doc_string = "", ""
        del node.metadata_props[:]
    del graph.value_info[:]
