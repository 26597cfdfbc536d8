"""Structured pruning of a trained network: a score says which units matter, an allocation how many go of each group.

The methods that are listed differ in the score alone (`compressors.importance`). With `rounds` the targets are
approached geometrically, with a training after every round, and what is left is scored anew. Scores are kept in the
subject's cache: another target on the same network scores nothing.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Collection
from typing import Any, ClassVar

import numpy
import torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn

from compressors.allocation import Allocation, Choice, check_not_met, checked_limits, planned, reasons, removable
from compressors.compressor import Change, Plan, Round, Subject
from compressors.groups.costs import Costs
from compressors.groups.groups import Groups, Removal
from compressors.groups.removal import masked, remove
from compressors.groups.trace import trace
from compressors.importance.bn_scale import BnScale as BnScaleScore
from compressors.importance.magnitude import Magnitude as MagnitudeScore
from compressors.importance.oba import Oba as ObaScore
from compressors.importance.obd import Obd as ObdScore
from compressors.importance.random import Random as RandomScore
from compressors.importance.score import Score, Scores
from compressors.importance.taylor import Taylor as TaylorScore
from nas_core.config import Config as BaseConfig
from nas_core.errors import TrialError

SCORED_BY = {"loss", "label_smoothing", "class_weights", "batch_size", "augment"}
"""What of a recipe scores depend on."""

_GROUPS = TypeAdapter(Groups)


class Settings(BaseConfig):
    """What all structured methods may be told."""

    allocation: Allocation = Field(
        default="uniform",
        description="uniform: the same fraction of every group; global: one ranking, by scores over their group's mean",
    )
    rounds: int = Field(default=1, ge=1, description="how often units are removed, with a training after each time")
    inexact: bool = Field(
        default=False, description="also remove units that more than they themselves depends on, such as a mean of all"
    )


class Structured:
    """A structured method: a score and an allocation. A subclass names the score and its settings (`scoring`), and
    joins these with those of all."""

    Config: ClassVar[type[BaseConfig]]
    needs: ClassVar[Collection[str]]
    name: ClassVar[str]
    score: ClassVar[type[Score]]
    scoring: ClassVar[type[BaseConfig]]

    def __init__(self, subject: Subject, config: Any) -> None:
        self.rounds = (Round(),) * config.rounds
        self._subject, self.config = subject, config
        self._score = self.score(config)

    def compress(self, network: nn.Module, round: int) -> Change:
        """Remove the units with the lowest scores. In a later round that finds its target met nothing is removed.

        Raises UsageError: nothing to remove, no target, one that cannot be reached, or that is met before the first
        round; TrialError `nan-loss`.
        """
        groups = self._groups(network)
        choice = self._choice(network, groups, round)
        limits = self._limits(choice, round, (round + 1) / len(self.rounds))
        if round and choice.meets(choice.everything, limits):
            return Change(report={})
        scores = self.scores(network, groups, round)
        kept = choice.kept(limits, lambda: scores)
        removed = choice.removal(kept, scores)
        changed = self._changed(network, groups, removed)
        remove(network, groups, removed)
        report = {
            group.name: {
                "units": len(group.units),
                "kept": count,
                "scores": scores[group.name].tolist(),
                **({"change": changed[group.name]} if group.name in changed else {}),
            }
            for group, count in zip(choice.groups, kept, strict=True)
        }
        return Change(removed=removed, recalibrate=True, report=report)

    def plan(self, network: nn.Module) -> Plan:
        """What the targets lead to, as if in one round; without targets, what could be removed. Scores are computed
        where counts depend on them: by `global`, and with several targets. Raises as `compress`."""
        groups = self._groups(network)
        choice = self._choice(network, groups, 0)
        kept = choice.everything
        if self._subject.targets:
            kept = choice.kept(self._limits(choice, 0, 1.0), lambda: self.scores(network, groups, 0))
        return planned(groups, choice, kept)

    def _choice(self, network: nn.Module, groups: Groups, round: int) -> Choice:
        found = removable(groups, self.config.inexact)
        if "data" not in self.needs:  # cheap, and it may leave out groups
            known = self.scores(network, groups, round)
            found = tuple(group for group in found if group.name in known)
        costs = Costs(network, groups, self._subject.sample)
        stays = reasons(groups, self.config.inexact)
        return Choice(found, costs, self.config.allocation, self._subject.round_to, stays)

    def _limits(self, choice: Choice, round: int, share: float) -> dict[str, float]:
        """What this round must come to: a share of the way to the targets, in ratios of costs. Raises UsageError, in
        the first round also where they are met."""
        base = {**choice.cost(choice.everything), **self._subject.base}
        final = checked_limits(choice, self._subject.targets, base)
        if not round:
            check_not_met(choice, final, self._subject.targets)
        return {
            name: limit if share == 1 or limit >= base[name] else base[name] * (limit / base[name]) ** share
            for name, limit in final.items()
        }

    def _groups(self, network: nn.Module) -> Groups:
        """Those of the network, traced once."""
        subject = self._subject
        key = f"groups/{digest(network)}/{','.join(subject.ignored)}"
        if kept := subject.cache.get(key):
            return _GROUPS.validate_json(kept["groups"])
        groups = trace(network, subject.inputs, subject.ignored)
        subject.cache[key] = {"groups": _GROUPS.dump_json(groups).decode()}
        return groups

    def scores(self, network: nn.Module, groups: Groups, round: int) -> Scores:
        """Those of the network, from the cache or computed. Raises TrialError `nan-loss` where they are no numbers."""
        subject = self._subject
        asked: dict[str, Any] = {
            **self.config.model_dump(mode="json", include=set(self.scoring.model_fields)),
            "ignored": subject.ignored,
            "recipe": None if subject.recipe is None else subject.recipe.model_dump(mode="json", include=SCORED_BY),
        }
        key = f"scores/{digest(network)}/{self.name}/{json.dumps(asked, sort_keys=True)}/{round}"
        if kept := subject.cache.get(key):
            return kept
        found = self._score(network, groups, subject, round)
        if not all(numpy.isfinite(values).all() for values in found.values()):
            raise TrialError("nan-loss", f"scores by {self.name} are not finite; the weights may be too large")
        subject.cache[key] = {**found}
        return found

    def _changed(self, network: nn.Module, groups: Groups, removed: Removal) -> dict[str, float]:
        """By group that is not exact, how far its removal alone moves the output from that of the network in which its
        units are 0, relative to the largest output."""
        found = {}
        for group in groups.groups:
            if group.exact or group.name not in removed:
                continue
            alone = {group.name: removed[group.name]}
            small = copy.deepcopy(network)
            remove(small, groups, alone)
            with torch.no_grad():
                wanted, got = (
                    _first(one.eval()(*self._subject.inputs)) for one in (masked(network, groups, alone), small)
                )
            scale = float(wanted.abs().max()) or 1.0
            found[group.name] = float((wanted - got).abs().max()) / scale
        return found


def digest(network: nn.Module) -> str:
    """A hash of the tensors of a network: names, shapes and values."""
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        plain = tensor.detach().cpu().contiguous()
        found.update(f"{name} {plain.dtype} {list(plain.shape)}".encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


class Magnitude(Structured):
    """Remove units with small weights."""

    class Config(Settings, MagnitudeScore.Config):
        """Of the score and of the allocation."""

    name, score, scoring, needs = "magnitude", MagnitudeScore, MagnitudeScore.Config, ("groups",)


class Taylor(Structured):
    """Remove units whose gates change the loss little, to first order."""

    class Config(Settings, TaylorScore.Config):
        """Of the score and of the allocation."""

    name, score, scoring, needs = "taylor", TaylorScore, TaylorScore.Config, ("groups", "data")


class Obd(Structured):
    """Remove units whose weights change the loss little, to second order by the diagonal of the Hessian."""

    class Config(Settings, ObdScore.Config):
        """Of the score and of the allocation."""

    name, score, scoring, needs = "obd", ObdScore, ObdScore.Config, ("groups", "data")


class Oba(Structured):
    """Remove units whose weights change the loss little, to second order with all interactions."""

    class Config(Settings, ObaScore.Config):
        """Of the score and of the allocation."""

    name, score, scoring, needs = "oba", ObaScore, ObaScore.Config, ("groups", "data")


class BnScale(Structured):
    """Remove units that their batch normalisation scales down."""

    class Config(Settings, BnScaleScore.Config):
        """Of the score and of the allocation."""

    name, score, scoring, needs = "bn-scale", BnScaleScore, BnScaleScore.Config, ("groups", "batch-norm")


class Random(Structured):
    """Remove random units: what the other methods are to be held against."""

    class Config(Settings, RandomScore.Config):
        """Of the score and of the allocation."""

    name, score, scoring, needs = "random", RandomScore, RandomScore.Config, ("groups",)
