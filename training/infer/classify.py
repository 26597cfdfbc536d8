"""From files to classes and their probabilities, or to the numbers that are predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from training.infer.model import Model
from training.infer.samples import read
from training.inputs.samples import Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 256


@dataclass(frozen=True)
class Answer:
    """What a network says of one sample: the likeliest classes with their probabilities, best first; or numbers, in
    their own unit."""

    name: str
    classes: tuple[tuple[str, float], ...] = ()
    numbers: tuple[float, ...] = ()


def classify(model: Model, argument: str, top: int = 5) -> tuple[list[Answer], str]:
    """The answers for the samples of an argument, in order, and a note on how they were read (often empty).

    Raises NotFoundError and UsageError as `read`, and UsageError for a model that says nothing of its inputs.
    """
    if model.inputs is None:
        raise UsageError(f"'{model.path}' does not say what its inputs are; write it again by 'nas export'")
    samples = read(model.inputs, argument)
    names, answers = model.inputs.outputs, logits(model, samples)
    if not names:
        rows = model.inputs.in_own_unit(answers)
        numbers = [Answer(name, numbers=tuple(map(float, row))) for name, row in zip(samples.names, rows, strict=True)]
        return numbers, samples.note
    if answers.shape[1] != len(names):
        raise UsageError(f"'{model.path}' answers with {answers.shape[1]} numbers for {len(names)} classes")
    possible = np.ones(answers.shape, bool) if samples.possible is None else samples.possible
    odds = probabilities(np.where(possible, answers, -np.inf))
    best = np.argsort(-odds, axis=1, kind="stable")[:, :top]
    return [
        Answer(name, tuple((names[column], float(row[column])) for column in columns if asked[column]))
        for name, row, columns, asked in zip(samples.names, odds, best, possible, strict=True)
    ], samples.note


def logits(model: Model, samples: Samples) -> NDArray[Any]:
    """[n, classes]; samples that do not depend on one another are run in batches."""
    if not samples.apart:
        return model.run(samples.tensors)
    count = len(samples.names)
    parts = [
        model.run(tuple(tensor[start : start + BATCH] for tensor in samples.tensors))
        for start in range(0, count, BATCH)
    ]
    return np.concatenate(parts)


def probabilities(logits: NDArray[Any]) -> NDArray[Any]:
    """Softmax of each row, in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
