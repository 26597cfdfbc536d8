"""What is told while data are read, and that a command reads a data set once."""

from __future__ import annotations

import numpy as np
import pytest

from training.data import load
from training.data.split import Split
from training.reading import counted, reading


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.counts: list[tuple[str, int, int]] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def progress(self, what: str, done: int, total: int) -> None:
        self.counts.append((what, done, total))


@pytest.fixture
def reference(tmp_path):
    """An npz file with labels from 1."""
    path = tmp_path / "made.npz"
    np.savez(path, images=np.zeros((30, 4, 4)), labels=np.arange(30) % 3 + 1)
    return f"npz:{path}"


def test_within_reading_a_data_set_is_read_once_and_its_warnings_are_told_once(reference, tmp_path, monkeypatch):
    heard = Heard()
    with reading(heard):
        first = load(reference)
        assert load(reference) is first
        other = load(reference, Split(seed=1))
        assert other is not first
        monkeypatch.chdir(tmp_path)  # a relative path would mean another file
        assert load(reference) is not first
    assert all(text.startswith(f"{reference}: the labels start at 1") for text in heard.warnings)
    assert len(heard.warnings) == 3
    with reading(heard):
        assert load(reference) is not first


def test_outside_of_it_everything_is_read_anew(reference):
    assert load(reference) is not load(reference)
    assert list(counted("ab", "letters")) == ["a", "b"]


def test_progress_ends_at_the_total():
    heard = Heard()
    with reading(heard):
        assert list(counted("ab", "letters")) == ["a", "b"]
        assert list(counted(iter("ab"), "more", 2)) == ["a", "b"]
    assert heard.counts == [(what, done, 2) for what in ("letters", "more") for done in range(3)]
