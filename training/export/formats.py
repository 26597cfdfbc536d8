"""Which formats a network can be exported in, and for which tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas_core.errors import UsageError, unknown
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
    """One file format: its suffix, and the task kinds it supports (None: every kind).

    `refusal` says why the other kinds are refused.
    """

    suffix: str
    kinds: frozenset[str] | None = None
    refusal: str = ""


_UNTRACED = "its program would be frozen at one input size: which dimensions change is described for {known} only"

FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", frozenset(SIGNATURES), _UNTRACED),
    "pt2": Format(".pt2", frozenset(SIGNATURES), _UNTRACED),
    "safetensors": Format(".safetensors"),
    "json": Format(".json"),
}


def check_formats(formats: Sequence[str], task: Task) -> tuple[str, ...]:
    """The formats to write, each once, in the table's order; weights bring the architecture they belong to.

    Raises UsageError for no format, an unknown one, or one that does not support the task.
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
    wanted = {*formats, "json"} if "safetensors" in formats else set(formats)
    return tuple(name for name in FORMATS if name in wanted)


def available(task: Task) -> tuple[str, ...]:
    """The formats that there are for the task."""
    return tuple(name for name, form in FORMATS.items() if form.kinds is None or task.kind in form.kinds)
