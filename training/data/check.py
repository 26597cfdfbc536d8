"""What would be silently wrong with a data set: equal samples in several parts, classes of very different size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.data.labels import listed
from training.data.many_graphs import ManyGraphSource
from training.data.node_numbers import NodeNumberSource
from training.data.pair_source import PairSource
from training.data.protocol import Source
from training.data.source import GraphSource, ImageSource
from training.data.stream import StreamSource
from training.data.table_source import TableSource
from training.data.task_source import TaskSource
from training.reading import counted

UNEVEN = 10  # so many times as many samples in the largest class as in the smallest are told
WORDS = {"train": "training", "valid": "validation", "test": "test"}
# Worst first: what is in the training part can be known by heart.
PAIRS = (("test", "train"), ("test", "valid"), ("valid", "train"), *((part, part) for part in WORDS))


@dataclass(frozen=True, slots=True)
class Imbalance:
    """The largest and the smallest class of the training part that has samples, and their numbers of samples."""

    largest: str
    most: int
    smallest: str
    least: int
    majority: float
    """The share of the validation part that answering the largest class would get right."""

    @property
    def ratio(self) -> float:
        return self.most / self.least


def findings(source: Source, classes: Sequence[str]) -> list[str]:
    """Sentences on what the user of the data should look at, besides those that were told when they were read."""
    told = []
    if isinstance(source, ImageSource | StreamSource):
        told += equal_images(source)
    if isinstance(source, GraphSource | NodeNumberSource | PairSource | ManyGraphSource):
        told += _edges(source)
    if isinstance(source, TableSource):
        told += _equal_rows(source)
    if not source.class_counts:
        return told
    uneven = imbalance_of(source, classes)
    if uneven.ratio >= UNEVEN:
        sides = f"'{uneven.largest}' has {uneven.most:,} training samples, class '{uneven.smallest}' {uneven.least:,}"
        told.append(
            f"class {sides}: answering '{uneven.largest}' always is right for {uneven.majority:.1%} of the validation "
            "part, and recipe.class_weights=balanced weighs the classes"
        )
    return told


def imbalance_of(source: Source, classes: Sequence[str]) -> Imbalance:
    """Of the classes of a source; where there are several tasks, of the one whose classes are the most uneven."""
    counts = source.class_counts
    if not isinstance(source, TaskSource):
        return imbalance(counts, classes)
    every = []
    for number in range(len(source.task.heads)):
        mine = np.flatnonzero(source.head_of_output == number).tolist()
        own = {part: [column[output] for output in mine] for part, column in counts.items()}
        every.append(imbalance(own, [classes[output] for output in mine]))
    return max(every, key=lambda uneven: uneven.ratio)


def imbalance(counts: Mapping[str, Sequence[int]], classes: Sequence[str]) -> Imbalance:
    """Of the samples per class and part."""
    train, valid = np.array(counts["train"]), np.array(counts["valid"])
    largest, smallest = int(train.argmax()), int(np.where(train > 0, train, train.max() + 1).argmin())
    return Imbalance(
        *(classes[largest], int(train[largest]), classes[smallest], int(train[smallest])),
        majority=float(valid[largest] / max(valid.sum(), 1)),
    )


def equal_images(source: ImageSource | StreamSource) -> list[str]:
    """Parts that share images, images that occur more than once in a part, and equal ones of different classes.

    Images are compared as the network sees them: turned, converted and resized.
    """
    part_of = {number: part for part, numbers in source.parts.items() for number in numbers.tolist()}
    alike: dict[bytes, list[int]] = {}
    for number, digest in _digests(source):
        alike.setdefault(digest, []).append(number)
    shared: dict[tuple[str, str], list[str]] = {}
    labels: list[str] = []
    for group in (group for group in alike.values() if len(group) > 1):
        by_part = {part: [number for number in group if part_of[number] == part] for part in WORDS}
        for part, other in PAIRS:
            twins = by_part[other][:1]
            for number in by_part[part][part == other :] if twins else ():
                shared.setdefault((part, other), []).append(f"{source.name(number)} = {source.name(twins[0])}")
        different = [number for number in group if _differ(source, number, group[0])]
        labels += [f"{source.name(number)} = {source.name(group[0])}" for number in different]
    told = []
    for part, other in (pair for pair in PAIRS if pair in shared):
        where = "that part already" if part == other else f"the {WORDS[other]} part"
        told.append(f"{_images(shared[part, other], part)} in {where}: {listed(shared[part, other], 3)}")
    if labels:
        told.append(f"{len(labels):,} images have another label than an equal one: {listed(labels, 3)}")
    return told


def _differ(source: ImageSource | StreamSource, number: int, other: int) -> bool:
    """Whether two images have different labels, for the same task."""
    if isinstance(source, TaskSource) and source.asked[number] != source.asked[other]:
        return False
    return bool(source.labels[number] != source.labels[other])


def _images(pairs: list[str], part: str) -> str:
    one = len(pairs) == 1
    return f"{len(pairs):,} {WORDS[part]} image{'' if one else 's'} {'is' if one else 'are'} equal to one"


def _digests(source: ImageSource | StreamSource) -> Iterator[tuple[int, bytes]]:
    numbers = np.sort(np.concatenate([part for _, part in source.parts.items()])).tolist()
    for number in counted(numbers, f"{source.reference} once more"):
        image = source.images[number] if isinstance(source, ImageSource) else source.stored([number], 0)
        yield number, hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _equal_rows(source: TableSource) -> list[str]:
    """Rows of the parts that are selected by whose columns are those of a training row, with the same target or not."""
    train = {source.features[row].tobytes() for row in source.parts.train.tolist()}
    told = []
    for part, rows in source.parts.items():
        shared = sum(source.features[row].tobytes() in train for row in rows.tolist()) if part != "train" else 0
        if shared:
            share = f"{shared / len(rows):.1%} of the {WORDS[part]} rows"
            told.append(f"{share} ({shared:,}) are equal to one of the training part in all columns but the target")
    return told


def _edges(source: GraphSource | NodeNumberSource | PairSource | ManyGraphSource) -> list[str]:
    """Edges without their way back, twice the same edge, and edges from a node to itself."""
    start, end = source.edge_index
    nodes = len(source.features)
    codes, counts = np.unique(start * nodes + end, return_counts=True)
    loops = int((start == end).sum())
    one_way = int((~np.isin(codes, end * nodes + start)).sum())
    repeated = int((counts - 1).sum())
    told = []
    if one_way:
        told.append(f"{one_way:,} edges have no way back; an undirected graph holds both directions of each")
    if repeated:
        told.append(f"{repeated:,} edges occur more than once")
    if loops:
        told.append(f"{loops:,} edges go from a node to itself")
    return told
