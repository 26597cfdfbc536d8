"""The data of figures, for JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from reports.figure import Figure
from reports.mirrored import Mirrored


def document(figure: Figure | Mirrored) -> dict[str, Any]:
    """All of a figure, marks with the name of their kind."""
    found: dict[str, Any] = dataclasses.asdict(figure)
    if isinstance(figure, Figure):
        for panel, made in zip(figure.panels, found["panels"], strict=True):
            pairs = zip(panel.marks, made["marks"], strict=True)
            made["marks"] = [{"mark": type(mark).__name__.lower(), **one} for mark, one in pairs]
    return found
