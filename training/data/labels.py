"""Class labels as data sets hold them: numbers, texts, one column, one-hot. All become numbers from 0."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_core.errors import UsageError, nearest
from training.data.split import UNLABELLED

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Labels:
    """`numbers` [n] int64 in 0..outputs-1 (-1: none) and the names of the classes, if they have any."""

    numbers: NDArray[np.int64]
    outputs: int
    classes: tuple[str, ...]
    gaps: tuple[int, ...] = ()  # numbers that the labels skip
    warnings: tuple[str, ...] = ()


def class_labels(
    labels: NDArray[Any],
    count: int,
    things: str,
    where: str,
    *,
    classes: Sequence[str] = (),
    unlabelled: bool = False,
    renumber: bool = False,
) -> Labels:
    """The labels of `count` samples, which are called `things`.

    Taken are whole numbers [n] or [n, 1], texts [n] or [n, 1] (numbered by `classes`, or else in alphabetical order),
    and one-hot rows [n, k], k > 1. With `unlabelled` the number -1, an empty text and a row of zeros mean no label.
    Numbers stay what they are: classes that they skip exist, without a sample, which is told. With `renumber` the
    numbers that occur become 0, 1, ... in their order, and are the names of the classes.
    Raises UsageError for anything else, and where there are less than two classes.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    text, rows = labels.dtype.kind in "US", labels.ndim == 2
    if labels.ndim not in (1, 2) or labels.dtype.kind not in ("iubf" if rows else "iubUS"):
        raise UsageError(
            f"{where}: labels are {labels.dtype} {labels.shape}; needed are whole numbers or texts, one per sample, or "
            "one-hot rows"
        )
    if len(labels) != count:
        raise UsageError(f"{where}: {len(labels)} labels for {count} {things}")
    names = tuple(classes)
    if rows:
        numbers = _from_rows(labels, names, where, unlabelled)
        names = names or tuple(map(str, range(labels.shape[1])))
    elif text:
        numbers, names = _from_texts(labels, names, where, unlabelled)
    else:
        numbers = labels.astype(np.int64)
        if renumber and names:
            raise UsageError(
                f"{where}: its classes have names, in the order of their numbers; leave out labels=renumber"
            )
        if renumber:
            numbers, names = _renumbered(numbers, unlabelled)
        elif numbers.size and numbers.min() < (UNLABELLED if unlabelled else 0):
            none = ", -1 stands for no label" if unlabelled else ""
            raise UsageError(f"{where}: label {numbers.min()} is negative; classes are numbered from 0{none}")
    return _checked(numbers, names, where)


def absent(counts: Mapping[str, Sequence[int]], classes: Sequence[str], told_before: Collection[int] = ()) -> list[str]:
    """What to tell of classes without a sample in a part of the split; `counts` are the samples per class and part.

    Left out are the numbers of classes that `class_labels` has told of.
    """
    total = [sum(column) for column in zip(*counts.values(), strict=True)]
    told = []
    empty = [classes[number] for number, count in enumerate(total) if not count and number not in told_before]
    if empty:
        told.append(f"{_classes(empty)} no sample in any part")
    words = {"train": "training", "valid": "validation"}
    for part, column in counts.items():
        missing = [number for number, count in enumerate(column) if not count and total[number]]
        if not missing:
            continue
        elsewhere = ", ".join(
            f"{sum(other[number] for number in missing)} in {name}" for name, other in counts.items() if name != part
        )
        told.append(
            f"{_classes([classes[number] for number in missing])} no {words.get(part, part)} sample ({elsewhere})"
            + (f", so no network can learn {'it' if len(missing) == 1 else 'them'}" if part == "train" else "")
        )
    return told


