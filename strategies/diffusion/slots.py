"""The tokens of a space as masked diffusion sees them: which there are, which are allowed, in what order they come.

A slot is a choice. Its token is 0 where the choice is absent, 1 + the position of its option otherwise
(`nas_core.tokens`), and `mask` as long as it is undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy

from nas_core import tokens
from nas_core.architecture import Architecture
from nas_core.choice import Value
from nas_core.space import SearchSpace

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    Tokens = NDArray[numpy.int64]
    Masks = NDArray[numpy.bool_]


class Slots:
    """`count` slots L with at most `width` tokens W each; `support` [L, W] are the tokens that a slot can have at all.

    `ids` [L, W] number what is the same everywhere: an option of a kind, or of a choice without one, and absence.
    `free`: every combination of tokens is an architecture, so slots can be decided in any order, and a uniform draw of
    each is a uniform draw of all.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.count = len(space.choices)
        self.width = 1 + max(len(choice.options) for choice in space.choices)
        self.mask = self.width
        self.support: Masks = numpy.zeros((self.count, self.width), dtype=bool)
        self.ids: Tokens = numpy.zeros((self.count, self.width), dtype=numpy.int64)
        known: dict[tuple[object, ...], int] = {}
        for slot, choice in enumerate(space.choices):
            self.support[slot, 0] = bool(choice.when)
            self.support[slot, 1 : 1 + len(choice.options)] = True
            for token, option in enumerate(choice.options, 1):
                key = (bool(choice.kind), choice.kind or choice.name, type(option).__name__, option)
                self.ids[slot, token] = known.setdefault(key, 1 + len(known))
        self.vocabulary = 1 + len(known)
        self.coupled = type(space).allowed is not SearchSpace.allowed
        self.free = not self.coupled and not any(choice.when for choice in space.choices)

    def encode(self, archs: Sequence[Architecture]) -> Tokens:
        """[n, L]"""
        return numpy.array([tokens.encode(self.space, arch) for arch in archs], numpy.int64).reshape(-1, self.count)

    def decode(self, rows: Tokens) -> list[Architecture]:
        """Raises ValueError for rows [n, L] that no architecture has."""
        return [tokens.decode(self.space, row) for row in rows]

    def walk(self, count: int, rng: Generator) -> Walk:
        """`count` architectures, all undecided, each with an order of its own."""
        return Walk(self, count, rng)


class Walk:
    """Architectures that are decided slot by slot: step s decides slot `orders[i, s]` of architecture i.

    The orders are uniformly drawn where slots are free; where conditions bind them, uniformly among all slots whose
    conditions are decided; where earlier choices restrict later ones, they are those of the space, because what is
    allowed is known after all earlier choices only. So whatever is decided can be completed.
    """

    def __init__(self, slots: Slots, count: int, rng: Generator) -> None:
        self._slots = slots
        self._prefixes: list[dict[str, Value]] = [{} for _ in range(count)] if not slots.free else []
        self.tokens: Tokens = numpy.full((count, slots.count), slots.mask, dtype=numpy.int64)
        self.orders: Tokens = _orders(slots, count, rng)

    def allowed(self, step: int) -> Masks:
        """Tokens [n, W] that the slot of this step may take; at least one for each architecture."""
        slots, here = self._slots, self.orders[:, step]
        if slots.free:
            return slots.support[here]
        found = numpy.zeros((len(here), slots.width), dtype=bool)
        for row, slot, prefix in zip(found, here.tolist(), self._prefixes, strict=True):
            choice = slots.space.choices[slot]
            if not choice.active(prefix):
                row[0] = True
            elif slots.coupled:
                row[[1 + choice.index(value) for value in slots.space.allowed(choice, prefix)]] = True
            else:
                row[1 : 1 + len(choice.options)] = True
        return found

    def decide(self, step: int, chosen: Tokens) -> None:
        """Take tokens [n] that are allowed."""
        here = self.orders[:, step]
        self.tokens[numpy.arange(len(here)), here] = chosen
        for slot, token, prefix in zip(here.tolist(), chosen.tolist(), self._prefixes, strict=False):
            if token:
                choice = self._slots.space.choices[slot]
                prefix[choice.name] = choice.options[token - 1]


def _orders(slots: Slots, count: int, rng: Generator) -> Tokens:
    if slots.coupled:
        return numpy.tile(numpy.arange(slots.count), (count, 1))
    ranks = rng.random((count, slots.count))
    if slots.free:
        return numpy.argsort(ranks, axis=1)
    place = {choice.name: slot for slot, choice in enumerate(slots.space.choices)}
    for slot, choice in enumerate(slots.space.choices):
        for condition in choice.when:  # conditions name earlier choices, so theirs is final here
            ranks[:, slot] = numpy.maximum(ranks[:, slot], ranks[:, place[condition.name]] + 1e-12)
    return numpy.argsort(ranks, axis=1, kind="stable")
