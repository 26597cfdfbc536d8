"""Where a database is: what threatens it there is named, on stderr, by what writes and by `nas doctor`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from studies.store import sqlite

Say = Callable[..., tuple[int, str, str]]


def test_a_network_file_system_is_named(say: Say, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = folder / "mounts"
    mounts.write_text(f"22 1 0:20 / / rw - ext4 /dev/sda1 rw\n23 22 0:21 / {folder} rw - nfs4 server:/home rw\n")
    monkeypatch.setattr(sqlite, "MOUNTS", mounts)
    score = ("score", "--proxies", "params", "--size", "channels=4,cells=1", "--sample", "2")
    code, _, err = say(*score)
    assert code == 0, err
    assert "'nas.db' is on a network file system (nfs4)" in err
    assert "network file system" in say("doctor", "--quick")[1]
    assert "network file system" not in say("ls")[2]
    mounts.write_text("22 1 0:20 / / rw - ext4 /dev/sda1 rw\n")
    assert "network file system" not in say("doctor", "--quick")[1]


def test_a_missing_log_is_named(say: Say, folder: Path) -> None:
    """As a file system leaves it on which SQLite cannot share memory."""
    score = ("score", "--proxies", "params", "--size", "channels=4,cells=1", "--sample", "2")
    assert say(*score)[0] == 0
    with sqlite3.connect(folder / "nas.db") as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    connection.close()
    assert "has no write-ahead log here (journal mode 'delete')" in say("doctor", "--quick")[1]
    code, _, err = say(*score)  # takes it up again where that can be
    assert (code, "write-ahead" in err) == (0, False), err
    assert "write-ahead" not in say("doctor", "--quick")[1]
