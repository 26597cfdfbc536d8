"""ARGNP (Cai et al., CVPR 2022): networks that grow, by rounds of a search that each double the vertices of the last.

A round divides every vertex of the network that the round before has derived: the first half keeps what the vertex did,
what the second one does is decided by SGAS, on a fresh supernet. So a step costs in proportion to the size of the
network, where a supernet of all its vertices costs in proportion to the square. The networks of all rounds are results,
the largest first. Deviations from the published program: architecture parameters begin normal around 0, not uniform,
the weights learn from the whole training part, and not from half of it, and a criterion that is the same for all groups
counts 1 in a score, and not 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Self

import torch
from pydantic import Field, model_validator

from nas_core.architecture import Architecture
from nas_core.batch import Data
from nas_core.errors import UsageError
from nas_core.one_shot import Compute, Progress
from nas_core.partial import HasDivision
from nas_core.space import SearchSpace
from nas_core.strategy import Setting
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot import sgas
from strategies.one_shot.weights import unconstrained

ROUNDS, WARM_UP, DECIDE_EVERY = 4, 10, 5
MOST = 16
EPOCHS = 26 + 26 + 46 + 86


class Argnp:
    """Proliferation around `sgas`, on a space whose networks can be divided (`nas_core.partial.HasDivision`).

    Rounds take 26, 26, 46 and 86 epochs, as published: those of the warm-up, and from one decision to the next. Other
    `epochs` are those of all rounds, each of which gets its share.
    """

    class Config(sgas.Sgas.Config):
        """The defaults are those of the published program; weights and architecture learn from the same batches."""

        rounds: int = Field(
            default=ROUNDS,
            ge=1,
            le=MOST,
            description="each doubles the vertices; default: 4, but at most one per epoch",
        )
        epochs: int = Field(
            default=EPOCHS, ge=1, le=100_000, description="of all rounds; default: what the other settings come to"
        )
        warm_up_epochs: int | None = Field(
            default=WARM_UP,
            ge=0,
            description="at the start of a round, in which nothing is decided; null, and by default with other epochs: "
            f"{WARM_UP}, but at most 30% of a round",
        )
        decide_every: int | None = Field(
            default=DECIDE_EVERY,
            ge=1,
            description="epochs from one decision to the next; null, and by default with other epochs: such that the "
            "last one is made in the last epoch of a round",
        )
        bilevel: bool = Field(default=False, description="true: the architecture learns from another half of the data")

        @model_validator(mode="before")
        @classmethod
        def _intervals_or_epochs(cls, given: Any) -> Any:
            """Either the epochs follow from the intervals, or the intervals from the epochs."""
            if not isinstance(given, Mapping):
                return given
            epochs = given.get("epochs")
            default = ROUNDS if type(epochs) is not int else max(1, min(ROUNDS, epochs))
            rounds = given.get("rounds", default)
            warm_up, every = given.get("warm_up_epochs"), given.get("decide_every")
            if not all(type(one) is int or one is None for one in (rounds, warm_up, every)) or not 1 <= rounds <= MOST:
                return given
            needed = sum(published(rounds, warm_up, every))
            if epochs in (None, needed):
                return {**given, "rounds": rounds, "epochs": needed}
            return {"warm_up_epochs": None, "decide_every": None, **given, "rounds": rounds}

        @model_validator(mode="after")
        def _consistent(self) -> Self:
            needed = published(self.rounds, self.warm_up_epochs, self.decide_every)
            if self.decide_every is not None and sum(needed) != self.epochs:
                raise ValueError(
                    f"{self.rounds} rounds with a decision every {self.decide_every} epochs take {sum(needed)} epochs, "
                    f"and not {self.epochs}; leave out epochs, or decide_every"
                )
            if self.epochs < self.rounds:
                raise ValueError(f"epochs {self.epochs} are fewer than the {self.rounds} rounds")
            shortest = min(self.lengths)
            if self.warm_up_epochs is not None and self.warm_up_epochs >= shortest:
                raise ValueError(
                    f"warm_up_epochs {self.warm_up_epochs} leaves none of a round's {shortest} epochs for decisions"
                )
            return self

        @property
        def lengths(self) -> tuple[int, ...]:
            """The epochs of each round: as published, or in these proportions and at least one."""
            shares = published(self.rounds, self.warm_up_epochs, self.decide_every)
            whole, rest = sum(shares), self.epochs - self.rounds
            if whole == self.epochs:
                return shares
            ends = [rest * done // whole + number for number, done in enumerate(accumulate(shares), 1)]
            return tuple(end - start for start, end in zip([0, *ends], ends, strict=False))

        def of_round(self, number: int) -> sgas.Sgas.Config:
            """The settings of the search in a round, from 0."""
            own = {name: getattr(self, name) for name in sgas.Sgas.Config.model_fields}
            return sgas.Sgas.Config(**{**own, "epochs": self.lengths[number]})

    def __init__(self, setting: Setting, config: Config) -> None:
        """Raises UsageError for a space that is not relaxable, cannot be divided, or not so often; and for
        constraints."""
        unconstrained(setting, "argnp")
        space = setting.space
        if not isinstance(space, HasDivision):
            raise UsageError(
                f"strategy 'argnp' divides the vertices of networks, and space '{space.name}' does not say how "
                "(initial, divide); use --space argnp, or --strategy sgas"
            )
        if config.rounds > space.rounds:
            raise UsageError(
                f"strategy 'argnp': {config.rounds} rounds are too many for space '{space.name}', which has room for "
                f"{space.rounds}; take -s strategy.rounds={space.rounds}, or a space of more vertices"
            )
        self.setting, self.config = setting, config
        self.space: HasDivision = space
        self.ends = list(accumulate(config.lengths))
        self.derived: list[Architecture] = []  # of the rounds before

    def start(self, make: Callable[..., Any], data: Data, compute: Compute) -> None:
        self.make, self.data, self.compute = make, data, compute
        self._begin([])

    @property
    def supernet(self) -> Supernet:
        """That of the round."""
        return self.inner.supernet

    def step(self, epoch: int) -> Progress:
        if epoch in self.ends:
            self._begin([*self.derived, *self.inner.result()])
        number = len(self.derived)
        progress = self.inner.step(epoch - (self.ends[number - 1] if number else 0))
        metrics = {**progress.metrics, "round": number + 1.0}
        return replace(progress, metrics=metrics, done=progress.done and number + 1 == self.config.rounds)

    def result(self) -> Sequence[Architecture]:
        """The networks of all rounds, the largest first."""
        return [*self.inner.result(), *reversed(self.derived)]

    def largest(self, make: Callable[..., Any]) -> SearchSpace:
        """A space of the last round, for what its supernet needs; whatever the rounds before derive, it is as large."""
        space = self.space.initial()
        for _ in range(1, self.config.rounds):
            with torch.device("meta"):
                supernet = make(space)
            uniform = {name: torch.ones(len(group.options), device="cpu") for name, group in supernet.groups.items()}
            space = self.space.divide(supernet.derive(uniform))
        return space

    def state_dict(self) -> dict[str, Any]:
        return {"derived": [arch.to_json() for arch in self.derived], "inner": self.inner.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._begin([Architecture.from_json(arch) for arch in state["derived"]])
        self.inner.load_state_dict(state["inner"])

    def _begin(self, derived: list[Architecture]) -> None:
        """The round after those that have derived these networks."""
        space = self.space.divide(derived[-1]) if derived else self.space.initial()
        self.derived = derived
        self.inner = sgas.Sgas(replace(self.setting, space=space), self.config.of_round(len(derived)))
        self.inner.start(lambda: self.make(space), self.data, self.compute)


def published(rounds: int, warm_up: int | None, every: int | None) -> tuple[int, ...]:
    """The epochs of rounds in which so many vertices are new: 2, 2, 4, 8, ... There are two decisions per new vertex
    and kind of state."""
    new = [max(2, 2**number) for number in range(rounds)]
    warm_up, every = WARM_UP if warm_up is None else warm_up, every or DECIDE_EVERY
    return tuple(warm_up + (2 * count - 1) * every + 1 for count in new)
