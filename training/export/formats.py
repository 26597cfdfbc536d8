"""Which formats a network can be exported in, and for which tasks."""

from __future__ import annotations

import keyword
import re
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

    `refusal` says why the other kinds are refused; `brings` are formats that are written with it. One that is not
    `usual` is written where it is asked for.
    """

    suffix: str
    kinds: frozenset[str] | None = None
    refusal: str = ""
    brings: tuple[str, ...] = ()
    usual: bool = True

    def file(self, stem: str) -> str:
        """The name of the file; that of a Python file can be imported."""
        return f"{module_name(stem) if self.suffix == '.py' else stem}{self.suffix}"


def module_name(stem: str) -> str:
    """A name that Python can import: `digits-20` is `digits_20`."""
    name = re.sub(r"\W", "_", stem, flags=re.ASCII)
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"model_{name}"


_UNTRACED = "its program would be frozen at one input size: which dimensions change is described for {known} only"

FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", frozenset(SIGNATURES), _UNTRACED),
    "pt2": Format(".pt2", frozenset(SIGNATURES), _UNTRACED),
    "safetensors": Format(".safetensors", brings=("json",)),
    "json": Format(".json"),
    "python": Format(".py", brings=("safetensors", "json"), usual=False),
}


def check_formats(formats: Sequence[str], task: Task) -> tuple[str, ...]:
    """The formats to write, each once, in the table's order; weights bring the architecture they belong to, Python
    brings its weights.

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
    wanted = {*formats, *(brought for name in formats for brought in FORMATS[name].brings)}
    return tuple(name for name in FORMATS if name in wanted)


def available(task: Task) -> tuple[str, ...]:
    """The formats that are written for the task where none is asked for."""
    return tuple(
        name for name, form in FORMATS.items() if form.usual and (form.kinds is None or task.kind in form.kinds)
    )
