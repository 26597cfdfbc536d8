"""A quantised program beside the float one that it was made of: what it answers, its size, its speed."""

from __future__ import annotations

import copy
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nas_core.batch import Batch, Data
from nas_core.errors import Notice
from nas_core.task import Task
from training.data.loading import Loading
from training.data.protocol import Source
from training.export import verify
from training.export.formats import EVERY, signature_of
from training.export.normalise import normalised
from training.export.quantize import quantized, share
from training.export.write import onnx_bytes, trace
from training.infer.model import properties
from training.inputs import Inputs
from training.quantized import FLOAT
from training.tasks import kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

Tensors = tuple["NDArray[Any]", ...]

BATCH = 64
CALIBRATED = 8  # batches of the training part that ranges of activations are observed on
PAIRS = 200  # passes of each program, in turn
SECONDS = 2.0  # of measuring, at most
LEAST = 0.98
"""The agreement below which a line says so."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """The file of a program, and what it is worth: `int8_val_accuracy` beside `float_val_accuracy` and so on."""

    path: Path
    metrics: Mapping[str, float]


def float_program(network: nn.Module, source: Source) -> bytes:
    """The ONNX program of a network for inputs as `nas infer` reads them. Raises UsageError where it cannot be
    written."""
    return _program(_on_cpu(network), source, _data(source))


def quantize(network: nn.Module, source: Source, kind: str, folder: Path) -> Quantized:
    """Write a trained network as a quantised ONNX program, `folder/quantized.KIND.onnx`, that normalises inside.

    Float and quantised program are run by a fresh process, the first held against the network (`verify.TOLERANCE`);
    the second is judged by its answers to the parts "valid" and "test": metrics of the task, as `int8_val_accuracy`,
    and on "test" `int8_agreement`, how alike the two answer (`Kind.agreement`); `int8_share` of the weights are in the
    smaller type. Bytes of both files, and the median milliseconds of a pass with one sample and one thread by
    onnxruntime, float and quantised in turn. The quantised program is slower where the processor has no instructions
    for 8 bits, or where operators between whole numbers and floats take longer than they save.

    Warns (`Notice`) of an agreement below `LEAST`. Raises UsageError for a network that cannot be written as ONNX or
    has nothing to quantise, VerificationError where a program does not answer.
    """
    task, inputs, data = source.task, _inputs(source), _data(source)
    network = _on_cpu(network)
    content = _program(network, source, data)
    smaller = quantized(content, kind, _seen(data, inputs, CALIBRATED))
    folder.mkdir(parents=True, exist_ok=True)
    files = {"onnx": content, kind: smaller}
    paths = {name: folder / EVERY[name].file("quantized") for name in files}
    for name, path in paths.items():
        path.write_bytes(files[name])
    cases = verify.cases(normalised(network, inputs), task, _example(data, inputs))
    verify.verify(folder, "quantized", tuple(files), cases, network)
    for left in (paths["onnx"], folder / verify.CASES):
        left.unlink()
    first, second = Program(content), Program(smaller)
    metrics, agreement = _answers(data, task, inputs, {FLOAT: first, kind: second})
    slow, fast = latencies((first, second), tuple(tensor.numpy() for tensor in _example(data, inputs, 1)))
    if not agreement >= LEAST:
        warnings.warn(
            f"the {kind} program agrees with the float one on {agreement:.1%} of the test part only; its metrics say "
            "whether that matters",
            Notice,
            stacklevel=2,
        )
    return Quantized(
        paths[kind],
        {
            **metrics,
            f"{kind}_agreement": agreement,
            f"{kind}_share": share_of(smaller, kind),
            f"{FLOAT}_bytes": float(len(content)),
            f"{kind}_bytes": float(len(smaller)),
            f"{FLOAT}_latency_ms": slow,
            f"{kind}_latency_ms": fast,
        },
    )


class Program:
    """An ONNX program run by onnxruntime on the CPU with one thread: inputs as `nas infer` reads them to [n,
    outputs]."""

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._names = [entry.name for entry in self._session.get_inputs()]

    def __call__(self, tensors: Tensors) -> NDArray[Any]:
        answer: NDArray[Any] = self._session.run(None, dict(zip(self._names, tensors, strict=True)))[0]
        return answer


def latencies(programs: Sequence[Program], given: Tensors) -> list[float]:
    """The median milliseconds of each on the same inputs. They take turns, so that what else the machine does meets
    all of them; the first passes do not count."""
    for program in programs:
        for _ in range(3):
            program(given)
    times: list[list[float]] = [[] for _ in programs]
    end = time.perf_counter() + SECONDS
    while len(times[0]) < PAIRS and (time.perf_counter() < end or not times[0]):
        for program, taken in zip(programs, times, strict=True):
            begun = time.perf_counter()
            program(given)
            taken.append((time.perf_counter() - begun) * 1e3)
    return [statistics.median(taken) for taken in times]


def share_of(content: bytes, kind: str) -> float:
    """The share of the weights of a quantised program that are in the smaller type."""
    import onnx

    return share(onnx.load_from_string(content), kind)


def _on_cpu(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).cpu().eval().to(memory_format=torch.contiguous_format)


def _data(source: Source) -> Data:
    return source.bind("cpu", Loading(batch_size=BATCH))


def _inputs(source: Source) -> Inputs | None:
    return getattr(source, "inputs", None)  # a source of a class of one's own may not say


def _seen(data: Data, inputs: Inputs | None, count: int) -> list[Tensors]:
    """Batches of the training part, as a program gets them."""
    return [_given(batch, inputs) for batch in islice(data.batches("train", 0, 0), count)]


def _example(data: Data, inputs: Inputs | None, samples: int = 2) -> tuple[Tensor, ...]:
    """So many samples of the training part; of a graph, all of it."""
    (seen,) = _seen(data, inputs, 1)
    return tuple(map(torch.from_numpy, kind_of(data.task).first(seen, samples)))


def _program(network: nn.Module, source: Source, data: Data) -> bytes:
    inputs, signature = _inputs(source), signature_of(source.task)
    program = trace(normalised(network, inputs), _example(data, inputs), signature)
    return onnx_bytes(program, signature, properties(inputs, raw=False))


def _given(batch: Batch, inputs: Inputs | None) -> Tensors:
    """The inputs of a batch as a program gets them, which normalises them itself."""
    tensors = tuple(tensor.contiguous().numpy() for tensor in batch.inputs)
    return tensors if inputs is None else inputs.restored(tensors)


def _answers(
    data: Data, task: Task, inputs: Inputs | None, programs: Mapping[str, Program]
) -> tuple[dict[str, float], float]:
    """The metrics of the programs on "valid" and "test" by their names, and how alike the two answer on "test"."""
    kind, metrics = kind_of(task), dict[str, float]()
    for part, word in (("valid", "val"), ("test", "test")):
        outputs: dict[str, list[Tensor]] = {name: [] for name in programs}
        targets = []
        for batch in data.batches(part, 0, 0):
            given = _given(batch, inputs)
            for name, program in programs.items():
                answer, target = batch.answered(torch.from_numpy(program(given)))
                outputs[name].append(answer)
            targets.append(target)
        found = {name: torch.cat(parts) for name, parts in outputs.items()}
        for name, answer in found.items():
            for metric in kind.metrics_of(task):
                value = metric.function(answer, torch.cat(targets))
                metrics[f"{name}_{word}_{metric.name}"] = float(value.double().mean() if metric.per_sample else value)
    return metrics, kind.agreement(*found.values())
