"""What a network costs without some of its units, from what is kept of every width: no network is built or run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
from torch import Tensor, nn

from compressors.groups.groups import Groups, Removal
from compressors.groups.removal import checked, first_names, remove, tensors_of
from nas_core.traits import deployed_parameters
from search_spaces.counter import macs, params


class Costs:
    """Parameters and multiply-accumulates of `network(*inputs)` without units of its groups.

    Both are sums of products of widths, each of which is a size less what is removed of it. Equal to what
    `search_spaces.counter` says of the network that is built. Where the products that were traced are not all that the
    counter counts (a module that says itself what it multiplies), every answer builds the network instead.
    """

    def __init__(self, network: nn.Module, groups: Groups, inputs: Sequence[Tensor]) -> None:
        self._network = network
        self._groups = groups
        self._inputs = tuple(inputs)
        self._place = {group.name: place for place, group in enumerate(groups.groups)}
        first = first_names(network)
        deployed = [first[name] for name, _ in deployed_parameters(network)]
        self._params = _Products(_of_tensors(network, groups, deployed), self._place)
        self._macs = _Products(
            [(one.constant, [(each.size, each.per) for each in one.factors]) for one in groups.products], self._place
        )
        whole = np.zeros(len(self._place))
        self._macs_at_all = macs(network, self._inputs)
        traced = self._macs(whole)
        self._batches = self._macs_at_all / traced if traced else 0.0
        self._by_formula = self._holds()

    def of(self, removed: Removal) -> dict[str, int]:
        """`params` and `macs` without these units. Raises UsageError for what cannot be removed."""
        gone = checked(self._groups, removed)
        counts = np.zeros(len(self._place))
        for name, units in gone.items():
            counts[self._place[name]] = len(units)
        multiplied = self._macs(counts) * self._batches if self._by_formula else self._built(gone)[1]
        return {"params": round(self._params(counts)), "macs": round(multiplied)}

    def _holds(self) -> bool:
        """Whether the products say what the counter does, with half of all units too."""
        half = {group.name: range(1, len(group.units), 2) for group in self._groups.groups}
        counts = np.array([len(units) for units in half.values()], dtype=float)
        return round(self._macs(counts) * self._batches) == self._built(half)[1]

    def _built(self, removed: Removal) -> tuple[int, int]:
        smaller = copy.deepcopy(self._network)
        remove(smaller, self._groups, removed)
        return params(smaller), macs(smaller, self._inputs)


class _Products:
    """A sum of products of widths, by how many units are removed of every group."""

    def __init__(
        self, products: Sequence[tuple[int, Sequence[tuple[int, Mapping[str, int]]]]], place: Mapping[str, int]
    ) -> None:
        wide = max((len(factors) for _, factors in products), default=0)
        self._constants = np.array([constant for constant, _ in products], dtype=float)
        self._sizes = np.ones((len(products), wide))
        self._per = np.zeros((len(products), wide, len(place)))
        for row, (_, factors) in enumerate(products):
            for column, (size, per) in enumerate(factors):
                self._sizes[row, column] = size
                for name, count in per.items():
                    self._per[row, column, place[name]] = count

    def __call__(self, removed: np.ndarray) -> float:
        return float(self._constants @ np.prod(self._sizes - self._per @ removed, axis=1))


def _of_tensors(
    network: nn.Module, groups: Groups, names: Sequence[str]
) -> list[tuple[int, list[tuple[int, Mapping[str, int]]]]]:
    """The number of elements of every tensor as a product of its dimensions."""
    per: dict[tuple[str, int], dict[str, int]] = {}
    for group in groups.groups:
        for one in (*group.units[0].produced, *group.units[0].consumed):
            held = per.setdefault((one.tensor, one.dim), {})
            held[group.name] = held.get(group.name, 0) + len(one.indices)
    tensors = tensors_of(network)
    found: list[tuple[int, list[tuple[int, Mapping[str, int]]]]] = []
    for name in names:
        shape = tensors[name].shape
        factors: list[tuple[int, Mapping[str, int]]] = [
            (size, per[name, dim]) for dim, size in enumerate(shape) if (name, dim) in per
        ]
        constant = prod(size for dim, size in enumerate(shape) if (name, dim) not in per)
        found.append((constant, factors))
    return found
