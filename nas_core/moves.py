"""Moves on architectures. Each is a way of answering `complete`, so every result is legal by construction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value
from nas_core.errors import UsageError
from nas_core.space import HasVariation, SearchSpace

if TYPE_CHECKING:
    from numpy.random import Generator

Pick = Callable[[Choice, tuple[Value, ...]], Value]


def complete(space: SearchSpace, partial: Mapping[str, Value], pick: Pick) -> Architecture:
    """Walk the choices in order: keep what is given, active and allowed; ask `pick` for the rest.

    `pick(choice, options)` gets the options that are still allowed and returns one of them.
    """
    values: dict[str, Value] = {}
    for choice in space.choices:
        if choice.when and not choice.active(values):
            continue
        options = space.allowed(choice, values)
        if not options:
            raise UsageError(f"space '{space.name}' allows no option of '{choice.name}' after {values}")
        given = partial.get(choice.name)
        values[choice.name] = given if given is not None and given in options else pick(choice, options)
    return Architecture(space.name, values)


def uniformly(rng: Generator) -> Pick:
    """Answer with a uniform draw."""
    return lambda choice, options: options[int(rng.integers(len(options)))]


def first(choice: Choice, options: tuple[Value, ...]) -> Value:
    """Answer with the first allowed option."""
    return options[0]


def sample(space: SearchSpace, rng: Generator) -> Architecture:
    """An architecture drawn choice by choice, each uniformly over what is allowed."""
    return complete(space, {}, uniformly(rng))


def free_choices(space: SearchSpace, arch: Architecture) -> list[tuple[Choice, tuple[Value, ...]]]:
    """The active choices that could take another value, each with those values."""
    free = []
    prefix: dict[str, Value] = {}
    for choice in space.choices:
        if choice.name not in arch.values:
            continue
        value = arch.values[choice.name]
        others = tuple(option for option in space.allowed(choice, prefix) if option != value)
        if others:
            free.append((choice, others))
        prefix[choice.name] = value
    return free


def mutate(space: SearchSpace, arch: Architecture, rng: Generator) -> Architecture:
    """One choice, drawn uniformly, takes another value; what depends on it is drawn anew where it must be.

    Raises ValueError when the space leaves no choice free.
    """
    free = free_choices(space, arch)
    if not free:
        raise ValueError(f"space '{space.name}' leaves nothing to mutate in {dict(arch.values)}")
    choice, others = free[int(rng.integers(len(free)))]
    value = others[int(rng.integers(len(others)))]
    return complete(space, {**arch.values, choice.name: value}, uniformly(rng))


def crossover(
    space: SearchSpace, one: Architecture, other: Architecture, rng: Generator
) -> tuple[Architecture, Architecture]:
    """Two children: each choice of the first comes from one of the parents, drawn uniformly, and that of the second
    from the other one (uniform crossover)."""
    taken: tuple[dict[str, Value], dict[str, Value]] = ({}, {})
    for choice in space.choices:
        parents = (one, other) if rng.integers(2) == 0 else (other, one)
        for partial, parent in zip(taken, parents, strict=True):
            if choice.name in parent.values:
                partial[choice.name] = parent.values[choice.name]
    first, second = (complete(space, partial, uniformly(rng)) for partial in taken)
    return first, second


def variation(space: SearchSpace) -> HasVariation:
    """The space's own mutation and crossover where it has them, the generic ones otherwise."""
    return space if isinstance(space, HasVariation) else _Generic(space)


@dataclass(frozen=True)
class _Generic:
    space: SearchSpace

    def mutate(self, arch: Architecture, rng: Generator) -> Architecture:
        return mutate(self.space, arch, rng)

    def crossover(self, one: Architecture, other: Architecture, rng: Generator) -> tuple[Architecture, Architecture]:
        return crossover(self.space, one, other, rng)


def neighbours(space: SearchSpace, arch: Architecture) -> list[Architecture]:
    """All architectures that differ in one choice; what depends on it takes its first allowed option."""
    found: dict[Architecture, None] = {}
    for choice, others in free_choices(space, arch):
        for value in others:
            found[complete(space, {**arch.values, choice.name: value}, first)] = None
    return list(found)


def enumerate_all(space: SearchSpace) -> Iterator[Architecture]:
    """Every architecture, in lexicographic order of the options; the last choice changes fastest."""
    return (Architecture(space.name, values) for values in _prefixes(space, len(space.choices)))


def _prefixes(space: SearchSpace, depth: int) -> Iterator[Mapping[str, Value]]:
    """Every way in which the first `depth` choices can be made; the mapping is the same one all along."""
    choices = space.choices[:depth]
    values: dict[str, Value] = {}
    left: list[tuple[int, Iterator[Value]]] = []  # of the choices that are made: where they are, options still to come
    position = 0
    while True:
        if position == depth:
            yield values
        elif (choice := choices[position]).when and not choice.active(values):
            position += 1
            continue
        else:
            left.append((position, iter(space.allowed(choice, values))))
        while left:
            position, options = left[-1]
            values.pop(choices[position].name, None)
            for option in options:
                values[choices[position].name] = option
                position += 1
                break
            else:
                left.pop()
                continue
            break
        else:
            return


def size(space: SearchSpace, limit: int = 1_000_000) -> int | None:
    """How many architectures the space holds; None when that is more than `limit` and has no closed form."""
    plain = type(space).allowed is SearchSpace.allowed
    if plain and not any(choice.when for choice in space.choices):
        return math.prod(len(choice.options) for choice in space.choices)
    depth = 0
    while True:
        depth = min(2 * depth + 8, len(space.choices))  # each prefix can be completed: too many are seen early
        count = sum(1 for _ in islice(_prefixes(space, depth), limit + 1))
        if count > limit:
            return None
        if depth == len(space.choices):
            return count
