"""Randomness is derived from (study seed, trial number, purpose) and never stored."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy


def _entropy(words: tuple[int | str, ...]) -> list[int]:
    """Non-negative integers for a SeedSequence; text becomes the first 8 bytes of its SHA-256."""
    return [
        word if isinstance(word, int) else int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
        for word in words
    ]


def generator(*words: int | str) -> numpy.random.Generator:
    """A numpy generator that depends on the words alone, e.g. `generator(seed, number, "mutate")`."""
    from numpy.random import SeedSequence, default_rng

    return default_rng(SeedSequence(_entropy(words)))


def derive(*words: int | str) -> int:
    """A 63-bit seed that depends on the words alone, for libraries that take an integer."""
    from numpy.random import SeedSequence

    return int(SeedSequence(_entropy(words)).generate_state(1, "uint64")[0] >> 1)
