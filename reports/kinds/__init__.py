"""The kinds of figures: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Mapping

KINDS: Mapping[str, str] = {
    "history": "reports.kinds.history:KIND",
    "front": "reports.kinds.front:KIND",
    "curves": "reports.kinds.curves:KIND",
    "ranks": "reports.kinds.ranks:KIND",
    "architecture": "reports.kinds.architecture:KIND",
    "alphas": "reports.kinds.alphas:KIND",
    "loads": "reports.kinds.loads:KIND",
    "pruning": "reports.kinds.pruning:KIND",
    "compressed": "reports.kinds.compressed:KIND",
    "regret": "reports.kinds.bench:REGRET",
    "differences": "reports.kinds.bench:DIFFERENCES",
    "importance": "reports.kinds.mirrored:IMPORTANCE",
    "parallel": "reports.kinds.mirrored:PARALLEL",
    "slice": "reports.kinds.mirrored:SLICE",
    "contour": "reports.kinds.contour:KIND",
    "rank": "reports.kinds.mirrored:RANK",
    "edf": "reports.kinds.mirrored:EDF",
    "timeline": "reports.kinds.mirrored:TIMELINE",
}
"""A package brings others as entry points of the group `nas.figures`; `FILE.py:OBJECT` is a `Kind` of one's own."""
GROUP = "nas.figures"
FIRST = ("regret", "front", "alphas", "history", "pruning", "architecture")
"""What is drawn where no kind is named, the first that can be."""
