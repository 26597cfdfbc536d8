"""Removing units: smaller tensors in place, and the masked twin, in which they are 0."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence

import numpy
import torch
from torch import Tensor, nn

from compressors.groups.groups import Group, Groups, Removal, Slice
from compressors.groups.modules import resize
from nas_core.errors import UsageError, unknown


def first_names(network: nn.Module) -> dict[str, str]:
    """By every name of a parameter or buffer the first one of the same tensor."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in named_tensors(network)}


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by their first names."""
    named = dict(named_tensors(network))
    return {first: named[first] for first in dict.fromkeys(first_names(network).values())}


def named_tensors(network: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """All parameters and buffers by all their names."""
    return (*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False))


def checked(groups: Groups, removed: Removal) -> dict[str, list[int]]:
    """What is removed, sorted, of groups that lose something. Raises UsageError for what groups do not have, or what
    must stay."""
    known = {group.name: group for group in groups.groups}
    found = {}
    for name, units in removed.items():
        if name not in known:
            raise unknown("group", name, known)
        group, wanted = known[name], sorted(set(units))
        if wanted and not (wanted[0] >= 0 and wanted[-1] < len(group.units)):
            raise UsageError(f"group '{name}' has units 0 to {len(group.units) - 1}, so none can be {wanted[-1]}")
        if len(group.units) - len(wanted) < group.least:
            raise UsageError(
                f"{len(wanted)} of the {len(group.units)} units of '{name}' cannot be removed; {group.least} must stay"
            )
        if wanted:
            found[name] = wanted
    return found


def half(groups: Sequence[Group]) -> dict[str, list[int]]:
    """Half of the units of every group, rounded down, drawn for each by itself: two that belong together do not lose
    the same by chance."""
    return _drawn(groups, [len(group.units) // 2 for group in groups])


def uneven(groups: Sequence[Group]) -> dict[str, list[int]]:
    """A half, or a quarter, of the units of every group, so that those that belong together would not lose as many."""
    return _drawn(groups, [max(1, len(group.units) // (2 + 2 * (place % 2))) for place, group in enumerate(groups)])


def _drawn(groups: Sequence[Group], counts: Sequence[int]) -> dict[str, list[int]]:
    found = {}
    for place, (group, count) in enumerate(zip(groups, counts, strict=True)):
        found[group.name] = sorted(numpy.random.default_rng(place).permutation(len(group.units))[:count].tolist())
    return found


def remove(network: nn.Module, groups: Groups, removed: Removal) -> None:
    """Remove units of a network, in place: its tensors become smaller, its attributes follow.

    What modules share they share afterwards. Raises UsageError for what cannot be removed.
    """
    gone = _positions(groups, checked(groups, removed), consumed=True)
    first, tensors = first_names(network), tensors_of(network)
    smaller: dict[str, Tensor] = {}
    for name, dims in gone.items():
        tensor = tensors[name].detach()
        for dim, indices in dims.items():
            stays = torch.ones(tensor.shape[dim], dtype=torch.bool)
            stays[list(indices)] = False
            tensor = tensor.index_select(dim, stays.nonzero()[:, 0].to(tensor.device))
        old = tensors[name]
        smaller[name] = nn.Parameter(tensor, old.requires_grad) if isinstance(old, nn.Parameter) else tensor
    changed: set[str] = set()
    for name, of in first.items():
        if of in smaller:
            path, _, own = name.rpartition(".")
            setattr(network.get_submodule(path), own, smaller[of])
            parts = path.split(".") if path else []
            changed.update(".".join(parts[:count]) for count in range(len(parts) + 1))
    for path in sorted(changed, key=lambda path: -len(path.split(".")) if path else 1):
        resize(network.get_submodule(path))


def masked(network: nn.Module, groups: Groups, removed: Removal) -> nn.Module:
    """A copy in which all that the units produce is 0. Raises as `remove`."""
    twin = copy.deepcopy(network)
    tensors = tensors_of(twin)
    with torch.no_grad():
        for name, dims in _positions(groups, checked(groups, removed), consumed=False).items():
            for dim, indices in dims.items():
                tensors[name].index_fill_(dim, torch.tensor(sorted(indices), device=tensors[name].device), 0)
    return twin


def _positions(groups: Groups, removed: Mapping[str, list[int]], consumed: bool) -> dict[str, dict[int, set[int]]]:
    """By tensor and dimension, what of it belongs to units."""
    found: dict[str, dict[int, set[int]]] = {}
    for group in groups.groups:
        for number in removed.get(group.name, ()):
            for one in _slices(group, number, consumed):
                found.setdefault(one.tensor, {}).setdefault(one.dim, set()).update(one.indices)
    return found


def _slices(group: Group, number: int, consumed: bool) -> tuple[Slice, ...]:
    unit = group.units[number]
    return (*unit.produced, *unit.consumed) if consumed else unit.produced
