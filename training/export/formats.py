"""Which formats a network can be exported in, for which tasks, and what each needs installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas_core.errors import MachineError, UsageError, unknown
from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, Task


@dataclass(frozen=True, slots=True)
class Signature:
    """The names of a network's inputs and, for each, which dimensions may change and what they count."""

    inputs: tuple[str, ...]
    axes: tuple[Mapping[int, str], ...]


SIGNATURES: Mapping[str, Signature] = {
    IMAGE_CLASSIFICATION: Signature(("image",), ({0: "batch"},)),
    NODE_CLASSIFICATION: Signature(("x", "edge_index"), ({0: "nodes"}, {1: "edges"})),
}


@dataclass(frozen=True, slots=True)
class Format:
    """One file format: its suffix, the task kinds it supports (None: every kind) and the packages it needs.

    `refusal` says why the other kinds are refused.
    """

    suffix: str
    kinds: frozenset[str] | None = None
    refusal: str = ""
    packages: tuple[str, ...] = ()


_UNTRACED = "its program would be frozen at one input size: which dimensions change is described for {known} only"

FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", frozenset(SIGNATURES), _UNTRACED, ("onnx", "onnxscript", "onnxruntime")),
    "pt2": Format(".pt2", frozenset(SIGNATURES), _UNTRACED),
    "safetensors": Format(".safetensors"),
    "json": Format(".json"),
}


def check_formats(formats: Sequence[str], task: Task) -> tuple[str, ...]:
    """The formats to write, each once, in the table's order; weights bring the architecture they belong to.

    Raises UsageError for no format, an unknown one, or one that does not support the task; MachineError
    where a package is missing.
    """
    if not formats:
        raise UsageError(f"no export format given; choose from {', '.join(FORMATS)}")
    for name in formats:
        if name not in FORMATS:
            raise unknown("export format", name, FORMATS)
        form = FORMATS[name]
        if form.kinds is not None and task.kind not in form.kinds:
            reason = form.refusal.format(known=" and ".join(sorted(form.kinds)))
            raise UsageError(f"format '{name}' does not support {task.kind}: {reason}\nUse safetensors,json instead.")
    missing = [package for name in formats for package in FORMATS[name].packages if not _installed(package)]
    if missing:
        raise MachineError(f"format 'onnx' needs {', '.join(missing)}, not installed here: pip install 'nas[onnx]'")
    wanted = {*formats, "json"} if "safetensors" in formats else set(formats)
    return tuple(name for name in FORMATS if name in wanted)


def available(task: Task) -> tuple[str, ...]:
    """The formats that this installation can write for the task."""
    return tuple(
        name
        for name, form in FORMATS.items()
        if (form.kinds is None or task.kind in form.kinds) and all(map(_installed, form.packages))
    )


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
