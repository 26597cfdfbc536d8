"""The value of a node in a cell, and what several operations that leave it need: computed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor
from torch.nn import functional


class Shared:
    """A tensor that several layers read, with what they need of it: computed once. Where a network is written as
    source of its own, the tensor takes its place."""

    __slots__ = ()

    @property
    def tensor(self) -> Tensor:
        raise NotImplementedError

    @property
    def empty(self) -> bool:
        """Nothing is there; `tensor` is zero."""
        return False


class Features(Shared):
    """A node's value `x` `[b, c, h, w]`; None where nothing reaches it: it is zero in the shape `like`."""

    __slots__ = ("_made", "like", "x")

    def __init__(self, x: Tensor | None, like: Tensor | None = None) -> None:
        self.x = x
        self.like = x if like is None else like
        self._made: dict[Hashable, Tensor] = {}

    def once(self, key: Hashable, make: Callable[[Tensor], Tensor]) -> Tensor | None:
        """`make(x)`, computed at the first call with this key; None for an empty node."""
        if self.x is None:
            return None
        if key not in self._made:
            self._made[key] = make(self.x)
        return self._made[key]

    @property
    def relu(self) -> Tensor | None:
        return self.once("relu", functional.relu)

    @property
    def value(self) -> Tensor:
        """`x`, or zeros."""
        if self.x is not None:
            return self.x
        assert self.like is not None
        return torch.zeros_like(self.like)

    @property
    def tensor(self) -> Tensor:
        return self.value

    @property
    def empty(self) -> bool:
        return self.x is None


def total(terms: Iterable[Tensor | None]) -> Tensor | None:
    """The sum of what is there, from left to right; None where nothing is."""
    result: Tensor | None = None
    for term in terms:
        if term is not None:
            result = term if result is None else result + term
    return result


def blend(terms: Iterable[tuple[Tensor | None, Tensor]]) -> Tensor | None:
    """The sum of `weight * term` over pairs (weight, term), from left to right; a weight of None: in full.

    Only a sum that was made here is added to in place: it saves a new map per term, and no term is changed.
    """
    result: Tensor | None = None
    ours = False
    for weight, term in terms:
        if result is None:
            result = term if weight is None else weight * term
            ours = weight is not None
        elif not ours:
            result = result + (term if weight is None else weight * term)
            ours = True
        elif weight is None:
            result.add_(term)
        else:
            result.addcmul_(term, weight)
    return result
