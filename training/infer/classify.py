"""From files to classes and their probabilities, to the numbers that are predicted, or to how well a text is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError
from training.infer.model import Model
from training.infer.samples import read
from training.inputs import Inputs
from training.inputs.samples import Samples
from training.tasks import find

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 256


@dataclass(frozen=True)
class Answer:
    """What a network says of one sample: the likeliest classes with their probabilities, best first; or numbers, in
    their own unit. Of a text the classes are those of the character after it, and `figures` say how well its own
    characters were predicted."""

    name: str
    classes: tuple[tuple[str, float], ...] = ()
    numbers: tuple[float, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)


def classify(model: Model, argument: str, top: int = 5) -> tuple[list[Answer], str]:
    """The answers for the samples of an argument, in order, and a note on how they were read (often empty).

    Raises NotFoundError and UsageError as `read`, and UsageError for a model that says nothing of its inputs.
    """
    inputs = _said(model)
    samples = read(inputs, argument)
    names, answers = inputs.outputs, logits(model, samples)
    if not names:
        rows = inputs.in_own_unit(answers)
        numbers = [Answer(name, numbers=tuple(map(float, row))) for name, row in zip(samples.names, rows, strict=True)]
        return numbers, samples.note
    figures = {} if samples.targets is None else predicted(answers, samples.targets)
    if samples.asked:
        answers = answers[tuple(map(list, zip(*samples.asked, strict=True)))]
    if answers.shape[1] != len(names):
        raise UsageError(f"'{model.path}' answers with {answers.shape[1]} numbers for {len(names)} classes")
    possible = np.ones(answers.shape, bool) if samples.possible is None else samples.possible
    odds = probabilities(np.where(possible, answers, -np.inf)) if inputs.exclusive else 1 / (1 + np.exp(-answers))
    best = np.argsort(-odds, axis=1, kind="stable")[:, :top]
    return [
        Answer(name, tuple((names[column], float(row[column])) for column in columns if fits[column]), figures=figures)
        for name, row, columns, fits in zip(samples.names, odds, best, possible, strict=True)
    ], samples.note


def continued(model: Model, argument: str, count: int, seed: int, temperature: float) -> str:
    """So many characters that may follow the text of an argument; the kind of task says how they are drawn.

    Raises UsageError where the network is no language model, and as `classify`.
    """
    inputs = _said(model)
    return find(inputs.kind).continued(inputs, model.run, argument, count, seed, temperature)


def _said(model: Model) -> Inputs:
    if model.inputs is None:
        raise UsageError(f"'{model.path}' does not say what its inputs are; write it again by 'nas export'")
    return model.inputs


def logits(model: Model, samples: Samples) -> NDArray[Any]:
    """[n, classes], or [n, positions, classes]; samples that do not depend on one another are run in batches."""
    if not samples.apart:
        return model.run(samples.tensors)
    count = len(samples.tensors[0])
    parts = [
        model.run(tuple(tensor[start : start + BATCH] for tensor in samples.tensors))
        for start in range(0, count, BATCH)
    ]
    return np.concatenate(parts)


def predicted(logits: NDArray[Any], targets: NDArray[np.int64]) -> dict[str, float]:
    """How well the known ones of the targets [n, t] were predicted, by logits [n, t, classes]: how many there are, and
    means over them. Nothing where none is known."""
    known = targets >= 0
    if not known.any():
        return {}
    rows, right = logits[known].astype(np.float64), targets[known]
    top = rows.max(axis=1)
    nats = float((top + np.log(np.exp(rows - top[:, None]).sum(axis=1)) - rows[np.arange(len(rows)), right]).mean())
    return {
        "predicted": float(len(right)),
        "loss": nats,
        "bpc": nats / math.log(2),
        "accuracy": float((rows.argmax(axis=1) == right).mean()),
    }


def probabilities(logits: NDArray[Any]) -> NDArray[Any]:
    """Softmax of each row, in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
