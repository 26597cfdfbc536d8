"""What a network costs without some of its units, from what is kept of every width: no network is built or run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from compressors.groups.groups import Groups, Removal
from compressors.groups.removal import checked, first_names, half, remove, tensors_of
from nas_core.traits import HasMacs, deployed_parameters
from search_spaces.counter import macs

Counts: TypeAlias = NDArray[np.float64]


class Costs:
    """Parameters and multiply-accumulates of `network(*inputs)` without units of its groups.

    Both are sums of products of widths, each of which is a size less what is removed of it. Equal to what
    `search_spaces.counter` says of the network that is built. What modules say themselves that they multiply
    (`nas_core.traits.HasMacs`) is asked for with half of their units removed, for every choice of groups, and is linear
    in each. Where all that is not what the counter says, every answer builds the network instead.
    """

    def __init__(self, network: nn.Module, groups: Groups, inputs: Sequence[Tensor]) -> None:
        self._network = network
        self._groups = groups
        self._inputs = tuple(inputs)
        self._place = {group.name: place for place, group in enumerate(groups.groups)}
        first = first_names(network)
        deployed = [first[name] for name, _ in deployed_parameters(network)]
        self._params = _Products(_of_tensors(network, groups, deployed), self._place)
        traced = _Products(
            [(one.constant, [(each.size, each.per) for each in one.factors]) for one in groups.products], self._place
        )
        told, said = self._told()
        self._said = _Products(said, self._place)
        whole = np.zeros(len(self._place))
        seen = traced(whole)
        self._batches = (macs(network, self._inputs) - told) / seen if seen else 1.0  # traced with others
        self._traced = traced
        self.by_formula = self._holds()

    def of(self, removed: Removal) -> dict[str, int]:
        """`params` and `macs` without these units. Raises UsageError for what cannot be removed."""
        gone = checked(self._groups, removed)
        counts = np.zeros(len(self._place))
        for name, units in gone.items():
            counts[self._place[name]] = len(units)
        multiplied = self._formula(counts) if self.by_formula else self._built(gone)
        return {"params": round(self._params(counts)), "macs": multiplied}

    def _formula(self, counts: Counts) -> int:
        return round(self._traced(counts) * self._batches + self._said(counts))

    def _holds(self) -> bool:
        """Whether the formula says what the counter does, with half of all units too."""
        removed = half(self._groups.groups)
        counts = np.array([len(units) for units in removed.values()], dtype=float)
        return self._formula(counts) == self._built(removed)

    def _built(self, removed: Removal) -> int:
        smaller = copy.deepcopy(self._network)
        remove(smaller, self._groups, removed)
        return macs(smaller, self._inputs)

    def _told(self) -> tuple[int, list[_Terms]]:
        """What modules say of themselves: at all, and by what is removed of the groups within them."""
        modules: list[tuple[str, Any]] = [
            (name, module) for name, module in self._network.named_modules() if isinstance(module, HasMacs)
        ]
        called: dict[str, list[tuple[Any, ...]]] = {name: [] for name, _ in modules}
        hooks = [
            module.register_forward_pre_hook(lambda _, given, name=name: called[name].append(given))
            for name, module in modules
        ]
        try:
            if modules:
                macs(self._network, self._inputs)
        finally:
            for hook in hooks:
                hook.remove()
        told, terms = 0, list[_Terms]()
        for name, module in modules:
            told += sum(module.uncounted_macs(*given) for given in called[name])
            terms += self._interpolated(name, called[name])
        return told, terms

    def _interpolated(self, name: str, calls: Sequence[tuple[Any, ...]]) -> list[_Terms]:
        """What a module says, between all of its groups whole and half of each removed."""
        within = [
            group
            for group in self._groups.groups
            if any(one.tensor.startswith(f"{name}.") for one in (*group.units[0].produced, *group.units[0].consumed))
        ]
        if len(within) > WITHIN:
            return []
        terms: list[_Terms] = []
        for corner in product((False, True), repeat=len(within)):
            removed = half([group for group, gone in zip(within, corner, strict=True) if gone])
            smaller = copy.deepcopy(self._network)
            remove(smaller, self._groups, removed)
            module: Any = smaller.get_submodule(name)
            said = float(sum(module.uncounted_macs(*given) for given in calls))
            factors: list[tuple[int, Mapping[str, int]]] = []
            for group, gone in zip(within, corner, strict=True):
                size = len(group.units) // 2
                said /= size
                factors.append((0, {group.name: -1}) if gone else (size, {group.name: 1}))
            terms.append((said, factors))
        return terms


_Terms: TypeAlias = tuple[float, Sequence[tuple[int, Mapping[str, int]]]]
"""A constant, and sizes less what of them goes with a unit of groups."""

WITHIN = 4
"""Of how many groups within a module it is asked what it multiplies; of more, networks are built."""


class _Products:
    """A sum of products of widths, by how many units are removed of every group."""

    def __init__(self, products: Sequence[_Terms], place: Mapping[str, int]) -> None:
        wide = max((len(factors) for _, factors in products), default=0)
        self._constants = np.array([constant for constant, _ in products], dtype=float)
        self._sizes = np.ones((len(products), wide))
        self._per = np.zeros((len(products), wide, len(place)))
        for row, (_, factors) in enumerate(products):
            for column, (size, per) in enumerate(factors):
                self._sizes[row, column] = size
                for name, count in per.items():
                    self._per[row, column, place[name]] = count

    def __call__(self, removed: Counts) -> float:
        return float(self._constants @ np.prod(self._sizes - self._per @ removed, axis=1))


def _of_tensors(network: nn.Module, groups: Groups, names: Sequence[str]) -> list[_Terms]:
    """The number of elements of every tensor as a product of its dimensions."""
    per: dict[tuple[str, int], dict[str, int]] = {}
    for group in groups.groups:
        for one in (*group.units[0].produced, *group.units[0].consumed):
            held = per.setdefault((one.tensor, one.dim), {})
            held[group.name] = held.get(group.name, 0) + len(one.indices)
    tensors = tensors_of(network)
    found: list[_Terms] = []
    for name in names:
        shape = tensors[name].shape
        factors: list[tuple[int, Mapping[str, int]]] = [
            (size, per[name, dim]) for dim, size in enumerate(shape) if (name, dim) in per
        ]
        constant = prod(size for dim, size in enumerate(shape) if (name, dim) not in per)
        found.append((constant, factors))
    return found
