"""What goes into each file, as bytes. The only code that knows the exporters."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from nas_core.errors import UsageError
from nas_core.traits import NotExportable
from training.export.formats import Signature

# A protobuf message ends at 2 GiB; some of it is the graph.
ONNX_LIMIT = 2_000_000_000


def trace(network: nn.Module, example: tuple[Tensor, ...], signature: Signature) -> ExportedProgram:
    """The network as a program (`torch.export`) whose dimensions named in `signature` stay free.

    Raises UsageError where the network cannot be traced so.
    """
    for module in network.modules():
        if isinstance(module, NotExportable):
            raise UsageError(
                f"onnx and pt2 are not possible: {type(module).__name__} cannot be traced, "
                f"{module.why_not_exportable}\nUse safetensors,json instead."
            )
    shapes = _as_taken(network, [{axis: Dim(name, min=0) for axis, name in axes.items()} for axes in signature.axes])
    with quiet():
        try:
            program = torch.export.export(network, _widened(example, signature), dynamic_shapes=shapes)
        except Exception as error:
            free = ", ".join(dict.fromkeys(name for axes in signature.axes for name in axes.values()))
            hint = "; len(x) and int(...) make a size constant, x.size(0) does not" * ("specialized" in str(error))
            raise UsageError(
                f"onnx and pt2 are not possible: torch.export cannot trace this network with {free} left free "
                f"({type(error).__name__}: {_first_line(error)}{hint})\nUse safetensors,json instead."
            ) from error
    # The user's data and the paths of this machine stay out of the files.
    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def pt2_bytes(program: ExportedProgram, properties: Mapping[str, str]) -> bytes:
    """A `torch.export` archive: graph as JSON, weights as raw bytes, no pickled object; `properties` as extra files."""
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files=dict(properties))
    return buffer.getvalue()


def onnx_bytes(program: ExportedProgram, signature: Signature, properties: Mapping[str, str]) -> bytes:
    """An ONNX model with its weights inside, inputs and free dimensions named as in `signature`, and `properties` in
    its `metadata_props`.

    Raises UsageError for a network too large for one file, or with an operator that ONNX lacks.
    """
    weight = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if weight > ONNX_LIMIT:
        raise UsageError(f"format 'onnx': {weight:,} bytes of weights do not fit one file of 2 GB; use pt2 instead")
    with quiet():
        try:
            converted = torch.onnx.export(
                program,
                (),
                dynamo=True,
                verbose=False,
                input_names=list(signature.inputs),
                output_names=["logits"],
                dynamic_shapes=tuple(dict(axes) for axes in signature.axes),
            )
        except Exception as error:
            raise UsageError(
                f"format 'onnx': this network cannot be converted ({type(error).__name__}: {_first_line(error)})\n"
                "Use pt2 or safetensors,json instead."
            ) from error
        assert converted is not None
        model = converted.model_proto
        for node in model.graph.node:  # the exporter's notes on where it comes from, a fifth of a small file
            del node.metadata_props[:]
        for name, text in properties.items():
            entry = model.metadata_props.add()
            entry.key, entry.value = name, text
        return bytes(model.SerializeToString())


def safetensors_bytes(network: nn.Module) -> bytes:
    """All parameters and buffers by their names in the network; shared ones are written once per name."""
    return safetensors.torch.save({name: tensor.clone().contiguous() for name, tensor in network.state_dict().items()})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' progress, warnings and log lines from the user's terminal, inside the block."""
    before = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


def _as_taken(network: nn.Module, shapes: Sequence[Mapping[int, Any]]) -> tuple[Any, ...]:
    """What is said of each input, those that `forward` takes by `*others` in a tuple of their own."""
    taken = [each.kind for each in inspect.signature(network.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in taken:
        return tuple(shapes)
    place = taken.index(inspect.Parameter.VAR_POSITIONAL)
    return *shapes[:place], tuple(shapes[place:])


def _widened(example: tuple[Tensor, ...], signature: Signature) -> tuple[Tensor, ...]:
    """The example with at least two along every free dimension: torch.export freezes extents of 0 and 1."""
    inputs = []
    for tensor, axes in zip(example, signature.axes, strict=True):
        for axis in axes:
            if tensor.shape[axis] == 0:
                tensor = tensor.new_zeros([2 if d == axis else extent for d, extent in enumerate(tensor.shape)])
            elif tensor.shape[axis] == 1:
                tensor = torch.cat([tensor, tensor], axis)
        inputs.append(tensor)
    return tuple(inputs)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")[:200]
