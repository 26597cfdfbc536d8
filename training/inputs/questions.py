"""Questions as a deployed network gets them: tokens of a question and its passage, int64 [batch, length]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from training.inputs.base import Inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST = 3
"""Tokens of an answer at most."""


class QuestionInputs(Inputs):
    """How many tokens a question with its passage has, 0 after its end, and how many different ones there are."""

    length: int = Field(ge=1)
    vocabulary: int = Field(ge=1)

    def in_own_unit(self, answers: NDArray[Any]) -> NDArray[Any]:
        """Places of the first and the last token [n, 2] of the likeliest answer, of logits [n, length, 2]."""
        scores = np.full((len(answers), answers.shape[1], LONGEST), -np.inf)
        for more in range(LONGEST):
            count = answers.shape[1] - more
            scores[:, :count, more] = answers[:, :count, 0] + answers[:, more:, 1]
        best = scores.reshape(len(answers), -1).argmax(1)
        return np.stack([best // LONGEST, best // LONGEST + best % LONGEST], axis=1)