def listed(names: Sequence[str], most: int = 5) -> str:
    """`a, b, c, d, e and 7 more`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def is_one_hot(labels: NDArray[Any]) -> bool:
    """Whether numbers are rows [n, k], k > 1, of zeros with at most one 1: classes, if they are labels."""
    if labels.ndim != 2 or labels.shape[1] < 2:
        return False
    return bool(((labels == 0) | (labels == 1)).all() and ((labels == 1).sum(axis=1) <= 1).all())


def _from_rows(rows: NDArray[Any], names: tuple[str, ...], where: str, unlabelled: bool) -> NDArray[np.int64]:
    ones = (rows == 1).sum(axis=1)
    good = ((rows == 0) | (rows == 1)).all(axis=1) & ((ones == 1) | (unlabelled & (ones == 0)))
    if not good.all():
        first = int(np.argmin(good))
        raise UsageError(
            f"{where}: labels {rows.shape} are no one-hot rows: row {first} has {ones[first]} ones; each sample has one"
            " class"
        )
    if names and len(names) != rows.shape[1]:
        raise UsageError(f"{where}: one-hot labels of {rows.shape[1]} classes; {len(names)} classes are named")
    return np.where(ones == 1, rows.argmax(axis=1), UNLABELLED).astype(np.int64)


def _from_texts(
    labels: NDArray[Any], names: tuple[str, ...], where: str, unlabelled: bool
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if np.issubdtype(labels.dtype, np.bytes_):
        labels = np.char.decode(labels, "utf-8")
    found, inverse = np.unique(labels, return_inverse=True)
    texts = [str(text) for text in found]
    if "" in texts and not unlabelled:
        raise UsageError(f"{where}: the label of sample {int(np.argmax(labels == ''))} is an empty text")
    if len(set(names)) < len(names):
        raise UsageError(f"{where}: two of the {len(names)} classes have the same name ({listed(names)})")
    names = names or tuple(text for text in texts if text)
    unknown = [text for text in texts if text and text not in names]
    if unknown:
        raise UsageError(
            f"{where}: label '{unknown[0]}' is none of the classes{nearest(unknown[0], names)} ({listed(names)})"
        )
    place = {name: number for number, name in enumerate(names)} | {"": UNLABELLED}
    return np.array([place[text] for text in texts], dtype=np.int64)[inverse], names


def _renumbered(numbers: NDArray[np.int64], unlabelled: bool) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    has = numbers != UNLABELLED if unlabelled else np.ones(len(numbers), dtype=bool)
    values, inverse = np.unique(numbers[has], return_inverse=True)
    result = np.full(len(numbers), UNLABELLED, dtype=np.int64)
    result[has] = inverse
    return result, tuple(str(value) for value in values)


def _checked(numbers: NDArray[np.int64], names: tuple[str, ...], where: str) -> Labels:
    present = np.unique(numbers[numbers >= 0]).tolist()
    found = present[-1] + 1 if present else 0
    advice = "number the classes from 0 without gaps, or add ?labels=renumber (in a loader: renumber=True)"
    if names and found > len(names):
        start = f" (the least label is {present[0]}; {advice})" if present[0] else ""
        raise UsageError(f"{where}: label {found - 1} has no name; {len(names)} classes are named{start}")
    if found > len(numbers):
        raise UsageError(f"{where}: label {found - 1} among {len(numbers)} samples; {advice}")
    if max(found, len(names)) < 2:
        raise UsageError(f"{where}: there is only one class; at least two are needed")
    gaps = [] if names else sorted(set(range(found)) - set(present))
    if not gaps:
        return Labels(numbers, max(found, len(names)), names)
    what = f"start at {present[0]}" if gaps == list(range(present[0])) else f"leave out {listed(list(map(str, gaps)))}"
    outputs = f"{len(gaps)} of the {found} outputs of a network would be for no sample"
    return Labels(numbers, found, names, tuple(gaps), (f"the labels {what}: {outputs}; {advice}",))


def _classes(names: Sequence[str]) -> str:
    """`class 'a' has` or `classes 'a', 'b' have`."""
    quoted = [f"'{name}'" for name in names]
    return f"class {quoted[0]} has" if len(names) == 1 else f"classes {listed(quoted)} have"
