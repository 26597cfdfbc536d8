"""Texts for a language model: the windows of a file, and how a text may go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.seeds import generator
from training.data import text as texts
from training.data.files import file_of
from training.inputs.base import Tensors
from training.inputs.samples import Samples
from training.inputs.texts import UNKNOWN, TextInputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLE = "text:FILE, or its path"


def read(inputs: TextInputs, argument: str) -> Samples:
    """`text:FILE` or a path, gzipped or not: windows side by side, as in training, and one more of the last characters
    where these fill no window, from which the character after the text is predicted.

    Raises NotFoundError, or UsageError naming file and fault.
    """
    path = file_of("text", argument.removeprefix("text:"), EXAMPLE)
    tokens, window = inputs.encode(texts.read(path)).astype(np.int64), inputs.window
    starts = list(range(0, len(tokens), window))
    targets = np.stack([_padded(tokens[start + 1 : start + window + 1], window, -1) for start in starts])
    if starts[-1] and len(tokens) % window:
        starts.append(len(tokens) - window)
        targets = np.concatenate([targets, np.full((1, window), -1)])
    rows = np.stack([_padded(tokens[start : start + window], window, UNKNOWN) for start in starts])
    asked = (len(starts) - 1, len(tokens) - 1 - starts[-1])
    missing = int((tokens == UNKNOWN).sum())
    note = f"hold characters that the training part does not have ({missing:,})" if missing else ""
    return Samples((str(path),), (rows,), note=note, asked=(asked,), targets=targets)


def continued(
    inputs: TextInputs, run: Callable[[Tensors], NDArray[Any]], argument: str, count: int, seed: int, temperature: float
) -> str:
    """So many characters that follow the text of a file, one by one: drawn from the probabilities with logits divided
    by `temperature`, at 0 the likeliest. The same seed draws the same ones. `run` gives the logits of windows. Raises
    as `read`."""
    path = file_of("text", argument.removeprefix("text:"), EXAMPLE)
    tokens, draws = inputs.encode(texts.read(path)).astype(np.int64)[-inputs.window :], generator(seed, "continue")
    found = []
    for _ in range(count):
        row = _padded(tokens, inputs.window, UNKNOWN)[None]
        logits = run((row,))[0, len(tokens) - 1, UNKNOWN + 1 :].astype(np.float64)
        if temperature == 0:
            place = int(logits.argmax())
        else:
            powers = np.exp((logits - logits.max()) / temperature)
            place = min(int(np.searchsorted(powers.cumsum(), draws.random() * powers.sum())), len(powers) - 1)
        found.append(inputs.characters[place])
        tokens = np.append(tokens, UNKNOWN + 1 + place)[-inputs.window :]
    return "".join(found)


def _padded(tokens: NDArray[np.int64], window: int, value: int) -> NDArray[np.int64]:
    """[window], with `value` after the last one: what is read at a position does not see it."""
    return np.pad(tokens, (0, window - len(tokens)), constant_values=value)
