"""`kill -9` at random moments: two rounds of each kind in the gate, a thousand under `slow`, as a table."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.random_kills import KINDS, MOST
from tests.crash.running import ROOT, Fork, ended

KILLS = "tests.crash.random_kills:main"


def rows(table: Path) -> list[list[str]]:
    with table.open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.endswith("server")][:-1])
def test_two_rounds(start: Callable[..., Fork], tmp_path: Path, kind: str) -> None:
    table = tmp_path / "kills.csv"
    asked = [str(table), "--rounds", "2", kind]
    code, text = ended(start(asked, tmp_path, function=KILLS), tmp_path)
    assert code == 0, text
    found = rows(table)
    assert [(name, number, ended) for name, number, _, ended in found] == [(kind, "0", "same"), (kind, "1", "same")]
    assert all(1 <= int(killed) <= MOST for _, _, killed, _ in found)
    # A table is gone on with.
    assert ended(start(asked, tmp_path, function=KILLS), tmp_path)[0] == 0
    assert rows(table) == found
    assert "nothing is left to be tried" in (tmp_path / "stdout").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("kinds", "rounds"), [(list(KINDS)[:-1], 1000), (["ray node"], 20)])
def test_a_thousand_rounds(tmp_path: Path, kinds: list[str], rounds: int) -> None:
    table = tmp_path / "kills.csv"
    command = [sys.executable, "-m", "tests.crash", "random", str(table), "--rounds", str(rounds), *kinds]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(rows(table)) == rounds
