"""Bounds on the costs of what a supernet derives: which there are, whether they can be met, and repair."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import InfeasibleError, UsageError
from nas_core.evaluation import Constraint
from nas_core.relax import Group
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.task import Task
from search_spaces.supernet.supernet import Costs, Supernet, costs_of, relaxable
from strategies.one_shot.projection import Band, Mask, Matrix
from training.cost import costs

METRICS = ("params", "macs")
SAMPLES = 3
"""Architectures on which it is checked that costs add up."""

LIMIT = 5_000
"""Architectures that a repair looks at before it gives up."""


class Bounds:
    """The bounds of a setting on the networks that `build` would make, for one supernet.

    `network` are the task and the size of these networks, by default those of the supernet, which may well be smaller:
    the search decides the groups, the network that is built of them has the costs.

    Without `none`, candidates that add nothing are `barred` (where a group has others): no repair takes them, and they
    are not `counted` in expected costs, [groups, candidates].

    Raises UsageError, when made, for a metric other than `METRICS`, for costs that do not add up over the groups of the
    supernet, for networks with groups that the supernet lacks, and for a bound that no architecture can meet, with the
    costs of the cheapest and the dearest one; InfeasibleError where each bound can be met, but nothing was found that
    meets them all.
    """

    def __init__(
        self,
        supernet: Supernet,
        constraints: Sequence[Constraint],
        none: bool = True,
        network: tuple[Task, SizeConfig] | None = None,
    ) -> None:
        self.space: SearchSpace = supernet.space
        self.task, self.size = network or (supernet.task, supernet.size)
        self.groups: Mapping[str, Group] = supernet.groups
        self.barred = {
            name: frozenset(
                value
                for value, zero in zip(group.options, group.zero, strict=True)
                if zero and not none and not all(group.zero)
            )
            for name, group in self.groups.items()
        }
        widest = max(len(group.options) for group in self.groups.values())
        self.present: Mask = np.zeros((len(self.groups), widest), dtype=bool)
        self.counted: Mask = self.present.copy()
        for row, (name, group) in enumerate(self.groups.items()):
            self.present[row, : len(group.options)] = True
            self.counted[row, : len(group.options)] = [value not in self.barred[name] for value in group.options]
        self.constraints = tuple(constraints)
        check_metrics(constraints)
        self.metrics = tuple(dict.fromkeys(constraint.metric for constraint in constraints))
        self.costs: dict[str, Costs] = {metric: self._counted(metric) for metric in self.metrics}
        self._tables = {
            metric: {
                name: dict(zip(self.groups[name].options, values.tolist(), strict=True))
                for name, values in found.operations.items()
            }
            for metric, found in self.costs.items()
        }
        self._check_sums()
        for metric in self.metrics:
            self._check_reachable(metric)
        if len(self.constraints) > 1:
            indifferent = {name: torch.zeros(len(group.options)) for name, group in self.groups.items()}
            self.repair(self.extreme(self.metrics[0], -1), indifferent)

    def limits(self, metric: str) -> tuple[float, float]:
        """The tightest lower and upper bound of a metric; infinite where there is none."""
        own = [constraint for constraint in self.constraints if constraint.metric == metric]
        lower = max((one.bound for one in own if one.relation == ">="), default=-np.inf)
        return lower, min((one.bound for one in own if one.relation == "<="), default=np.inf)

    def cost(self, arch: Architecture, metric: str) -> float:
        """The sum over the groups: what the built network costs."""
        assignment, table = self.space.assignment(arch), self._tables[metric]
        taken = (table[name][value] for name, value in assignment.items() if name in table and value is not None)
        return self.costs[metric].fixed + sum(taken)

    def excess(self, arch: Architecture) -> float:
        """The sum of the relative violations, and 1 for each candidate that is barred; 0 where all bounds hold."""
        found = {metric: self.cost(arch, metric) for metric in self.metrics}
        violations = sum(max(0.0, one.violation(found[one.metric])) for one in self.constraints)
        return violations + self._barred(arch)

    def built(self, arch: Architecture) -> dict[str, float]:
        """The costs of the built network, counted on it or by the space, not by the supernet."""
        return costs(self.space, arch, self.task, self.size, self.metrics) if self.metrics else {}

    def bands(self, present: Mask, kept: Mapping[str, bool]) -> list[Band]:
        """What bounds the expected costs, over the groups that are kept. Rows as `self.groups`; `present` says which
        candidates count."""
        result = []
        for metric, found in self.costs.items():
            table: Matrix = np.zeros(present.shape)
            for row, name in enumerate(self.groups):
                if kept[name]:
                    table[row, : len(found.operations[name])] = found.operations[name].tolist()
            result.append(Band(found.fixed, np.where(present, table, 0.0), *self.limits(metric)))
        return result

    def repair(self, arch: Architecture, strengths: Mapping[str, Tensor]) -> Architecture:
        """An architecture near `arch` within the bounds; `arch` itself where it is.

        Swap by swap the one with the smallest loss of weight (by `strengths`) per violation that it removes. Where no
        swap removes any, the best-first search of `repair`. Raises InfeasibleError where that finds nothing."""
        weights = {
            name: dict(zip(self.groups[name].options, values.tolist(), strict=True))
            for name, values in strengths.items()
        }

        def weight(candidate: Architecture) -> float:
            taken = self.space.assignment(candidate).items()
            return sum(weights[name][value] for name, value in taken if name in weights and value is not None)

        found = repair(self.space, arch, weight, self.excess)
        if self.excess(found) > 0:
            raise InfeasibleError(
                f"no architecture within {self} was found; the nearest one has {self._numbers(found)}\nwiden the bounds"
            )
        return found

    def verify(self, arch: Architecture) -> None:
        """Raises InfeasibleError where the built network is not within the bounds."""
        found = self.built(arch)
        broken = [one for one in self.constraints if one.violation(found[one.metric]) > 0]
        if broken:
            numbers = ", ".join(f"{one.metric} is {found[one.metric]:,.0f}, not {one}" for one in broken)
            raise InfeasibleError(f"the derived architecture is not within its bounds: {numbers}")

    def extreme(self, metric: str, sign: int) -> Architecture:
        """The architecture with the smallest (`sign` -1) or largest (+1) cost: what is derived where costs are the
        strengths, and then the best neighbour while that is better. Exact where groups are decided independently."""
        candidates = {name: sign * values for name, values in self.costs[metric].operations.items()}
        least = min(float(values.min()) for values in candidates.values())
        span = max(float(values.max()) for values in candidates.values()) - least or 1.0
        strengths = {
            name: [
                -1.0 if option in self.barred[name] else (value - least) / span
                for option, value in zip(self.groups[name].options, values.tolist(), strict=True)
            ]
            for name, values in candidates.items()
        }
        arch = relaxable(self.space).derive(strengths)
        while True:
            near = (one for one in moves.neighbours(self.space, arch) if not self._barred(one))
            best = max([arch, *near], key=lambda one: sign * self.cost(one, metric))
            if best == arch:
                return arch
            arch = best

    def _counted(self, metric: str) -> Costs:
        """What the networks cost, with a row for every group of the supernet: zeros for one that they lack."""
        found = costs_of(self.space, self.task, self.size, metric)
        more = [name for name in found.operations if name not in self.groups]
        if more:
            raise UsageError(
                f"the network of size '{self.size}' has groups that the supernet lacks, such as '{more[0]}'; "
                "search with a larger --size"
            )
        rows = {
            name: found.operations.get(name, torch.zeros(len(group.options), dtype=torch.float64))
            for name, group in self.groups.items()
        }
        return Costs(found.fixed, rows)

    def _barred(self, arch: Architecture) -> int:
        if not self.barred:
            return 0
        return sum(value in self.barred.get(name, ()) for name, value in self.space.assignment(arch).items())

    def _check_sums(self) -> None:
        for number in range(SAMPLES if self.metrics else 0):
            arch = moves.sample(self.space, generator("bounds", number))
            for metric, true in self.built(arch).items():
                if abs(self.cost(arch, metric) - true) > 0.5:
                    raise UsageError(
                        f"the {metric} of space '{self.space.name}' do not add up over its choices "
                        f"({self.cost(arch, metric):,.0f} is the sum where a network has {true:,.0f}); "
                        f"rc-darts cannot bound them"
                    )

    def _check_reachable(self, metric: str) -> None:
        lower, upper = self.limits(metric)
        least, most = (self.cost(self.extreme(metric, sign), metric) for sign in (-1, 1))
        if lower > upper:
            raise UsageError(f"{metric}>={lower:g} and {metric}<={upper:g} exclude each other")
        if upper < least or lower > most:
            bound = f"{metric}<={upper:g}" if upper < least else f"{metric}>={lower:g}"
            raise UsageError(
                f"no architecture has {bound}: the cheapest one has {least:.0f}, the dearest one {most:.0f}\n"
                f"choose a bound between them"
            )

    def _numbers(self, arch: Architecture) -> str:
        return ", ".join(f"{metric} {self.cost(arch, metric):.0f}" for metric in self.metrics)

    def __str__(self) -> str:
        return ", ".join(map(str, self.constraints))


def check_metrics(constraints: Sequence[Constraint]) -> None:
    """Raises UsageError for a constraint on something that is no sum over the parts of a network."""
    for constraint in constraints:
        if constraint.metric not in METRICS:
            raise UsageError(
                f"rc-darts cannot hold '{constraint}': it bounds what adds up over a network, {' and '.join(METRICS)}"
            )


def repair(
    space: SearchSpace,
    arch: Architecture,
    weight: Callable[[Architecture], float],
    excess: Callable[[Architecture], float],
    limit: int = LIMIT,
) -> Architecture:
    """An architecture of no excess, found from `arch` by single moves, or the one of least excess.

    Greedy: the move with the smallest loss of weight per excess removed. Where no move removes any (a narrow band, or
    several metrics) a search goes on from the least excess that was seen, and of equals the largest weight, until
    `limit` architectures were looked at: also through larger ones.
    """
    while (now := excess(arch)) > 0:
        moved = [(one, now - excess(one)) for one in moves.neighbours(space, arch)]
        better = [(one, gain) for one, gain in moved if gain > 0]
        if not better:
            break
        have = weight(arch)
        arch = min(better, key=lambda pair: ((have - weight(pair[0])) / pair[1], -pair[1]))[0]
    if excess(arch) <= 0:
        return arch
    seen = {arch}
    heap = [(excess(arch), -weight(arch), 0, arch)]
    nearest = heap[0]
    while heap and len(seen) < limit:
        entry = heapq.heappop(heap)
        nearest = min(nearest, entry)
        if entry[0] <= 0:
            return entry[3]
        for one in moves.neighbours(space, entry[3]):
            if one not in seen:
                seen.add(one)
                heapq.heappush(heap, (excess(one), -weight(one), len(seen), one))
    return min([nearest, *heap])[3]
