"""Data references: `digits`, `idx:DIR`, `graph:FILE`, `my_data.py:load` ... resolved to split data sets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_core import refs
from nas_core.errors import UsageError
from training.data import dataset, own
from training.data.earlier import as_now
from training.data.many_graphs import ManyGraphSource
from training.data.node_numbers import NodeNumberSource
from training.data.pair_source import EdgeSource, LinkSource
from training.data.protocol import Source
from training.data.source import GraphSource, ImageSource
from training.data.split import Split
from training.data.stream import StreamSource
from training.reading import once

GROUP = "nas.data"

BUILTIN = {
    "digits": "training.data.digits:load",
    "karate": "training.data.karate:load",
    "reber": "training.data.reber:load",
    "tasks": "training.data.tasks:load",
    "questions": "training.data.questions:load",
    "random-graphs": "training.data.random_graphs:load",
    "sbm-pattern": "training.data.sbm:load_pattern",
    "sbm-cluster": "training.data.sbm:load_cluster",
    "idx": "training.data.idx:load",
    "cifar10": "training.data.cifar10:load",
    "folder": "training.data.folder:load",
    "npz": "training.data.npz:load",
    "csv": "training.data.csv:load",
    "text": "training.data.text:load",
    "graph": "training.data.graph:load",
    "pyg": "training.data.pyg:load",
}

_DEFAULT = Split()


@dataclass(frozen=True, slots=True)
class Scheme:
    """One kind of data reference, for listings."""

    name: str
    argument: str
    what: str


SCHEMES = (
    Scheme("digits", "", "1,797 grey 8x8 digits, 10 classes (in scikit-learn)"),
    Scheme("karate", "", "Zachary's karate club, 34 nodes, 4 classes, or its links: karate?task=link-prediction"),
    Scheme("reber", "", "strings of the Reber grammar and corrupted ones, as many as wanted: reber?strings=2000"),
    Scheme(
        "tasks",
        "digits[?inputs=image]",
        "the digits, each asked for its digit, its parity or whether it is at least five",
    ),
    Scheme("questions", "", "keys and values to be retrieved from a passage, as many as wanted: questions?pairs=8"),
    Scheme("random-graphs", "", "random graphs: their triangles, degrees or roles of nodes: random-graphs?graphs=500"),
    Scheme(
        "sbm-pattern", "", "stochastic block models in which a pattern is found, node by node: sbm-pattern?graphs=500"
    ),
    Scheme("sbm-cluster", "", "stochastic block models whose communities are found: sbm-cluster?graphs=500"),
    Scheme("idx", "DIR", "MNIST, Fashion-MNIST and the like: four idx files, gzipped or not"),
    Scheme("cifar10", "DIR", "CIFAR-10, the official binary version"),
    Scheme("folder", "DIR[?size=PIXELS]", "images in one folder per class, with or without train/ and test/ above"),
    Scheme("npz", "FILE", "images and labels as numpy arrays, and tasks where there are several"),
    Scheme("csv", "FILE?target=COLUMN", "rows of a table, of which one column is predicted from the others"),
    Scheme("text", "FILE[?window=CHARACTERS]", "a text, of which each character is predicted from those before"),
    Scheme("graph", "FILE", "one graph with labelled nodes, or many graphs, as numpy arrays"),
    Scheme("pyg", "DIR", "a processed PyTorch Geometric data set of one graph or many, for example ROOT/Cora"),
)


def describe() -> list[Scheme]:
    """All schemes: built-in, then those of installed packages."""
    others = [name for name in refs.names(BUILTIN, GROUP) if name not in BUILTIN]
    return [*SCHEMES, *(Scheme(name, "ARGUMENT", "from an installed package") for name in others)]


def load(reference: str, split: Split = _DEFAULT) -> Source:
    """The data set of `SCHEME`, `SCHEME:ARGUMENT`, `SCHEME?OPTIONS` or a user's file (`training.data.own.load`), split.

    A loader of a package is `load(argument: str, split: Split) -> Source`. Within `training.reading.reading` a data
    set is read once, and its warnings are told. Raises UsageError for an unknown scheme or a malformed file,
    NotFoundError for a missing one.
    """
    key = (reference, split.model_dump_json(), Path.cwd())
    return once(key, lambda: _load(reference, split), lambda source: _told(reference, source))


def _told(reference: str, source: Source) -> list[str]:
    # A source of a user's own class need not have warnings.
    return [f"{reference}: {text}" for text in getattr(source, "warnings", ())]


def _load(reference: str, split: Split) -> Source:
    target, _, argument = reference.partition(":")
    name, mark, query = reference.partition("?")
    if name in BUILTIN:
        target, argument = name, mark + query
    source: Any
    if target in BUILTIN:
        source = refs.find(target, BUILTIN, GROUP, "data")(argument, split)
    elif own.is_own(reference):
        source = own.load(reference, split)
    elif target not in refs.names(BUILTIN, GROUP) and Path(reference).exists():
        raise UsageError(
            f"data '{reference}' is a path; say what it holds: {', '.join(BUILTIN)} - as in idx:{reference}"
        )
    else:
        source = dataset.called(refs.find(target, BUILTIN, GROUP, "data"), f"data '{reference}'", argument, split)
    if isinstance(
        source, ImageSource | StreamSource | GraphSource | NodeNumberSource | LinkSource | EdgeSource | ManyGraphSource
    ):
        return dataclasses.replace(source, reference=reference)
    missing = [name for name in ("task", "split_hash", "sizes", "class_counts", "bind") if not hasattr(source, name)]
    if missing:
        raise UsageError(
            f"data '{reference}': the loader returns {type(source).__name__} without {', '.join(missing)};"
            " return what training.data.source.image_source or graph_source gives"
        )
    return as_now(source)
