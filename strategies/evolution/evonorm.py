"""The evolution of EvoNorm, on any space.

Liu, Brock, Simonyan and Le, "Evolving Normalization-Activation Layers", NeurIPS 2020, section 4: the population is a
window of the most recent layers that passed all rejections; the winner of a tournament among a random share of it is
mutated, or, as often, a fresh random layer is proposed instead; the winner is the best on average over the hosts, or a
random member of the tournament's Pareto front, which the paper found to give layers that transfer better.

Most random layers, and most mutants, are not worth a training or compute what is known already. Mutation goes on,
keeping the changes that are silent (of the parent's identity), until the candidate is new and its space does not know
it as unsound (`nas_core.space.HasUnsound`); the note says how many were passed over.

Deviations: candidates are distinct. With constraints members are compared by their violations first. What was measured
of a candidate that violates one belongs to the window; what was not evaluated, or not to the end, does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy
from pydantic import Field

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.config import Config as BaseConfig
from nas_core.errors import UsageError
from nas_core.pareto import ranks
from nas_core.seeds import generator
from nas_core.space import Same, unsound
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting
from strategies.basic.random_search import Known, candidates, known_to
from strategies.parts.outcomes import restored, stored

if TYPE_CHECKING:
    from numpy.random import Generator

Note = dict[str, str | int]


class EvoNorm:
    """Tournaments in a window, one mutation per child, fresh candidates in between; children note their parent's
    number (`of`), all how many were passed over as `known`, as `silent` mutants and as `unsound`."""

    class Config(BaseConfig):
        """The paper: a window of 2,500, tournaments of 5%, half of about 5,000 candidates fresh."""

        window: int = Field(50, ge=1, le=100_000, description="most recent evaluated candidates (2,500 in the paper)")
        tournament: float = Field(0.1, gt=0, le=1, description="share of the window in a tournament (.05 in the paper)")
        fresh: float = Field(0.5, ge=0, le=1, description="probability of a random candidate instead of a mutant")
        founders: int = Field(10, ge=1, le=100_000, description="evaluated candidates before the first mutant")
        winner: Literal["pareto", "mean"] = Field(
            "pareto", description="random on the tournament's Pareto front, or the best mean over the objectives"
        )
        tries: int = Field(10_000, ge=1, le=10_000_000, description="candidates that may be passed over in a row")

    def __init__(self, setting: Setting, config: Config) -> None:
        if config.winner == "mean" and len({objective.goal for objective in setting.objectives}) > 1:
            wanted = ", ".join(map(str, setting.objectives))
            raise UsageError(f"evonorm: there is no mean of {wanted}, whose goals differ; use winner=pareto")
        self._setting = setting
        self._config = config
        self._variation = moves.variation(setting.space)
        self._window: deque[Outcome] = deque(maxlen=config.window)
        self._told: set[str] = set()

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        """Raises Exhausted where every candidate is known or unsound."""
        known = known_to(self._setting, self._told, pending)
        rng = generator(self._setting.seed, number, "candidate")
        if len(self._window) >= min(self._config.founders, self._config.window) and rng.random() >= self._config.fresh:
            parent = self.winner(self.contestants(rng), rng)
            child, passed = self._mutant(parent.proposal.arch, known, rng)
            if child is not None:
                return Proposal(child, note={"role": "child", "of": parent.number, **passed})
        arch, passed = self._random(known, rng)
        return Proposal(arch, note={"role": "fresh", **passed})

    def tell(self, outcome: Outcome) -> None:
        self._told.add(self._setting.identity(outcome.proposal.arch))
        if outcome.values is not None:
            self._window.append(outcome)  # the oldest leaves at the other end

    def state_dict(self) -> dict[str, Any]:
        return {"window": [stored(one) for one in self._window], "told": sorted(self._told)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._window.extend(map(restored, state["window"]))
        self._told = set(state["told"])

    def contestants(self, rng: Generator) -> list[Outcome]:
        """A share of the window, drawn without replacement, at least one."""
        size = max(1, round(self._config.tournament * len(self._window)))
        return [self._window[int(member)] for member in rng.choice(len(self._window), size, replace=False)]

    def winner(self, contestants: Sequence[Outcome], rng: Generator) -> Outcome:
        """The parent among them: of the best front, by constrained dominance, or the best mean of the objectives among
        those of the smallest violation."""
        if self._config.winner == "pareto":
            front = [one for one, rank in zip(contestants, ranks(contestants), strict=True) if rank == 0]
            return front[int(rng.integers(len(front)))]
        return max(contestants, key=lambda one: (-one.violation, float(numpy.mean(one.values or 0.0))))

    def _mutant(self, parent: Architecture, known: Known, rng: Generator) -> tuple[Architecture | None, Note]:
        """A new, sound mutant, and what was passed over; None where so many mutations lead to none."""
        own = self._setting.identity(parent)
        passed: Note = {"silent": 0, "known": 0, "unsound": 0}
        arch = parent
        for _ in range(self._config.tries):
            try:
                mutant = self._variation.mutate(arch, rng)
            except ValueError:  # the space leaves nothing to mutate
                break
            identity = self._setting.identity(mutant)
            if identity == own:
                arch, word = mutant, "silent"
            elif known(identity):
                word = "known"
            elif unsound(self._setting.space, mutant) is not None:
                word = "unsound"
            else:
                return mutant, _counted(passed)
            passed[word] = int(passed[word]) + 1
        return None, _counted(passed)

    def _random(self, known: Known, rng: Generator) -> tuple[Architecture, Note]:
        """A new, sound random candidate, and what was passed over. Raises Exhausted."""
        space = self._setting.space
        passed: Note = {"known": 0, "unsound": 0}
        for _ in range(self._config.tries):
            arch = moves.sample(space, rng)
            if known(self._setting.identity(arch)):
                word = "known"
            elif unsound(space, arch) is not None:
                word = "unsound"
            else:
                return arch, _counted(passed)
            passed[word] = int(passed[word]) + 1
        listing = candidates(Same(space), self._setting.identity)
        if listing is None:
            raise Exhausted(f"{self._config.tries:,} random candidates in a row were known or unsound")
        for candidate in rng.permutation(len(listing.identities)).tolist():
            if not known(listing.identities[candidate]):
                arch = listing.member(space, candidate, rng)
                if unsound(space, arch) is None:
                    return arch, _counted(passed)
        raise Exhausted("every candidate of the space is known or unsound")


def _counted(passed: Note) -> Note:
    """Those of which there were any."""
    return {word: count for word, count in passed.items() if count}
