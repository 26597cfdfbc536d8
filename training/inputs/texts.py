"""Texts as a deployed network gets them: the numbers of their characters, int64 [batch, window]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from training.inputs.base import Inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNKNOWN = 0
"""The number of all characters that the training part does not have."""

UNKNOWN_NAME = "<unk>"


class TextInputs(Inputs):
    """Which characters there are, and how many the network reads at once.

    The number of a character is 1 plus its place in `characters`, 0 of all others. Output n at position p is the logit
    of character n to follow the first p + 1 characters of the window.
    """

    window: int = Field(ge=1)
    characters: str = Field(description="those of the training part, in the order of their code points")

    @property
    def outputs(self) -> tuple[str, ...]:
        return (UNKNOWN_NAME, *self.characters)

    def encode(self, text: str) -> NDArray[np.int32]:
        """The numbers of the characters [len(text)]."""
        return numbered(code_points(text), code_points(self.characters))


def visible(name: str) -> str:
    """A character, or another name of a class, as people can see it: `'\\n'`, `' '`."""
    return name if name.isprintable() and name.strip() else ascii(name)


def code_points(text: str) -> NDArray[np.uint32]:
    """Of every character, [len(text)]."""
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def numbered(codes: NDArray[np.uint32], known: NDArray[np.uint32]) -> NDArray[np.int32]:
    """The numbers of characters by their code points: 1 plus the place among the `known`, which rise; else 0."""
    if not len(known):
        return np.zeros(len(codes), np.int32)
    places = np.searchsorted(known, codes).clip(max=len(known) - 1)
    return np.where(known[places] == codes, places + 1, UNKNOWN).astype(np.int32)
