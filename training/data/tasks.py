"""`tasks:digits`: the digits of scikit-learn, each asked for one of three tasks."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.errors import UsageError, unknown
from nas_core.seeds import generator
from training.data.reference import options
from training.data.split import Split
from training.data.task_source import TaskSource, task_source

SETS = ("digits",)


class Options(Config):
    """What may follow, as in `tasks:digits?inputs=image`."""

    inputs: Literal["image"] | None = Field(default=None, description="image: the network is not told the task")


def load(argument: str, split: Split) -> TaskSource:
    """1,797 images [1, 8, 8] with values 0..16, each asked for its digit, its parity, or whether it is at least five.

    Which one is drawn, 599 images each, and always the same.
    """
    from sklearn.datasets import load_digits

    which, chosen = options("tasks", argument, Options)
    if which not in SETS:
        example = f"tasks:{SETS[0]}" if not which else unknown("set of tasks", which, SETS)
        raise UsageError(f"data 'tasks:{argument}': {example}; of your own, npz:FILE with an array task")
    bunch = load_digits()
    digits = bunch.target.astype(np.int64)
    # Ranks of raw uniform numbers: a stream that numpy keeps stable, unlike that of `permutation`.
    question = np.argsort(np.argsort(generator("tasks", "digits").random(len(digits)), kind="stable")) % 3
    names = np.array(["digit", "parity", "at_least_five"])[question]
    parity, five = np.where(digits % 2, "odd", "even"), np.where(digits >= 5, "yes", "no")
    answers = np.choose(question, [digits.astype(str), parity, five])
    images = bunch.images.astype(np.uint8)[:, None]
    return task_source(
        *(f"tasks:{argument}", images, answers, names, split), value_range=(0, 16), told=chosen.inputs is None
    )
