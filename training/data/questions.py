"""`questions?pairs=N`: key-value retrieval, a passage of pairs and the key of one, whose value is the answer, a span.

A sample are the tokens `CLS a b SEP`, then N times `a b = v .. v ;` with one to three values, then `SEP`, and padding:
136 tokens in all, of which 32 are first halves of keys, 32 second ones and 64 values. The key (a, b) belongs to domain
(a + b) mod 8; those of 0 to 5 are in training, validation and test part. With `keys=unseen` the test part is of the
domains 6 and 7 instead: other keys, of tokens that training has seen. Keys of a passage are drawn from grids of 4 x 4,
so that several share a half, and none is told by one token. A sample depends on (seed, part, number) alone.

The task is ours. It stands in for the reading of texts that experts of the Switch layer were tried on (Yuanzhe Dong et
al., "Mixture of experts in question answering", 2022), and needs no download.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.errors import UsageError
from nas_core.task import PADDING, Task, question_task
from training import tasks
from training.data.files import nothing
from training.data.loading import DEFAULT, Loading
from training.data.reference import options
from training.data.split import Parts, Split, split_hash
from training.inputs.questions import LONGEST, QuestionInputs

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from nas_core.batch import Data

CLS, SEP, IS, END, FIRST, SECOND, VALUES, VOCABULARY = 1, 2, 3, 4, 8, 40, 72, 136
DOMAINS, SEEN, UNSEEN = 8, (0, 1, 2, 3, 4, 5), (6, 7)
GRID = 4  # keys of a passage are of grids of so many first and second halves
PARTS = {"train": (0, SEEN), "valid": (1, SEEN), "test": (2, SEEN), "unseen": (3, UNSEEN)}


class Options(Config):
    """What follows the name, as in `questions?pairs=8&keys=unseen`."""

    pairs: int = Field(default=8, ge=1, le=128, description="of every passage")
    samples: int = Field(default=10_000, ge=10, le=1_000_000, description="of all parts together")
    keys: Literal["seen", "unseen"] = Field(default="seen", description="unseen: the test part is of other domains")
    seed: int = Field(default=0, ge=0, description="what the samples are drawn from")


@dataclass(frozen=True, eq=False)
class QuestionSource:
    """Tokens [n, t] int64 with targets [n]: first place of the answer times t, plus its last place."""

    reference: str
    task: Task
    split_hash: str
    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    parts: Parts
    inputs: QuestionInputs

    @property
    def sizes(self) -> Mapping[str, int]:
        return {name: len(part) for name, part in self.parts.items()}

    @property
    def class_counts(self) -> Mapping[str, tuple[int, ...]]:
        """None: an answer is a span."""
        return {}

    def bind(self, device: torch.device | str, loading: Loading = DEFAULT) -> Data:
        """Batches of passages [b, t]; augmentation and layout are for images."""
        from training.data.bound_questions import BoundQuestions

        return BoundQuestions(self, device, loading)


def load(argument: str, split: Split) -> QuestionSource:
    """Raises UsageError for options that it does not know."""
    reference = f"questions{argument}"
    where, chosen = options("", reference, Options)
    nothing("questions", where.removeprefix("questions").removeprefix(":"))
    split.whole(f"data '{reference}': what is generated")
    rest = chosen.samples - round(split.test * chosen.samples)
    counts = {"train": rest - round(split.valid * rest), "valid": round(split.valid * rest)}
    if split.limit is not None and split.limit < rest:
        counts["valid"] = max(1, round(split.limit * split.valid))
        counts["train"] = split.limit - counts["valid"]
    counts["unseen" if chosen.keys == "unseen" else "test"] = chosen.samples - rest
    if counts["train"] < 2 or min(counts.values()) < 1:
        raise UsageError(f"data '{reference}': parts of {', '.join(map(str, counts.values()))} samples; ask for more")
    seeds = [chosen.seed, *([split.seed] if split.seed else [])]
    made = [sample(chosen.pairs, seeds, *PARTS[part], n) for part, count in counts.items() for n in range(count)]
    length = longest(chosen.pairs)
    tokens = np.array([row + [PADDING] * (length - len(row)) for row, _ in made], dtype=np.int64)
    targets = np.array([start * length + end for _, (start, end) in made], dtype=np.int64)
    ends = np.cumsum([0, *counts.values()])
    parts = Parts(*(np.arange(begin, end) for begin, end in pairwise(ends)))
    kind = tasks.find("question-answering")
    task = question_task(length, VOCABULARY, kind.metrics[0].name)
    inputs = QuestionInputs(kind=kind.name, length=length, vocabulary=VOCABULARY)
    return QuestionSource(reference, task, split_hash(targets, parts, tokens), tokens, targets, parts, inputs)


def longest(pairs: int) -> int:
    """The tokens of the longest passage of so many pairs with its question."""
    return 5 + (4 + LONGEST) * pairs


def sample(
    pairs: int, seeds: Sequence[int], part: int, domains: Sequence[int], number: int
) -> tuple[list[int], tuple[int, int]]:
    """The tokens of one sample, and the places of the first and the last token of its answer."""
    draws = np.random.default_rng([seeds[0], part, number, *seeds[1:]])
    domain = domains[int(draws.integers(len(domains)))]
    grids = draws.choice(DOMAINS, -(-pairs // GRID**2), replace=False)
    keys = draws.choice(GRID**2 * len(grids), pairs, replace=False)
    column = grids[keys // GRID**2]
    first = FIRST + column + DOMAINS * (keys % GRID**2 // GRID)
    second = SECOND + (domain - column) % DOMAINS + DOMAINS * (keys % GRID)
    lengths = draws.integers(1, LONGEST + 1, pairs)
    values = VALUES + draws.integers(0, VOCABULARY - VALUES, (pairs, LONGEST))
    asked = int(draws.integers(pairs))
    tokens, span = [CLS, int(first[asked]), int(second[asked]), SEP], (0, 0)
    for pair, count in enumerate(lengths.tolist()):
        tokens += [int(first[pair]), int(second[pair]), IS]
        if pair == asked:
            span = (len(tokens), len(tokens) + count - 1)
        tokens += [*values[pair, :count].tolist(), END]
    return [*tokens, SEP], span
