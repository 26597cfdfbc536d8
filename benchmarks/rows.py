"""The rows of a table in a csv file, which a later run goes on with."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


class Rows:
    """Rows by their first fields: `named` of `fields` say which measurement a row is. A row is in the file at once."""

    def __init__(self, path: Path, fields: Sequence[str], named: int) -> None:
        self._path, self._fields, self._named = path, fields, named
        self._rows: dict[tuple[str, ...], dict[str, str]] = {}
        if path.exists():
            with path.open(newline="") as file:
                self._rows = {self._name(row): row for row in csv.DictReader(file)}

    def __iter__(self) -> Iterator[Mapping[str, str]]:
        return iter(self._rows.values())

    def get(self, *named: Any) -> Mapping[str, str] | None:
        """The row of a measurement, None where it has not been made."""
        return self._rows.get(tuple(map(_text, named)))

    def write(self, row: Mapping[str, Any]) -> Mapping[str, str]:
        """A measurement that has just been made."""
        new, texts = not self._path.exists(), {field: _text(row[field]) for field in self._fields}
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self._fields, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(texts)
        self._rows[self._name(texts)] = texts
        return texts

    def _name(self, row: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(row[field] for field in self._fields[: self._named])


def _text(value: Any) -> str:
    return "" if value is None else str(value)
