"""`kill -9` at random moments: two rounds of each kind in the gate, a thousand under `slow`, as a table."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash import outcomes
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


def test_the_document_shows_what_was_tried() -> None:
    """As `python -m tests.crash outcomes` prints it, or did when fewer tries were made: none has ended otherwise."""
    now = rows_of(outcomes.table())
    shown = rows_of((ROOT / "docs" / "reliability.md").read_text().partition("| disturbed |")[2].partition("\n\n")[0])
    assert shown
    assert shown.keys() <= now.keys()
    for key, (tries, same, otherwise) in shown.items():
        assert 0 < tries == same <= now[key][0]
        assert otherwise == 0


def rows_of(table: str) -> dict[str, tuple[int, ...]]:
    """Tries, how many came to the same, and how many did not, by what was disturbed and how."""
    cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:])
    return {re.sub(r"at \d+", "at", f"{first} {fault}"): tuple(map(int, counts)) for first, fault, *counts in cells}


def test_what_ends_otherwise_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("WRITES", "search,KILL,write 1,failed\n"), ("KILLS", "driver,0,2,same\ndriver,1,0,failed\n")):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(outcomes, name, tmp_path / name)
    assert outcomes.table().splitlines()[2:] == [
        "| `search`, at its writes | `kill -9` | 1 | 0 | 1 |",
        "| driver | `kill -9` at 2 random moments | 2 | 1 | 1 |",
    ]
