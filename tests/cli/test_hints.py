"""What people type wrong leads to what they mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("search --learning-rate 0.1", "it is a setting of the recipe: -s recipe.lr=VALUE"),
        ("search --batch-size 3", "it is a setting of the recipe: -s recipe.batch_size=VALUE"),
        ("search --strategy evolution", "did you mean 'regularized-evolution'?"),
        ("search --objective acc", "did you mean 'val_accuracy'?"),
        ("search --constraint flops<=3", "did you mean 'macs'?"),
        ("search --objective params --objective params:max", "are the same metric"),
        ("search --space mine.py", "name the object in it too: mine.py:NAME"),
        ("search --study a/b", "'/' is not allowed"),
    ],
)
def test_a_mistake_leads_to_what_is_meant(folder: Path, say: Say, line: str, words: str) -> None:
    code, out, err = say(*line.split())
    assert (code in (2, 3), out) == (True, "")
    assert words in err
    assert len(err.splitlines()) <= 2
    assert not Path("nas.db").exists()
