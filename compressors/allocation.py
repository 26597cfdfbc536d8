"""Which units go: scores, exact costs and targets become a removal.

`uniform` takes the same fraction of every group, `global` ranks all units at once by their score over the mean of their
group. Both are families of removals that grow one within the other, so that the least one that meets all targets is
found by bisection with exact costs. Several targets at once are then improved by a small integer programme.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Protocol

import numpy

from compressors.compressor import Part, Plan
from compressors.groups.groups import Group, Groups, Removal
from compressors.target import Target
from nas_core.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Scores = Mapping[str, NDArray[numpy.float64]]

Allocation = Literal["uniform", "global"]
Counts = tuple[int, ...]
"""How many units of each group are kept, in the order of the groups."""

REACH = 0.25  # of a group's units: how far the programme may go from the greedy rule's count
GAP = 5e-3  # relative: how near to the best the solution of a programme must be
STEPS = 6  # linearisations of the costs, each around the best solution so far
NAMED = 3  # reasons that a message gives


class Counter(Protocol):
    """Exact costs of what a removal leaves (`compressors.groups.costs.Costs`)."""

    def of(self, removed: Removal) -> Mapping[str, float]:
        """Cost by name."""
        ...


def kept_count(group: Group, wanted: int, round_to: int) -> int:
    """How many units of a group are kept where about `wanted` should be: all of them, or the next lower multiple of
    `round_to` that is not below `least`, else the lowest one that is; where no multiple lies between, `wanted`."""
    units = len(group.units)
    wanted = min(max(wanted, group.least, 1), units)
    if wanted == units:
        return units
    lowest = -(-max(group.least, 1) // round_to) * round_to
    found = max(wanted // round_to * round_to, lowest)
    return found if found <= units else wanted


def removable(groups: Groups, inexact: bool) -> tuple[Group, ...]:
    """The groups of which units may go. Raises UsageError, with the reasons, where there is none."""
    found = tuple(one for one in groups.groups if (one.exact or inexact) and len(one.units) > max(one.least, 1))
    if found:
        return found
    raise UsageError(f"no unit of the network can be removed{_listed(reasons(groups, inexact))}")


def reasons(groups: Groups, inexact: bool) -> tuple[str, ...]:
    """Why what stays does: by which operator in which module."""
    others = [] if inexact else [one for one in groups.groups if not one.exact and len(one.units) > max(one.least, 1)]
    return (
        *(f"'{one.name}' is not exact: {one.why} (-s inexact=true removes of it)" for one in others),
        *(f"'{one.name}' stays: {one.operator} in '{one.at}' {one.reason}" for one in groups.fixed),
    )


def _listed(reasons: Sequence[str]) -> str:
    more = f", and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    return ": " + "; ".join(reasons[:NAMED]) + more if reasons else ""


def normalised(scores: Scores) -> dict[str, NDArray[numpy.float64]]:
    """The scores of each group, from 0 upwards where some are negative, over their mean; ones where all are 0."""
    found = {}
    for name, values in scores.items():
        raised = values - min(float(values.min(initial=0.0)), 0.0)
        mean = float(raised.mean()) if len(raised) else 0.0
        found[name] = raised / mean if mean > 0 else numpy.ones_like(raised)
    return found


@dataclass(frozen=True)
class Choice:
    """What may go: `groups`, of all of which `scores` are known where `rule` needs them; `costs` are exact. `stays`
    says why more may not.

    Within a group the units with the lowest scores go first, of equal ones those that come last.
    """

    groups: tuple[Group, ...]
    costs: Counter
    rule: Allocation = "uniform"
    round_to: int = 1
    stays: tuple[str, ...] = ()

    def removal(self, kept: Counts, scores: Scores) -> dict[str, list[int]]:
        """The units that go where so many are kept; groups that lose none are left out."""
        found = {}
        for group, count in zip(self.groups, kept, strict=True):
            order = _best_first(scores[group.name])
            if gone := sorted(map(int, order[count:])):
                found[group.name] = gone
        return found

    def cost(self, kept: Counts) -> Mapping[str, float]:
        """The exact costs: they depend on the counts alone, as units of a group are alike."""
        return self.costs.of(
            {
                group.name: range(count, len(group.units))
                for group, count in zip(self.groups, kept, strict=True)
                if count < len(group.units)
            }
        )

    @cached_property
    def everything(self) -> Counts:
        return tuple(len(group.units) for group in self.groups)

    @cached_property
    def least(self) -> Counts:
        """The fewest that may be kept."""
        return tuple(kept_count(group, 0, self.round_to) for group in self.groups)

    def middle(self) -> Counts:
        """About half of every group."""
        return tuple(kept_count(group, -(-len(group.units) // 2), self.round_to) for group in self.groups)

    def kept(self, limits: Mapping[str, float], scores: Callable[[], Scores]) -> Counts:
        """What is kept so that every cost is within its limit; `scores` are asked for where they decide. All limits
        must be reachable (`checked_limits`)."""
        given = scores() if self.rule == "global" or len(limits) > 1 else {}
        family = self._uniform() if self.rule == "uniform" else self._global(given)
        greedy = self._first(family, limits)
        return greedy if len(limits) < 2 else self._programme(greedy, limits, given)

    def score(self, kept: Counts, scores: Scores) -> float:
        """The sum of the normalised scores of what is kept."""
        given = normalised(scores)
        return float(
            sum(
                numpy.sort(given[group.name])[::-1][:count].sum()
                for group, count in zip(self.groups, kept, strict=True)
            )
        )

    def meets(self, kept: Counts, limits: Mapping[str, float]) -> bool:
        found = self.cost(kept)
        return all(found[name] <= limit for name, limit in limits.items())

    def _uniform(self) -> Sequence[Callable[[], Counts]]:
        """The same fraction of all groups, for every fraction at which the count of any changes, the smallest first."""
        fractions = sorted({(gone - 0.5) / units for units in self.everything for gone in range(1, units + 1)})

        def at(fraction: float) -> Counts:
            return tuple(
                # Rounded to the nearest count; a fraction that is one of the group's own counts as reached.
                kept_count(group, len(group.units) - int(fraction * len(group.units) + 0.5 + 1e-6), self.round_to)
                for group in self.groups
            )

        return [lambda one=one: at(one) for one in (0.0, *fractions)]  # type: ignore[misc]

    def _global(self, scores: Scores) -> Sequence[Callable[[], Counts]]:
        """The units with the lowest normalised scores of all, one more each time, but never the last of a group."""
        given = normalised(scores)
        ranked = sorted(
            (float(value), number, place)
            for number, group in enumerate(self.groups)
            for place, value in enumerate(numpy.sort(given[group.name]))
        )
        owners = numpy.array([number for _, number, _ in ranked])

        def after(count: int) -> Counts:
            gone = numpy.bincount(owners[:count], minlength=len(self.groups))
            return tuple(
                kept_count(group, len(group.units) - int(lost), self.round_to)
                for group, lost in zip(self.groups, gone, strict=True)
            )

        return [lambda count=count: after(count) for count in range(len(ranked) + 1)]  # type: ignore[misc]

    def _first(self, family: Sequence[Callable[[], Counts]], limits: Mapping[str, float]) -> Counts:
        """The first of ever smaller networks that meets the limits; the last one does."""
        low, high = -1, len(family) - 1
        while high - low > 1:
            middle = (low + high) // 2
            if self.meets(family[middle](), limits):
                high = middle
            else:
                low = middle
        return family[high]()

    def _programme(self, greedy: Counts, limits: Mapping[str, float], scores: Scores) -> Counts:
        """Counts that keep at least as much score as `greedy` within the limits.

        Around the best counts so far the costs are taken to be linear in the counts; an integer programme finds those
        that keep the most score; exact costs say whether they meet the limits, and by how much the linear ones were
        wrong.
        """
        best, tightened = greedy, dict.fromkeys(limits, 0.0)
        for _ in range(STEPS):
            aims = {name: limits[name] - tightened[name] for name in limits}
            found = self._linearised(best, greedy, aims, scores)
            if found is None or found == best:
                break
            exact = self.cost(found)
            over = {name: exact[name] - limit for name, limit in limits.items()}
            if not self.meets(found, limits):
                tightened = {name: tightened[name] + max(over[name], 0.0) for name in limits}
            elif self.score(found, scores) > self.score(best, scores):
                best, tightened = found, dict.fromkeys(limits, 0.0)
            else:
                break
        return best

    def _linearised(self, around: Counts, greedy: Counts, limits: Mapping[str, float], scores: Scores) -> Counts | None:
        """The best counts near `greedy` where every unit costs what it does around `around`; None where none are within
        the limits.

        A binary number per group and allowed count above the lowest says that at least so many are kept.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_array

        given, base = normalised(scores), self.cost(around)
        gains: list[float] = []
        prices: dict[str, list[float]] = {name: [] for name in limits}
        spent, order, allowed = dict.fromkeys(limits, 0.0), [], []
        for number, group in enumerate(self.groups):
            counts = self._near(group, (greedy[number], around[number]), self.least[number])
            allowed.append(counts)
            sums = numpy.concatenate([[0.0], numpy.cumsum(numpy.sort(given[group.name])[::-1])])
            price = self._prices(number, around, base, counts)
            for name in limits:
                spent[name] += price[name] * (counts[0] - around[number])
            for place, (lower, upper) in enumerate(pairwise(counts)):
                if place:
                    order.append((len(gains) - 1, len(gains)))
                gains.append(float(sums[upper] - sums[lower]))
                for name in limits:
                    prices[name].append(price[name] * (upper - lower))
        if not gains:
            return None
        within = [
            LinearConstraint(numpy.array([prices[name]]), ub=limit - base[name] - spent[name])
            for name, limit in limits.items()
        ]
        if order:
            rows = numpy.repeat(numpy.arange(len(order)), 2)
            signs = numpy.tile([-1.0, 1.0], len(order))
            chained = coo_array((signs, (rows, numpy.array(order).ravel())), (len(order), len(gains)))
            within.append(LinearConstraint(chained, ub=0))
        found = milp(
            -numpy.array(gains),
            integrality=numpy.ones(len(gains)),
            bounds=Bounds(0, 1),
            constraints=within,
            options={"mip_rel_gap": GAP},
        )
        if found.x is None:
            return None
        taken = iter(numpy.round(found.x).astype(int))
        return tuple(counts[sum(next(taken) for _ in counts[1:])] for counts in allowed)

    def _near(self, group: Group, known: Counts, least: int) -> list[int]:
        """The counts that may be kept of a group, near the first of `known`, which are among them; the lowest first."""
        reach = max(self.round_to, int(REACH * len(group.units)), 1)
        all_counts = {kept_count(group, wanted, self.round_to) for wanted in range(least, len(group.units) + 1)}
        return sorted({one for one in all_counts if abs(one - known[0]) <= reach} | {*known})

    def _prices(
        self, number: int, around: Counts, base: Mapping[str, float], counts: Sequence[int]
    ) -> Mapping[str, float]:
        """What one unit of a group costs, all others as they are."""
        other = counts[-1] if counts[-1] != around[number] else counts[0]
        if other == around[number]:
            return dict.fromkeys(base, 0.0)
        changed = self.cost((*around[:number], other, *around[number + 1 :]))
        return {name: (changed[name] - base[name]) / (other - around[number]) for name in base}


