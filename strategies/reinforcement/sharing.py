"""Constrained parameter sharing of Auto-GNN (Zhou et al. 2019, section 3.4): whose weights a child begins with."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Self

from nas_core import tokens
from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.evaluation import Fidelity
from nas_core.space import HasLayerSignatures, SearchSpace
from nas_core.strategy import Outcome, Setting, State

WARM_UP = 20.0
ANCESTORS = 20


class Sharing:
    """The last trials that were trained, up to a number of them; their weights are kept."""

    def __init__(self, space: SearchSpace, warm_up: float, count: int) -> None:
        if not isinstance(space, HasLayerSignatures):
            raise UsageError(
                f"strategy: sharing: space '{space.name}' does not say which layers may take over each other's weights "
                "(`layer_signatures`), as auto-gnn does; leave it off"
            )
        self.warm_up = warm_up
        self._space, self._layers, self._count = space, space, count
        self._ancestors: dict[int, Architecture] = {}  # by trial, in the order in which they ended

    @classmethod
    def of(cls, setting: Setting, warm_up: float | None, count: int | None, sharing: bool) -> Self | None:
        """None without sharing. Raises UsageError for settings of it then, and for a warm-up that no training can
        have."""
        if not sharing:
            for name, value in (("warm_up", warm_up), ("ancestors", count)):
                if value is not None:
                    raise UsageError(f"strategy: {name}: is of use with sharing=true only; set that, or leave it out")
            return None
        return cls(setting.space, _warm_up(setting.fidelity, warm_up), ANCESTORS if count is None else count)

    @property
    def trials(self) -> Collection[int]:
        return tuple(self._ancestors)

    def learn(self, outcome: Outcome) -> None:
        """Take in a trial, if it was trained to its end."""
        if outcome.state != State.COMPLETE:
            return
        self._ancestors[outcome.number] = outcome.proposal.arch
        if len(self._ancestors) > self._count:
            del self._ancestors[next(iter(self._ancestors))]

    def ancestor(self, child: Architecture) -> int | None:
        """The trial with most layers homogeneous with those of `child`, the last of equals; None: none has any."""
        mine = self._layers.layer_signatures(child)
        best, most = None, 0
        for number, arch in self._ancestors.items():
            theirs = self._layers.layer_signatures(arch)
            shared = sum(layer in theirs and theirs[layer] == signature for layer, signature in mine.items())
            if shared and shared >= most:
                best, most = number, shared
        return best

    def state_dict(self) -> list[list[Any]]:
        return [[number, tokens.encode(self._space, arch).tolist()] for number, arch in self._ancestors.items()]

    def load_state_dict(self, state: list[list[Any]]) -> None:
        self._ancestors = {number: tokens.decode(self._space, encoded) for number, encoded in state}


def _warm_up(fidelity: Fidelity | None, wanted: float | None) -> float:
    """The budget of a child that begins with weights."""
    if fidelity is None:
        raise UsageError(
            "strategy: sharing: children with weights are trained briefly, and nothing here can be: train, with "
            "epochs as budgets, outside of a bracket"
        )
    low, high = fidelity.low, fidelity.high
    usual = max((level for level in fidelity.levels or (min(WARM_UP, high),) if level <= WARM_UP), default=low)
    warm_up = usual if wanted is None else wanted
    if not low <= warm_up <= high or (fidelity.levels and warm_up not in fidelity.levels):
        choice = ", ".join(f"{level:g}" for level in fidelity.levels) if fidelity.levels else f"{low:g} to {high:g}"
        raise UsageError(f"strategy: warm_up: {warm_up:g} is no budget in {fidelity.unit}; use {choice}")
    return warm_up
