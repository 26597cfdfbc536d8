"""Which formats a network can be exported in, and for which tasks."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nas_core.errors import UsageError, unknown
from nas_core.task import Task
from training import tasks
from training.quantized import KINDS


@dataclass(frozen=True, slots=True)
class Signature:
    """The names of a network's inputs and, for each, which dimensions may change and what they count."""

    inputs: tuple[str, ...]
    axes: tuple[Mapping[int, str], ...]


def signature_of(task: Task) -> Signature:
    """The inputs that the task names, with the free dimensions that its kind names; some may not be given."""
    return Signature(tuple(each.name for each in task.inputs), tasks.kind_of(task).axes_of(task))


@dataclass(frozen=True, slots=True)
class Format:
    """One file format: its suffix, and whether it is a `traced` program, for which a kind of task must say which
    dimensions of its inputs change.

    `brings` are formats that are written with it. One that is not `usual` is written where it is asked for.
    """

    suffix: str
    traced: bool = False
    brings: tuple[str, ...] = ()
    usual: bool = True

    def file(self, stem: str) -> str:
        """The name of the file; that of a Python file can be imported."""
        return f"{module_name(stem) if self.suffix == '.py' else stem}{self.suffix}"


def module_name(stem: str) -> str:
    """A name that Python can import: `digits-20` is `digits_20`."""
    name = re.sub(r"\W", "_", stem, flags=re.ASCII)
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"model_{name}"


FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", traced=True),
    "pt2": Format(".pt2", traced=True),
    "safetensors": Format(".safetensors", brings=("json",)),
    "json": Format(".json"),
    "python": Format(".py", brings=("safetensors", "json"), usual=False),
}

QUANTIZED: Mapping[str, Format] = {kind: Format(f".{kind}.onnx", traced=True, usual=False) for kind in KINDS}
"""ONNX programs with smaller numbers that `nas compress --quantize` has left: they answer nearly as the network
does."""

EVERY: Mapping[str, Format] = {**FORMATS, **QUANTIZED}


def check_formats(formats: Sequence[str], task: Task, quantized: Collection[str] = ()) -> tuple[str, ...]:
    """The formats to write, each once, in the table's order; weights bring the architecture they belong to, Python
    brings its weights. `quantized` are those of `QUANTIZED` that there are.

    Raises UsageError for no format, an unknown one, one that does not support the task, or one that there is not.
    """
    if not formats:
        raise UsageError(f"no export format given; choose from {', '.join((*FORMATS, *quantized))}")
    for name in formats:
        if name not in EVERY:
            raise unknown("export format", name, EVERY)
        if name in QUANTIZED and name not in quantized:
            raise UsageError(
                f"format '{name}': it was not quantised so; run 'nas compress ... --quantize {name}' first"
            )
        if EVERY[name].traced and task.kind not in tasks.names():
            raise UsageError(
                f"format '{name}' does not support {task.kind}: its program would be frozen at one input size: which "
                f"dimensions change is described for {' and '.join(sorted(tasks.names()))} only\n"
                "Use safetensors,json instead."
            )
    wanted = {*formats, *(brought for name in formats for brought in EVERY[name].brings)}
    return tuple(name for name in EVERY if name in wanted)


def check_quantized(kind: str, task: Task) -> None:
    """Raises UsageError for what is no way to quantise, or where a task's networks cannot be written as ONNX."""
    if kind not in QUANTIZED:
        raise unknown("quantisation", kind, QUANTIZED)
    check_formats(["onnx"], task)


def available(task: Task) -> tuple[str, ...]:
    """The formats that are written for the task where none is asked for."""
    known = task.kind in tasks.names()
    return tuple(name for name, form in FORMATS.items() if form.usual and (known or not form.traced))