def _best_first(scores: NDArray[numpy.float64]) -> NDArray[numpy.intp]:
    return numpy.argsort(-scores, kind="stable")


def checked_limits(choice: Choice, targets: Iterable[Target], base: Mapping[str, float]) -> dict[str, float]:
    """The limits of all targets, where `base` are the costs before any compression.

    Raises UsageError for no target, for a cost that is not known, and where removing all that may be removed is not
    enough (it says what that comes to, and why the rest stays).
    """
    limits: dict[str, float] = {}
    lowest = choice.cost(choice.least)
    for target in targets:
        if target.metric not in lowest:
            raise UsageError(f"target '{target}': removing units gives {' and '.join(lowest)}; set one of these")
        limits[target.metric] = target.limit({**base})
        if lowest[target.metric] > limits[target.metric]:
            share = f", {lowest[target.metric] / base[target.metric]:.3g}x" if base.get(target.metric) else ""
            raise UsageError(
                f"target '{target}' cannot be met: the least that this network can come to is {target.metric}="
                f"{lowest[target.metric]:g}{share}{_listed(choice.stays)}"
            )
    if not limits:
        raise UsageError("there is no target; say what the network is to come to, for example --target macs<=0.5x")
    return limits


def check_not_met(choice: Choice, limits: Mapping[str, float], targets: Iterable[Target]) -> None:
    """Raises UsageError where all limits hold before anything is removed."""
    if choice.meets(choice.everything, limits):
        said = ", ".join(map(str, targets))
        now = ", ".join(f"{name}={value:g}" for name, value in choice.cost(choice.everything).items())
        raise UsageError(f"target '{said}' is met already, with {now}; there is nothing to remove")


def planned(groups: Groups, choice: Choice, kept: Sequence[int]) -> Plan:
    """A plan that keeps so many units of the groups of `choice`."""
    whole, least, middle = map(choice.cost, (choice.everything, choice.least, choice.middle()))
    chosen = {group.name for group in choice.groups}
    parts = []
    for group in groups.groups:
        alone = choice.costs.of({group.name: range(max(group.least, 1), len(group.units))})
        note = "" if group.exact else f"not exact: {group.why}"
        if group.name not in chosen and group.exact:
            note = "it stays as it is"
        saves = {name: whole[name] - alone[name] for name in whole}
        parts.append(Part(group.name, len(group.units), group.least, saves, note))
    reachable = {name: (least[name], middle[name], whole[name]) for name in whole}
    return Plan(tuple(parts), groups.fixed, choice.cost(tuple(kept)), reachable)
