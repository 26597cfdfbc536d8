"""Methods that leave units at exactly 0 while a network trains: what they share."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from compressors.allocation import Choice, check_not_met, checked_limits, kept_count, planned, reasons, removable
from compressors.compressor import Change, Plan, Round, Subject
from nas_core.config import Config as BaseConfig
from nas_core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compressors.groups.groups import Group, Groups
    from training.regimes.regime import Regime


class Settings(BaseConfig):
    """What goes."""

    sparsity: float | None = Field(
        default=None, gt=0, lt=1, description="share of all units that go [default: as many as --target needs]"
    )
    inexact: bool = Field(default=False, description="also remove units that more than their readers depend on")


class Goal:
    """Which units go, by a score of each: the least that meet the targets, or a number of them."""

    def __init__(self, choice: Choice, limits: Mapping[str, float] | int) -> None:
        """`limits`: of costs, or how many units go."""
        self.choice, self.limits = choice, limits
        self._owners = [number for number, group in enumerate(choice.groups) for _ in group.units]

    def redundant(self, scores: Tensor, settled: Tensor) -> Tensor:
        """The mask of the units that go [units]: all of `settled`, then those with the lowest scores of all, of equal
        ones the first; of no group more than may, and what is kept of it as `kept_count` rounds it."""
        import torch

        order = scores.masked_fill(settled, -float("inf")).argsort(stable=True).tolist()
        mine: list[list[int]] = [[] for _ in self.choice.groups]
        sequence = []  # the groups that lose a unit, one after another
        for unit in order:
            number = self._owners[unit]
            mine[number].append(unit)
            group = self.choice.groups[number]
            if len(mine[number]) <= len(group.units) - max(group.least, 1):
                sequence.append(number)
        kept = self._kept(sequence, min(int(settled.sum()), len(sequence)))
        mask = torch.zeros(len(scores), dtype=torch.bool)
        for units, count in zip(mine, kept, strict=True):
            mask[units[: len(units) - count]] = True
        return mask

    def _kept(self, sequence: Sequence[int], least: int) -> tuple[int, ...]:
        """How many units of each group are kept, where at least the first `least` of a sequence go."""

        def after(length: int) -> tuple[int, ...]:
            lost = [0] * len(self.choice.groups)
            for number in sequence[:length]:
                lost[number] += 1
            return tuple(
                kept_count(group, len(group.units) - gone, self.choice.round_to)
                for group, gone in zip(self.choice.groups, lost, strict=True)
            )

        if isinstance(self.limits, int):
            return after(max(self.limits, least))
        low, high = least - 1, len(sequence)
        while high - low > 1:
            middle = (low + high) // 2
            if self.choice.meets(after(middle), self.limits):
                high = middle
            else:
                low = middle
        return after(high)


class Zeroing(ABC):
    """Two rounds: one that trains while units come to 0, one that removes them, which changes no output."""

    Config: ClassVar[type[BaseConfig]]
    needs: ClassVar[Collection[str]] = ("groups",)
    rounds: Sequence[Round] = (Round(), Round(epochs=0))
    recalibrate: ClassVar[bool] = False

    def __init__(self, subject: Subject, config: Any) -> None:
        self.subject, self.config = subject, config

    @abstractmethod
    def acting(self, network: nn.Module, groups: Groups, goal: Goal) -> Regime:
        """What the training does, of a network on the device, in evaluation mode, that stays as it is."""

    def eligible(self, network: nn.Module, groups: tuple[Group, ...]) -> tuple[Group, ...]:
        """Those of the groups that the method can work on. Raises UsageError for none."""
        return groups

    def noted(self) -> tuple[Mapping[str, Mapping[str, Any]], tuple[str, ...]]:
        """For people, about the training: plain data per group, and notes."""
        return {}, ()

    def plan(self, network: nn.Module) -> Plan:
        """What could go. Which units of which groups do is found by the training: the costs are those of the same share
        of each.

        Raises UsageError where nothing can go, for a target that cannot be reached, and where nothing is trained.
        """
        import numpy

        groups, choice = self.choice(network)
        goal, shares = self._goal(choice), replace(choice, rule="uniform")
        if isinstance(goal.limits, int):
            share = goal.limits / sum(choice.everything)
            kept = tuple(
                kept_count(group, len(group.units) - int(share * len(group.units)), choice.round_to)
                for group in choice.groups
            )
        else:
            kept = shares.kept(goal.limits, lambda: {one.name: numpy.ones(len(one.units)) for one in choice.groups})
        return planned(groups, choice, kept)

    def regime(self, network: nn.Module, round: int) -> Regime | None:
        if round > 0:
            return None
        copied = copy.deepcopy(network).to(self.subject.device).eval()
        groups, choice = self.choice(copied)
        return self.acting(copied, groups, self._goal(choice))

    def compress(self, network: nn.Module, round: int) -> Change:
        """Raises UsageError as `plan`."""
        from compressors.groups.removal import remove
        from compressors.units import Units

        groups, choice = self.choice(network)
        if round == 0:
            self._goal(choice)
            return Change()
        units = Units(choice.groups, network)
        removed: dict[str, list[int]] = {}
        for group, part in units.by_group(units.zero()):
            if found := part.nonzero().flatten().tolist()[: len(group.units) - max(group.least, 1)]:
                removed[group.name] = found
        remove(network, groups, removed)
        said, notes = self.noted()
        report = {
            group.name: {
                "units": len(group.units),
                "kept": len(group.units) - len(removed.get(group.name, ())),
                **said.get(group.name, {}),
            }
            for group in choice.groups
        }
        return Change(removed=removed, recalibrate=self.recalibrate, report=report, notes=notes)

    def choice(self, network: nn.Module) -> tuple[Groups, Choice]:
        """All groups of the network, which stays as it is, and those of which units may go."""
        from compressors.groups.costs import Costs
        from compressors.groups.trace import trace

        subject = self.subject
        copied = copy.deepcopy(network).to(subject.device).eval()
        groups = trace(copied, subject.inputs, subject.ignored)
        found = self.eligible(copied, removable(groups, self.config.inexact))
        costs, stays = Costs(copied, groups, subject.sample), reasons(groups, self.config.inexact)
        return groups, Choice(found, costs, "global", subject.round_to, stays)

    def _goal(self, choice: Choice) -> Goal:
        """Raises UsageError: no training, no target, one that cannot be reached, or that is met already."""
        subject, sparsity = self.subject, self.config.sparsity
        if subject.epochs == 0:
            raise UsageError("this method works while the network trains; give it --epochs of 1 or more")
        if subject.recipe is not None and (subject.recipe.selects or subject.recipe.ema is not None):
            raise UsageError(
                "what this method comes to is in the weights after the last step alone; take keep=last, and no ema and "
                "no patience (-s recipe.keep=last)"
            )
        if sparsity is not None:
            if subject.targets:
                raise UsageError(f"sparsity and target '{subject.targets[0]}' both say how much goes; give one of them")
            return Goal(choice, int(sum(choice.everything) * min(sparsity, 0.999)))
        limits = checked_limits(choice, subject.targets, {**choice.cost(choice.everything), **subject.base})
        check_not_met(choice, limits, subject.targets)
        return Goal(choice, limits)
