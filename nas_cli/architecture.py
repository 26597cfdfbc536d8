"""`nas show --architecture`: an architecture without a study, by its published name or by its space's notation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nas_cli import describe, render
from nas_cli.draw import draw
from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.errors import UsageError, nearest, unknown
from nas_core.space import HasCosts, HasNamed, HasNotation, SearchSpace
from nas_core.task import Task


def show(reference: str, as_json: bool) -> None:
    """Print an architecture: its notation, drawing, choices, and costs at every size of its space."""
    from studies.setup.spaces import load_space
    from training.tasks import all_kinds

    space_name, architecture = split(reference)
    with describe.foreign_code("space", space_name):
        space, _ = load_space(space_name)
        name, arch = find(space, space_name, architecture)
        kind = next((kind for kind in all_kinds() if kind.name in space.tasks), None)
        task = None if kind is None else kind.example
        costs = {} if task is None else {preset: _costs(space, arch, task, preset) for preset in space.Size.presets}
        graph = space.graph(arch)
        facts: dict[str, Any] = {
            "space": space.name,
            "version": space.version,
            "name": name,
            "notation": space.to_text(arch) if isinstance(space, HasNotation) else None,
            "key": arch.key,
            "identity": space.identity(arch),
        }
    if as_json:
        described = None if task is None else task.model_dump(mode="json")
        drawing = {"nodes": graph.nodes, "edges": graph.edges}
        choices = {"architecture": dict(arch.values), "graph": drawing}
        render.document({**facts, **choices, "costs": costs, "task": described})
        return
    render.pairs({**facts, "space": f"{space.name} (version {space.version})", "version": None, "identity": None})
    render.emit("", *(f"  {line}" for line in draw(graph)))
    render.emit("", "choices")
    render.pairs({choice: str(value) for choice, value in arch.values.items()}, "  ")
    if kind is not None and task is not None:
        render.emit("", f"costs for {kind.describe(task)} and {task.outputs} {kind.answers}")
        names = list(dict.fromkeys(cost for found in costs.values() for cost in found))
        rows = [[preset, *(found.get(cost) for cost in names)] for preset, found in costs.items()]
        render.table(["size", *names], rows, right=names)


def split(reference: str) -> tuple[str, str]:
    """`SPACE:ARCHITECTURE` in two; the space may be `FILE.py:OBJECT` or `PACKAGE.MODULE:OBJECT`, with arguments.

    Raises UsageError for text without both.
    """
    found = refs.before_colon(reference)
    if found is None:
        raise UsageError(f"'{reference}' is no architecture; write SPACE:NAME, for example nasnet:NASNet-A")
    return found


def find(space: SearchSpace, space_name: str, text: str) -> tuple[str | None, Architecture]:
    """The published architecture of that name with its name, or the one that the text notes: as the space writes it, or
    choice by choice, `width=2,op=a`.

    Raises UsageError, naming what is known, or what is wrong with the text.
    """
    named: Mapping[str, Architecture] = space.named if isinstance(space, HasNamed) else {}
    if text in named:
        return text, named[text]
    if text.partition("=")[0].strip() in {choice.name for choice in space.choices}:
        return None, _by_choices(space, space_name, text)
    known = f" (named: {', '.join(named)})" if named else ""
    if not isinstance(space, HasNotation):
        lacks = "no notation" if named else "neither named architectures nor a notation"
        raise UsageError(
            f"unknown architecture '{text}': space '{space_name}' has {lacks}{nearest(text, named)}{known}"
        )
    try:
        arch = space.from_text(text)
    except ValueError as error:
        if named and re.fullmatch(r"[\w.-]+", text):
            raise UsageError(f"unknown architecture '{text}'{nearest(text, named)}{known}") from None
        raise UsageError(f"space '{space_name}': {error}{known}") from None
    reason = space.illegal(arch)
    if reason:
        raise UsageError(f"space '{space_name}': '{text}' is not legal: {reason}{known}")
    return None, arch


def text_of(space: SearchSpace, arch: Architecture) -> str:
    """What `find` reads: the space's own notation, or the choices."""
    if isinstance(space, HasNotation):
        return space.to_text(arch)
    return ",".join(f"{name}={value}" for name, value in arch.values.items())


def _by_choices(space: SearchSpace, space_name: str, text: str) -> Architecture:
    choices = {choice.name: choice for choice in space.choices}
    names = "|".join(re.escape(name) for name in sorted(choices, key=len, reverse=True))
    given = {}
    for part in re.split(rf",\s*(?=(?:{names})\s*=)", text):
        name, _, value = (word.strip() for word in part.partition("="))
        options = {str(option): option for option in choices[name].options}
        if value not in options:
            raise unknown(f"option of {name} of space '{space_name}'", value, options)
        given[name] = options[value]
    arch = Architecture(space.name, {name: given[name] for name in choices if name in given})
    reason = space.illegal(arch)
    if reason:
        raise UsageError(f"space '{space_name}': '{text}' is not legal: {reason}")
    return arch


def _costs(space: SearchSpace, arch: Architecture, task: Task, preset: str) -> dict[str, float]:
    """Parameters and MACs at a size; by the space itself, or else of the built network."""
    size = space.Size.preset(preset)
    if isinstance(space, HasCosts):
        return dict(space.costs(arch, task, size))
    from training import cost  # imports torch

    return cost.costs(space, arch, task, size, space.counted)
