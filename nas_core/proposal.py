"""What a strategy wants evaluated, and how far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nas_core.architecture import Architecture
from nas_core.choice import Value

Budget = float


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a strategy wants evaluated.

    `budget` is the total to reach, in the evaluator's fidelity; None: the study's own. `continues` is the number of
    a told trial of the same architecture whose training goes on (same training seed, its checkpoint): what was
    spent there is not spent again. `transfer` is the number of a told trial, of whatever architecture, with whose
    weights the training begins, as far as they mean the same in both networks (`nas_core.traits.HasSignature`): one of
    those that the strategy has named as `donors` (`nas_core.strategy.Transfers`). `note` is the strategy's own
    memory: stored, never interpreted.
    """

    arch: Architecture
    budget: Budget | None = None
    continues: int | None = None
    note: Mapping[str, Value] = field(default_factory=dict)
    transfer: int | None = None
