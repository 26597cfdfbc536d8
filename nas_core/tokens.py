"""The fixed-length token view of an architecture: one integer per choice, 0 where it is inactive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy

from nas_core.architecture import Architecture
from nas_core.choice import Value
from nas_core.space import SearchSpace

if TYPE_CHECKING:
    from numpy.typing import NDArray


def encode(space: SearchSpace, arch: Architecture) -> NDArray[numpy.int64]:
    """Tokens `[choices]`: 0 for an inactive choice, otherwise 1 + the position of its value."""
    tokens = numpy.zeros(len(space.choices), dtype=numpy.int64)
    for position, choice in enumerate(space.choices):
        if choice.name in arch.values:
            tokens[position] = 1 + choice.index(arch.values[choice.name])
    return tokens


def decode(space: SearchSpace, tokens: Sequence[int] | NDArray[numpy.int64]) -> Architecture:
    """The architecture with these tokens. Raises ValueError for tokens that no architecture has."""
    if len(tokens) != len(space.choices):
        raise ValueError(f"space '{space.name}' has {len(space.choices)} tokens, got {len(tokens)}")
    values: dict[str, Value] = {}
    for choice, token in zip(space.choices, tokens, strict=True):
        if not 0 <= token <= len(choice.options):
            raise ValueError(f"token {token} of choice '{choice.name}' is not in 0..{len(choice.options)}")
        if token:
            values[choice.name] = choice.options[int(token) - 1]
    arch = Architecture(space.name, values)
    reason = space.illegal(arch)
    if reason:
        raise ValueError(f"tokens {list(map(int, tokens))}: {reason}")
    return arch


def one_hot(space: SearchSpace, arch: Architecture) -> NDArray[numpy.float64]:
    """One-hot vector over all options of all choices, `[sum of option counts]`; inactive choices are zeros."""
    blocks = []
    for choice, token in zip(space.choices, encode(space, arch), strict=True):
        block = numpy.zeros(len(choice.options))
        if token:
            block[token - 1] = 1.0
        blocks.append(block)
    return numpy.concatenate(blocks)


def mask(space: SearchSpace, position: int, tokens: Sequence[int]) -> NDArray[numpy.bool_]:
    """Which tokens `[1 + options]` choice `position` may take after the tokens of the earlier choices."""
    choice = space.choices[position]
    prefix: dict[str, Value] = {
        earlier.name: earlier.options[int(token) - 1]
        for earlier, token in zip(space.choices[:position], tokens, strict=False)
        if token
    }
    result = numpy.zeros(1 + len(choice.options), dtype=bool)
    if not choice.active(prefix):
        result[0] = True
        return result
    for value in space.allowed(choice, prefix):
        result[1 + choice.index(value)] = True
    return result
