"""Random search: candidates drawn uniformly, none of them twice.

Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 13 (2012). For architectures it
is the baseline that has to be beaten: Li and Talwalkar, "Random Search and Reproducibility for Neural
Architecture Search", UAI 2019.

A candidate is a class of architectures with one identity. A space of up to `LISTED` architectures is listed
once, and classes are drawn uniformly whatever their size; a uniformly drawn member stands for its class.
A larger space is sampled choice by choice, and candidates that are known already are drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy

from nas_core import moves, tokens
from nas_core.architecture import Architecture
from nas_core.config import Config as BaseConfig
from nas_core.seeds import generator
from nas_core.space import Same, SearchSpace
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

LISTED = 200_000
"""Spaces with at most this many architectures are listed (about 70 bytes each, shared by a process's studies)."""

TRIES = 64
"""Draws that may hit a known candidate before the unknown ones are listed."""

SPARSE_TRIES = 1_000
"""The same where the space cannot be listed: as many known candidates in a row mean that none is left."""

Known = Callable[[str], bool]


class RandomSearch:
    """Uniform draws without replacement; the search is exhausted when every candidate is known or pending."""

    class Config(BaseConfig):
        """Random search has nothing to set."""

    def __init__(self, setting: Setting, config: Config) -> None:
        self._setting = setting
        self._told: set[str] = set()

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        rng = generator(self._setting.seed, number, "draw")
        arch = draw(self._setting, known_to(self._setting, self._told, pending), rng)
        if arch is None:
            raise Exhausted("every candidate of the space is known")
        return Proposal(arch)

    def tell(self, outcome: Outcome) -> None:
        self._told.add(self._setting.identity(outcome.proposal.arch))

    def state_dict(self) -> dict[str, Any]:
        return {"told": sorted(self._told)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._told = set(state["told"])


def known_to(setting: Setting, told: set[str], pending: Sequence[Pending]) -> Known:
    """Whether an identity is among those told or pending."""
    waiting = {setting.identity(trial.proposal.arch) for trial in pending}
    return lambda identity: identity in told or identity in waiting


def draw(setting: Setting, known: Known, rng: Generator) -> Architecture | None:
    """A candidate that is not known, uniformly where the space can be listed; None when there is none.

    Where it cannot be listed, None means that `SPARSE_TRIES` draws in a row were known.
    """
    listing = candidates(Same(setting.space), setting.identity)
    if listing is None:
        return _sample(setting, known, rng, SPARSE_TRIES)
    for _ in range(TRIES):
        candidate = int(rng.integers(len(listing.identities)))
        if not known(listing.identities[candidate]):
            return listing.member(setting.space, candidate, rng)
    left = [candidate for candidate, identity in enumerate(listing.identities) if not known(identity)]
    return listing.member(setting.space, left[int(rng.integers(len(left)))], rng) if left else None


def sample_new(setting: Setting, known: Known, rng: Generator) -> Architecture | None:
    """An architecture sampled choice by choice whose identity is not known; None when there is none.

    Larger classes are likelier than in `draw`, and the space is listed only when hardly anything is left.
    """
    return _sample(setting, known, rng, TRIES) or draw(setting, known, rng)


def _sample(setting: Setting, known: Known, rng: Generator, tries: int) -> Architecture | None:
    for _ in range(tries):
        arch = moves.sample(setting.space, rng)
        if not known(setting.identity(arch)):
            return arch
    return None


@dataclass(frozen=True)
class Candidates:
    """The classes of a space. Rows `starts[i]:starts[i + 1]` of `members` are the tokens of those in class i."""

    identities: list[str]
    starts: NDArray[numpy.int64]
    members: NDArray[numpy.int16]

    def member(self, space: SearchSpace, candidate: int, rng: Generator) -> Architecture:
        """A uniformly drawn architecture of the class."""
        row = self.members[int(rng.integers(self.starts[candidate], self.starts[candidate + 1]))]
        return Architecture(
            space.name,
            {c.name: c.options[token - 1] for c, token in zip(space.choices, row.tolist(), strict=True) if token},
        )


@lru_cache(maxsize=4)
def candidates(key: Same, identity: Callable[[Architecture], str]) -> Candidates | None:
    """The candidates in the order in which the enumeration meets them; None for a space above `LISTED`."""
    space = key.space
    if (moves.size(space, LISTED) or LISTED + 1) > LISTED:
        return None
    classes: dict[str, list[NDArray[numpy.int16]]] = {}
    for arch in moves.enumerate_all(space):
        classes.setdefault(identity(arch), []).append(tokens.encode(space, arch).astype(numpy.int16))
    sizes = [len(members) for members in classes.values()]
    return Candidates(
        identities=list(classes),
        starts=numpy.concatenate([[0], numpy.cumsum(sizes)]),
        members=numpy.stack([member for members in classes.values() for member in members]),
    )
