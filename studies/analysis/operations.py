"""The names of what a supernet chooses among: the operations of its groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nas_core.errors import NasError

if TYPE_CHECKING:
    from nas_core.config import SizeConfig
    from nas_core.records import Epoch
    from nas_core.space import SearchSpace
    from nas_core.task import Task
    from studies.documents import View

Operations = Mapping[str, tuple[str, ...]]
"""Per group the names of its operations."""
Strengths = Mapping[str, Sequence[float]]


def operations_of(view: View, epochs: Sequence[Epoch]) -> Operations:
    """Those of a study's supernet, as far as the space still knows them."""
    from studies.setup.assemble import size_of

    strengths = next((epoch.strengths for epoch in reversed(epochs) if epoch.strengths), {})
    if view.space is None:
        return numbered(strengths)
    spec = view.study.spec
    try:
        return operations(view.space, size_of(view.space, spec.size), spec.task, strengths)
    except NasError:  # the space has changed since
        return numbered(strengths)


def operations(space: SearchSpace, size: SizeConfig, task: Task, strengths: Strengths) -> dict[str, tuple[str, ...]]:
    """What the weights of each group are of.

    Taken from the space's choices where every group is one; otherwise a supernet without operations says it, for which
    torch is imported. Where neither can be had operations are numbered from 1.
    """
    counts = {name: len(weights) for name, weights in strengths.items()}
    choices = {choice.name: tuple(map(str, choice.options)) for choice in space.choices}
    if all(name in choices and len(choices[name]) == count for name, count in counts.items()):
        return {name: choices[name] for name in counts}
    groups = _groups(space, size, task)
    known = {name: groups[name] for name, count in counts.items() if len(groups.get(name, ())) == count}
    return {**numbered(strengths), **known}


def numbered(strengths: Strengths) -> dict[str, tuple[str, ...]]:
    """Operations that nobody knows the names of."""
    return {name: tuple(map(str, range(1, len(weights) + 1))) for name, weights in strengths.items()}


def _groups(space: SearchSpace, size: SizeConfig, task: Task) -> dict[str, tuple[str, ...]]:
    import torch

    from search_spaces.supernet.picker import NamePicker
    from search_spaces.supernet.supernet import relaxable

    picker = NamePicker()
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            relaxable(space).network(picker, task, size)
    except Exception:  # a user's space may have changed since, and raise anything
        return {}
    return {name: tuple(map(str, options)) for name, options in picker.groups.items()}
