"""Questions for a network: the tokens of an npz file."""

from __future__ import annotations

import numpy as np

from nas_core.errors import UsageError
from nas_core.task import PADDING
from training.data.files import arrays, file_of
from training.inputs.questions import QuestionInputs
from training.inputs.samples import Samples

EXAMPLE = "npz:FILE with an array 'tokens'"


def read(inputs: QuestionInputs, argument: str) -> Samples:
    """Raises NotFoundError, or UsageError naming file and fault."""
    scheme, colon, rest = argument.partition(":")
    if not colon or scheme != "npz":
        raise UsageError(f"'{argument}' holds no questions, which the network answers; give {EXAMPLE}")
    path = file_of("npz", rest, EXAMPLE)
    tokens = arrays(path, ("tokens",), ("tokens",))["tokens"]
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu" or not 1 <= tokens.shape[1] <= inputs.length:
        raise UsageError(
            f"{path}: tokens are {tokens.dtype} {tokens.shape}; needed are integers [n, at most {inputs.length}]"
        )
    if tokens.size and (tokens.min() < 0 or tokens.max() >= inputs.vocabulary):
        raise UsageError(
            f"{path}: tokens are {tokens.min()} to {tokens.max()}; the network knows 0 to {inputs.vocabulary - 1}"
        )
    more = inputs.length - tokens.shape[1]
    padded = np.pad(tokens.astype(np.int64), ((0, 0), (0, more)), constant_values=PADDING)
    return Samples(tuple(f"{path}:{row}" for row in range(len(tokens))), (padded,))
