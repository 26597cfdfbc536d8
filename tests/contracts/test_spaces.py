"""Every listed space keeps the contract; a new one is tested by being listed."""

from __future__ import annotations

from pathlib import Path

import pytest

import search_spaces
from nas_core.testing.findings import Reference
from nas_core.testing.space import check, check_fresh
from training.tasks import example_tasks

EXAMPLE = f"{Path(__file__).resolve().parents[2] / 'examples' / 'my_space.py'}:space"
SPACES = [*search_spaces.BUILTIN, "darts(levels=3)", "regnet(stages=4, bottleneck=2, se=False)", EXAMPLE]


def reference(text: str) -> Reference:
    return Reference(text, search_spaces.BUILTIN, search_spaces.GROUP, "space")


@pytest.mark.parametrize("text", SPACES, ids=lambda text: Path(text).name)
def test_space_contract(text: str) -> None:
    """With one network per task."""
    assert list(check(reference(text).load(), example_tasks(), built=1)) == []


@pytest.mark.matrix
@pytest.mark.parametrize("text", SPACES, ids=lambda text: Path(text).name)
def test_space_contract_with_more_networks(text: str) -> None:
    assert list(check(reference(text).load(), example_tasks(), built=6)) == []


def test_spaces_are_the_same_in_a_fresh_interpreter() -> None:
    assert list(check_fresh(*map(reference, SPACES))) == []


def test_the_example_is_short() -> None:
    assert len(Path(EXAMPLE.removesuffix(":space")).read_text(encoding="utf-8").splitlines()) < 60
