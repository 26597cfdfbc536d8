"""What the tables of tries came to, as `docs/reliability.md` shows it: `python -m tests.crash outcomes`."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path

HERE = Path(__file__).parent
WRITES, KILLS = HERE / "every_write.csv", HERE / "random_kills.csv"

FAULTS = {"KILL": "`kill -9`", "ENOSPC": "disk full", "EIO": "input/output error"}


def table() -> str:
    """One row per command that was disturbed at its writes and fault, and one per kind of random kills."""
    writes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for name, how, _, ended in _rows(WRITES):
        writes[name, how][ended] += 1
    kills: dict[str, Counter[str]] = defaultdict(Counter)
    for kind, _, killed, ended in _rows(KILLS):
        kills[kind][ended] += 1
        kills[kind]["kills"] += int(killed)
    lines = ["| disturbed | fault | tries | the same in the end | otherwise |", "|---|---|---|---|---|"]
    for (name, how), counts in writes.items():
        tries, failed = counts.total(), counts["failed"]
        lines.append(f"| `{name}`, at its writes | {FAULTS[how]} | {tries} | {tries - failed} | {failed} |")
    for kind, counts in kills.items():
        fault = f"`kill -9` at {counts['kills']} random moments"
        lines.append(
            f"| {kind} | {fault} | {counts['same'] + counts['failed']} | {counts['same']} | {counts['failed']} |"
        )
    return "\n".join(lines)


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))
