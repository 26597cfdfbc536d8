"""A page as plain data: sections of a closed set of blocks. What is in it is as it is stored; who writes it escapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reports.figure import Figure
from reports.mirrored import Mirrored
from reports.texts import Cell


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure that is looked at first."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tiles:
    tiles: Sequence[Tile]


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values; empty values are left out."""

    entries: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under their heads; columns named in `right` hold numbers. `notes` stand below."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    right: Sequence[str] = ()
    title: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. `tone`: good, careful, or nothing."""

    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    figure: Figure | Mirrored


@dataclass(frozen=True, slots=True)
class Code:
    """Lines to copy."""

    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Folded:
    """Blocks that open when asked for."""

    title: str
    blocks: Sequence[Block]


Block = Tiles | Facts | Table | Text | Picture | Code | Folded


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Page:
    """`lead` says in a sentence what it is about; `kind` is study, bench, trial, training or compression."""

    kind: str
    title: str
    lead: str
    sections: Sequence[Section]
    tiles: Tiles = field(default_factory=lambda: Tiles(()))
