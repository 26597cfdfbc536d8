"""Local search: hill climbing over one-choice neighbours, with random restarts.

White, Nolen and Savani, "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021 (variant
"best"); Den Ottelander et al., "Local Search is a Remarkably Strong Baseline for Neural Architecture
Search", EMO 2021 (variant "first", neighbours in random order).

The neighbours of the centre are evaluated in random order. "first" moves to the first one that is better;
"best" evaluates them all and moves to the best. Where none is better the centre is a local optimum, and the
climb starts anew from a candidate that is not known yet: a random one, or with `start` the best-scored of a random
pool, which is scored once, then the next best. Known neighbours are proposed again: the study
answers them from its record. With trials in flight the search goes on with further neighbours, and those of
a start that is not evaluated yet are asked ahead of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.config import Config as BaseConfig
from nas_core.pareto import best, better
from nas_core.seeds import generator
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting
from strategies.basic.random_search import known_to, sample_new
from strategies.parts.outcomes import restored, stored
from strategies.parts.scored_pool import SCORED, ScoredPool


class LocalSearch:
    """Hill climbing. A proposal's note says whether it is a start, or of which trial it is a neighbour."""

    class Config(BaseConfig):
        """How the climb moves."""

        move: Literal["first", "best"] = Field(
            "first", description='"first": to the first better neighbour; "best": to the best of all neighbours'
        )
        start: str | None = Field(
            None, description='begin climbs with the best of a scored pool, by a score or a ranking such as "vote"'
        )
        pool: int = Field(SCORED, ge=1, le=100_000, description="random candidates that are scored, with a start")

    def __init__(self, setting: Setting, config: Config) -> None:
        """Raises UsageError for a start by scores that the setting does not have."""
        self._setting = setting
        self._config = config
        self._pool = config.start and ScoredPool(setting, "local-search", config.start, config.pool)
        self._known: set[str] = set()  # identities told; a climb starts at none of them
        self._centre: Outcome | None = None
        self._path: set[int] = set()  # numbers of the centres of this climb
        self._tried: set[str] = set()  # keys of the centre's neighbours told
        self._better: list[Outcome] = []  # those of them that are better than the centre
        self._ahead: list[Outcome] = []  # neighbours told before their start was
        # The last answer of `_neighbours`, which every ask and tell of one centre shares.
        self._around: tuple[tuple[int, Architecture] | None, list[Architecture]] = (None, [])

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        start = next((trial for trial in pending if trial.proposal.note.get("role") == "start"), None)
        if self._centre is not None:
            centre, arch, told = self._centre.number, self._centre.proposal.arch, self._tried
        elif start is not None:
            centre, arch = start.number, start.proposal.arch
            told = {one.proposal.arch.key for one in self._ahead if one.proposal.note["of"] == centre}
        else:
            return self._start(number, pending)
        asked = {trial.proposal.arch.key for trial in pending if trial.proposal.note.get("of") == centre}
        for neighbour in self._neighbours(centre, arch):
            if neighbour.key not in told and neighbour.key not in asked:
                return Proposal(neighbour, note={"role": "neighbour", "of": centre})
        return None

    def tell(self, outcome: Outcome) -> None:
        self._known.add(self._setting.identity(outcome.proposal.arch))
        note = outcome.proposal.note
        if note.get("role") == "start":
            ahead, self._ahead = self._ahead, []
            # Whoever warms the search up tells several starts.
            if _measured(outcome) and (self._centre is None or better(outcome, self._centre)):
                self._path = set()
                self._move(outcome)
                for neighbour in ahead:
                    self._learn(neighbour)
        elif note.get("role") == "neighbour":
            if self._centre is not None:
                self._learn(outcome)
            else:
                self._ahead.append(outcome)

    def state_dict(self) -> dict[str, Any]:
        return {
            "known": sorted(self._known),
            "centre": None if self._centre is None else stored(self._centre),
            "path": sorted(self._path),
            "tried": sorted(self._tried),
            "better": [stored(one) for one in self._better],
            "ahead": [stored(one) for one in self._ahead],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._known, self._path, self._tried = set(state["known"]), set(state["path"]), set(state["tried"])
        self._centre = None if state["centre"] is None else restored(state["centre"])
        self._better = [restored(one) for one in state["better"]]
        self._ahead = [restored(one) for one in state["ahead"]]

    def _start(self, number: int, pending: Sequence[Pending]) -> Proposal:
        rng = generator(self._setting.seed, number, "start")
        known = known_to(self._setting, self._known, pending)
        best = self._pool.best if self._pool else ()
        arch = next((arch for arch in best if not known(self._setting.identity(arch))), None)
        arch = arch or sample_new(self._setting, known, rng)
        if arch is None:
            raise Exhausted("every candidate of the space is known")
        return Proposal(arch, note={"role": "start"})

    def _learn(self, outcome: Outcome) -> None:
        """Take in a neighbour of this climb; one of an earlier centre may still be better than this one."""
        origin = outcome.proposal.note["of"]
        if self._centre is None or origin not in self._path:
            return
        if origin == self._centre.number:
            self._tried.add(outcome.proposal.arch.key)
        if _measured(outcome) and better(outcome, self._centre):
            self._better.append(outcome)
        neighbours = self._neighbours(self._centre.number, self._centre.proposal.arch)
        complete = len(self._tried) == len(neighbours)
        if self._better and (complete or self._config.move == "first"):
            self._move(best(self._better))
        elif complete:
            self._centre = None

    def _move(self, outcome: Outcome) -> None:
        self._centre = outcome
        self._path.add(outcome.number)
        self._tried = set()
        self._better = []
        if not self._neighbours(outcome.number, outcome.proposal.arch):
            self._centre = None

    def _neighbours(self, centre: int, arch: Architecture) -> list[Architecture]:
        """The neighbours of a trial's architecture in random order, the same at every call."""
        if self._around[0] != (centre, arch):
            found = moves.neighbours(self._setting.space, arch)
            order = generator(self._setting.seed, centre, "neighbours").permutation(len(found))
            self._around = ((centre, arch), [found[position] for position in order])
        return self._around[1]


def _measured(outcome: Outcome) -> bool:
    """Whether the outcome can be compared: a failed trial has neither values nor violations."""
    return outcome.values is not None or bool(outcome.violations)
