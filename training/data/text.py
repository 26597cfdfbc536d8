"""`text:FILE[?window=N]`: the characters of a UTF-8 text, gzipped or not, of which each is predicted from those before.

The text is cut into three pieces, in its own order: training, validation and test part. A sample is a window of a
part, and what is predicted are the characters that follow its own. Windows lie side by side, so that every character of
a part is predicted once, from those before it in its window; the last ones of a part that fill no window are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.errors import UsageError
from nas_core.task import LANGUAGE_MODELLING, Task, text_task
from training import tasks
from training.data import files
from training.data.loading import DEFAULT, Loading
from training.data.reference import options
from training.data.split import Parts, Split, split_hash
from training.inputs.texts import UNKNOWN, TextInputs, code_points, numbered

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from nas_core.batch import Data

EXAMPLE = "text:corpus.txt"
SPARE = 2
"""So many characters more than a window a part must have."""


class Options(Config):
    """What follows the file, as in `text:corpus.txt?window=64`."""

    window: int = Field(default=128, ge=1, le=65_536, description="characters that the network reads at once")


@dataclass(frozen=True, eq=False)
class TextSource:
    """Characters [n] by number (`TextInputs`), and where the windows of each part begin. `text` is what the first
    window of the validation part reads."""

    reference: str
    task: Task
    split_hash: str
    tokens: NDArray[np.int32]
    parts: Parts
    inputs: TextInputs
    text: str
    warnings: tuple[str, ...] = ()  # sentences that the user of the data should read

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: len(part) for name, part in self.parts.items()}

    @property
    def class_counts(self) -> Mapping[str, tuple[int, ...]]:
        """None: a sample has a character at every position."""
        return {}

    @property
    def unknown(self) -> Mapping[str, int]:
        """How many of the characters that are predicted in a part do not occur in the training part."""
        return {name: int((self.targets(part) == UNKNOWN).sum()) for name, part in self.parts.items()}

    def targets(self, starts: NDArray[np.int64]) -> NDArray[np.int32]:
        """The characters [windows, window] that are predicted in the windows that start there."""
        return self.tokens[starts[:, None] + np.arange(1, self.inputs.window + 1)]

    def bind(self, device: torch.device | str, loading: Loading = DEFAULT) -> Data:
        """Batches of windows [b, window]; augmentation and layout are for images."""
        from training.data.bound_text import BoundText

        return BoundText(self, device, loading)


def load(argument: str, split: Split) -> TextSource:
    """Raises NotFoundError for a missing file, UsageError for one that is no text, or too short for its windows."""
    reference = f"text:{argument}"
    where, chosen = options("text", argument, Options)
    path = files.file_of("text", where, EXAMPLE)
    return text_source(reference, read(path), chosen.window, split)


def read(path: Path) -> str:
    """The text of a file. Raises UsageError for one that is empty or not UTF-8."""
    content = files.content(path)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start} ({error.reason}); save "
            "the text as UTF-8"
        ) from None
    if not text:
        raise UsageError(f"{path}: is empty; a text is needed")
    return text


def text_source(reference: str, text: str, window: int, split: Split) -> TextSource:
    """A text, split by position: `split.test` of its characters at the end, before them `split.valid` of the others.
    `split.limit` keeps the first windows of the training and of the validation part.

    Raises UsageError for a part that is shorter than window + 2, and for a training part of fewer than two windows.
    """
    split.whole(f"data '{reference}': a text")
    count = len(text)
    last = count - round(split.test * count)
    middle = last - round(split.valid * last)
    ends = dict(zip(("train", "valid", "test"), (middle, last, count), strict=True))
    starts = _windows(reference, ends, window)
    if split.limit is not None and split.limit < len(starts["train"]) + len(starts["valid"]):
        starts |= _first(reference, starts["train"], starts["valid"], split.limit)
    codes, parts = code_points(text), Parts(**starts)
    known = np.unique(codes[: parts.train[-1] + window + 1])  # of what is trained on
    inputs = TextInputs(kind=LANGUAGE_MODELLING, window=window, characters=known.tobytes().decode("utf-32-le"))
    task = text_task(window, len(inputs.outputs), tasks.find(LANGUAGE_MODELLING).metrics[0].name)
    begin = int(parts.valid[0])
    source = TextSource(
        *(reference, task, split_hash(codes, parts, np.array([window])), numbered(codes, known), parts, inputs),
        text[begin : begin + window],
    )
    told = []
    for name, missing in source.unknown.items():
        if missing:
            share = missing / (source.sizes[name] * window)
            told.append(f"{missing:,} characters of the {name} part ({share:.2%}) do not occur in the training part")
    return dataclasses.replace(source, warnings=tuple(told))


def _windows(reference: str, ends: Mapping[str, int], window: int) -> dict[str, NDArray[np.int64]]:
    starts, begin = dict[str, "NDArray[np.int64]"](), 0
    for name, end in ends.items():
        length, needed = end - begin, (2 * window + 1 if name == "train" else window + SPARE)
        if length < max(needed, window + SPARE):
            raise UsageError(
                f"data '{reference}': the {name} part has {length:,} characters; windows of {window} need at least "
                f"{max(needed, window + SPARE):,}; take a longer text, or a smaller window (?window=)"
            )
        starts[name] = begin + window * np.arange((length - 1) // window)
        begin = end
    return starts


def _first(
    reference: str, train: NDArray[np.int64], valid: NDArray[np.int64], limit: int
) -> dict[str, NDArray[np.int64]]:
    """The first windows of both parts, in the ratio that they have."""
    least = 3  # two to train on, one to validate on
    if limit < least:
        raise UsageError(f"data '{reference}': limit {limit} is too small: at least {least} windows are needed")
    kept = min(max(round(limit * len(valid) / (len(train) + len(valid))), 1), limit - 2)
    return {"train": train[: limit - kept], "valid": valid[:kept]}
