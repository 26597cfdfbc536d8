"""Training, validation and test parts: stratified by class, derived from a seed, named by a hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from nas_core.config import Config
from nas_core.errors import UsageError
from nas_core.seeds import generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNLABELLED = -1
TARGET_BINS = 10
"""Into which a number that is predicted is divided, so that every part has as many small ones and large ones."""


class Split(Config):
    """How samples are divided. A part that the source brings itself stays as it is.

    With `folds` all samples are dealt into so many, each class evenly: `fold` is the test part, the next one (the first
    after the last) validation, and all others are trained on.
    """

    valid: float = Field(default=0.1, gt=0, lt=1, description="fraction of the training part that becomes validation")
    test: float = Field(
        default=0.2, gt=0, lt=1, description="fraction of all, where the source has no test part of its own"
    )
    seed: int = Field(default=0, ge=0)
    limit: int | None = Field(
        default=None, ge=2, description="at most this many samples in training and validation together"
    )
    folds: int | None = Field(default=None, ge=3, description="divide all samples into so many folds instead")
    fold: int | None = Field(
        default=None, ge=0, description="number of the fold that is the test part; the next one is validation"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.folds is None:
            if self.fold is not None:
                raise ValueError(f"fold {self.fold} of how many? give split.folds too, as in split.folds=10")
            return self
        fractions = {"valid", "test"} & self.model_fields_set
        if fractions:
            raise ValueError(f"split.{min(fractions)} is a fraction, and folds are the parts; leave one of them out")
        if self.fold is None:
            object.__setattr__(self, "fold", 0)
        elif self.fold >= self.folds:
            raise ValueError(f"fold {self.fold}: {self.folds} folds are numbered from 0 to {self.folds - 1}")
        return self

    @model_serializer(mode="wrap")
    def _what_is_used(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Splits were stored without folds before there were any.
        unused = ("folds", "fold") if self.folds is None else ("valid", "test")
        return {name: value for name, value in handler(self).items() if name not in unused}

    def whole(self, where: str) -> None:
        """Raises UsageError where folds are asked for, of data that are not divided at random."""
        if self.folds is not None:
            raise UsageError(f"{where} has parts of its own making and no folds; leave split.folds out")


@dataclass(frozen=True)
class Parts:
    """Sorted, disjoint index lists (int64) into one array of samples."""

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]

    def items(self) -> tuple[tuple[str, NDArray[np.int64]], ...]:
        return ("train", self.train), ("valid", self.valid), ("test", self.test)


def divide(
    labels: NDArray[np.int64],
    split: Split,
    *,
    train: NDArray[np.int64] | None = None,
    valid: NDArray[np.int64] | None = None,
    test: NDArray[np.int64] | None = None,
    classes: bool = True,
) -> Parts:
    """The parts of samples with these class labels (-1: in no part), or, without `classes`, other strata.

    Given parts are kept. Otherwise `test` is drawn from all that is left, `train` is the rest, and `valid` is
    drawn from `train`. With folds all parts are made of these, and none may be given. `limit` then thins out `train`
    and `valid`, keeping their ratio in every class.
    Raises UsageError where a limit leaves a class without a sample, or no training sample is left, and where a class
    has fewer samples than there are folds.
    """
    if split.folds is not None:
        own = [name for name, part in (("train", train), ("valid", valid), ("test", test)) if part is not None]
        if own:
            raise UsageError(f"the data bring their own {' and '.join(own)} part; leave split.folds out")
        train, valid, test = _in_folds(labels, split, classes)
    if train is None:
        free = labels != UNLABELLED
        for given in (valid, test):
            if given is not None:
                free[given] = False
        train = np.flatnonzero(free)
    if test is None:
        rest, drawn = stratified(labels[train], split.test, generator(split.seed, "split", "test"), keep=2)
        train, test = train[rest], train[drawn]
    if valid is None:
        rest, drawn = stratified(labels[train], split.valid, generator(split.seed, "split", "valid"))
        train, valid = train[rest], train[drawn]
    if split.limit is not None and split.limit < len(train) + len(valid):
        train, valid = _thin(labels, train, valid, split)
    parts = Parts(*(np.sort(part).astype(np.int64) for part in (train, valid, test)))
    for name, part in parts.items():
        if len(part) < 1 + (name == "train"):
            raise UsageError(f"the {name} part has {len(part)} of {len(labels)} samples: too few to work with")
    return parts


def stratified(
    labels: NDArray[np.int64], fraction: float, rng: np.random.Generator, keep: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions that stay and positions that are drawn, both sorted; `fraction` of every class is drawn.

    The number drawn is `fraction` of all, rounded, where the classes allow it: at least `keep` samples of a class
    stay, and of a class with more than that at least one is drawn.
    """
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    most = np.maximum(counts - keep, 0)
    drawn = _allocate(counts, round(fraction * len(labels)), np.minimum(most, 1), most)
    # Ranks of raw uniform numbers: a stream that numpy keeps stable, unlike that of `permutation`.
    order = np.lexsort((rng.random(len(labels)), inverse))
    rank = np.arange(len(labels)) - (np.cumsum(counts) - counts)[inverse[order]]
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[order] = rank < drawn[inverse[order]]
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def fold_numbers(labels: NDArray[np.int64], folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The fold [n] of each sample: of every class, and of all, each fold has the same number, or one more."""
    order = np.lexsort((rng.random(len(labels)), labels))
    numbers = np.empty(len(labels), dtype=np.int64)
    numbers[order] = np.arange(len(labels)) % folds
    return numbers


def target_bins(targets: NDArray[np.floating], bins: int = TARGET_BINS) -> NDArray[np.int64]:
    """The number of the bin [n] that each target [n] falls into, so that numbers are divided as classes are.

    The bins hold about equally many; equal targets share one, and there are at least two samples to a bin.
    """
    bins = max(min(bins, len(targets) // 2), 1)
    edges = np.quantile(targets, np.arange(1, bins) / bins)
    return np.searchsorted(np.unique(edges), targets, side="right").astype(np.int64)


def split_hash(labels: NDArray[np.generic], parts: Parts, *arrays: NDArray[np.generic]) -> str:
    """16 hex digits of a SHA-256 over the labels, the parts and the data itself."""
    digest = hashlib.sha256()
    for array in (labels, parts.train, parts.valid, parts.test, *arrays):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _in_folds(labels: NDArray[np.int64], split: Split, classes: bool) -> tuple[NDArray[np.int64], ...]:
    """Training, validation and test part of a fold."""
    assert split.folds is not None
    assert split.fold is not None
    used = np.flatnonzero(labels != UNLABELLED)
    found, counts = np.unique(labels[used], return_counts=True) if classes else (["all"], np.array([len(used)]))
    if len(counts) and counts.min() < split.folds:
        what = f"class {found[counts.argmin()]} has" if classes else "there are"
        samples = "1 sample" if counts.min() == 1 else f"{counts.min()} samples"
        raise UsageError(f"{split.folds} folds: {what} {samples}, and every fold needs one")
    numbers = fold_numbers(labels[used], split.folds, generator(split.seed, "split", "folds"))
    test, valid = numbers == split.fold, numbers == (split.fold + 1) % split.folds
    return used[~(test | valid)], used[valid], used[test]


def _allocate(
    counts: NDArray[np.int64], total: int, least: NDArray[np.int64], most: NDArray[np.int64]
) -> NDArray[np.int64]:
    """`total` shared out in proportion to `counts` by largest remainders, as far as the bounds allow."""
    share = counts * (total / max(int(counts.sum()), 1))
    least = np.minimum(least, most)
    result = np.clip(np.floor(share).astype(np.int64), least, most)
    while result.sum() != total:
        up = result.sum() < total
        movable = result < most if up else result > least
        if not movable.any():
            break
        lack = np.where(movable, share - result if up else result - share, -np.inf)
        result[np.argmax(lack)] += 1 if up else -1
    return result


def _thin(
    labels: NDArray[np.int64], train: NDArray[np.int64], valid: NDArray[np.int64], split: Split
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    assert split.limit is not None
    both = np.concatenate([train, valid])
    in_valid = np.arange(len(both)) >= len(train)
    # A class counts as two, one per part, so that both parts keep it.
    groups = labels[both] * 2 + in_valid
    needed = len(np.unique(groups))
    if split.limit < needed:
        raise UsageError(f"limit {split.limit} is too small: {needed} samples keep one of every class in each part")
    _, drawn = stratified(groups, split.limit / len(both), generator(split.seed, "split", "limit"), keep=0)
    return both[drawn[~in_valid[drawn]]], both[drawn[in_valid[drawn]]]
