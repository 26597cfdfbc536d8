"""What a function is told apart by: its values on fixed inputs, to a few digits."""

from __future__ import annotations

import hashlib

import numpy
from numpy.typing import NDArray

Array = NDArray[numpy.float64]

EQUAL = 1e-6  # of the largest value: the same but for rounding
DIGITS = 4  # of a value that are looked at


def signature(y: Array, axes: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """Equal for finite values `y`, which spread to `shape`, that are the same to four significant digits. What is tiny
    beside the largest value over `axes` is nothing."""
    size = numpy.abs(y)
    # What cancels leaves rounding behind.
    there = size > EQUAL * size.max(axis=axes, keepdims=True)
    exponents = numpy.floor(numpy.log10(numpy.where(there, size, 1.0)))
    digits = numpy.round(numpy.where(there, y, 0.0) / 10.0 ** (exponents - DIGITS + 1))
    spread = numpy.broadcast_to(numpy.stack((digits, exponents)), (2, *shape))
    return "~" + digest(spread.astype(numpy.int32).tobytes())


def of_text(text: str) -> str:
    """For what has no finite values: equal where its text is."""
    return "=" + digest(text.encode())


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
