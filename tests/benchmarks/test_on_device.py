"""The script for machines with a GPU runs small on a CPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "on_device.py"
HERE = ("fit loop", "DARTS step", "grouped experts", "GradSign", "latency")
"""The parts that start no command."""


def table(folder: Path, *words: str) -> dict[str, dict[str, str]]:
    """What the script says, by part and by what was measured."""
    command = [sys.executable, str(SCRIPT), "--small", "--device", "cpu", *words]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    found: dict[str, dict[str, str]] = {}
    for line in said.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0] not in ("part", "---"):
            found.setdefault(cells[0], {})[cells[1]] = cells[2]
    return found


def check(found: dict[str, dict[str, str]], parts: Sequence[str]) -> None:
    assert list(found) == list(parts)
    assert not [(part, rows["FAILED"]) for part, rows in found.items() if "FAILED" in rows]
    assert all(len(rows) > 1 for rows in found.values())  # more than its seconds


def test_parts_of_this_process_run_on_a_cpu(tmp_path: Path) -> None:
    found = table(tmp_path, "--only", *HERE)
    check(found, HERE)
    assert "ratio" in found["fit loop"]
    assert "ratio" in found["GradSign"]


@pytest.mark.slow
def test_all_parts_run_on_a_cpu(tmp_path: Path) -> None:
    found = table(tmp_path)
    check(found, ["deterministic", "out of memory", HERE[0], "candidates per hour", *HERE[1:]])
    assert found["deterministic"]["twice 2 trials, bit for bit"] == "equal"
    assert found["out of memory"]["1e+14 values"].startswith("failed out-of-memory")
    assert found["out of memory"]["8 values"] == "complete"
    assert "2 at a time" in found["candidates per hour"]
