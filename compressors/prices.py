"""What a network costs with some of its units and blocks more or less on, as shares of the whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.allocation import Counter
from compressors.blocks import Block
from compressors.groups.groups import Removal
from compressors.zeroing import Goal


class Prices:
    """What a network costs with so many units of its groups on, and blocks more or less, as shares of the whole."""

    def __init__(self, goal: Goal, blocks: Sequence[Block]) -> None:
        self._choice, self._blocks = goal.choice, blocks
        choice = goal.choice
        if isinstance(goal.limits, int):
            self._whole: Mapping[str, float] = {}
            self.budgets = {"units": 1 - goal.limits / sum(choice.everything)}
        else:
            self._whole = choice.cost(choice.everything)
            self.budgets = {name: limit / self._whole[name] for name, limit in goal.limits.items()}
        self.sizes = [*choice.everything, *(1 for _ in blocks)]

    def lines(self, around: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Per cost its share where units and blocks are on as `around` says [units and blocks], and what one more of
        each adds: exact for the rounded numbers of units of each group, and linear from there to theirs."""
        groups = self._choice.groups
        sums = [float(part.sum()) for part in around.split(self.sizes)]
        counts = [
            min(max(round(one), group.least, 1), len(group.units)) for one, group in zip(sums, groups, strict=False)
        ]
        on = sums[len(groups) :]
        base = self._shares(counts, on)
        steps: list[Mapping[str, float]] = []
        for number, group in enumerate(groups):
            other = counts[number] - 1 if counts[number] == len(group.units) else counts[number] + 1
            shares = self._shares([*counts[:number], other, *counts[number + 1 :]], on)
            steps.append({name: (shares[name] - base[name]) / (other - counts[number]) for name in base})
        for number in range(len(on)):
            without, within = (self._shares(counts, [*on[:number], one, *on[number + 1 :]]) for one in (0.0, 1.0))
            steps.append({name: within[name] - without[name] for name in base})
        repeats, found = torch.tensor(self.sizes), {}
        for name in self.budgets:
            moved = sum(step[name] * (one - count) for step, one, count in zip(steps, sums, counts, strict=False))
            found[name] = (base[name] + moved, torch.tensor([step[name] for step in steps]).repeat_interleave(repeats))
        return found

    def without(self, off: Collection[int]) -> Counter:
        """Costs of a network without these blocks, of which more is removed."""
        return Without(self._choice.costs, [block for number, block in enumerate(self._blocks) if number in off])

    def _shares(self, counts: Sequence[int], on: Sequence[float]) -> dict[str, float]:
        choice = self._choice
        if not self._whole:
            return {"units": sum(counts) / sum(choice.everything)}
        costs = dict(choice.cost(tuple(counts)))
        for block, share in zip(self._blocks, on, strict=True):
            within = choice.cost(
                tuple(
                    count if group.name in block.inner else len(group.units)
                    for group, count in zip(choice.groups, counts, strict=True)
                )
            )
            for name in costs:
                costs[name] -= (1 - share) * (block.saves[name] - self._whole[name] + within[name])
        return {name: costs[name] / self._whole[name] for name in self.budgets}


@dataclass(frozen=True)
class Without:
    """The costs of a network less some blocks (`compressors.allocation.Counter`)."""

    costs: Counter
    blocks: Sequence[Block]

    def of(self, removed: Removal) -> Mapping[str, float]:
        gone = {name for block in self.blocks for name in block.inner}
        found = self.costs.of({name: units for name, units in removed.items() if name not in gone})
        return {name: value - sum(block.saves[name] for block in self.blocks) for name, value in found.items()}
