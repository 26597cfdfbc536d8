"""From what an export knows of a network to the text of its Python file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from nas_core import refs
from nas_core.errors import UsageError
from nas_core.public import public
from nas_core.task import Task
from nas_core.user_files import digest_of, module_of
from training.cost import params
from training.export.card import Card
from training.export.formats import module_name
from training.export.python.by_space import space_source
from training.export.python.module import Source, Subject, network_source
from training.export.python.terms import Unwritable
from training.export.rebuild import Origin
from training.inputs import Inputs

_PACKAGES = ("site-packages", "dist-packages")


def python_source(
    network: nn.Module,
    task: Task,
    inputs: Inputs | None,
    origin: Origin,
    card: Card,
    description: Mapping[str, Any],
    stem: str,
) -> Source:
    """The Python file of a network of a space. Where a user's network cannot be written on its own, the file builds it
    by the user's space, and says why.

    Raises UsageError where a network of a built-in space cannot be written.
    """
    subject = Subject(
        card.title, _about(card, description, params(network)), module_name(stem), f"{stem}.safetensors", task, inputs
    )
    try:
        return network_source(network, subject, copied(origin))
    except Unwritable as reason:
        if origin.file is None:
            raise UsageError(f"format 'python': this network cannot be written: {reason}") from reason
        return space_source(network, subject, origin, description, str(reason))


def copied(origin: Origin) -> Callable[[Any], bool]:
    """Whether a class or function is copied into the file: those of the space's package, or of its file, of files that
    its arguments name and what lies in the same folders, and our layers. Others are imported."""
    files = [*([] if origin.file is None else [origin.file]), *refs.files_in(origin.arguments)]
    roots = {"search_spaces", type(origin.space).__module__.partition(".")[0]}
    roots |= {module_of(digest_of(file)) for file in files}
    folders = {file.resolve().parent for file in files}

    def own(thing: Any) -> bool:
        module = str(getattr(thing, "__module__", None))
        if module.partition(".")[0] in roots:
            return True
        file = getattr(sys.modules.get(module), "__file__", None)
        if not file:
            return False
        path = Path(file).resolve()
        return not folders.isdisjoint(path.parents) and not any(part in path.parts for part in _PACKAGES)

    return own


def _about(card: Card, description: Mapping[str, Any], count: int) -> tuple[str, ...]:
    architecture = f"Architecture {description['key']} of the space {public(card.space)}"
    size = ", ".join(f"{name}={value}" for name, value in description["size"].items())
    notation = description["notation"] or ", ".join(
        f"{name}={value}" for name, value in description["architecture"]["values"].items()
    )
    metrics = ", ".join(f"{metric.name} {metric.value:.4g}" for metric in card.metrics)
    return (
        *([card.summary] if card.summary else []),
        f"{architecture}{f', size {size}' if size else ''}; {count:,} parameters:",
        notation,
        *([f"Measured: {metrics}."] if metrics else []),
    )
