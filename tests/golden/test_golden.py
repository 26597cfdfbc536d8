"""Randomness, identities, hashes and searches are what they were when `golden.json` was written.

The words that they are derived from are data: no renaming may change them. A change that is meant, or a new purpose,
strategy or space, is written by `python -m tests.golden --write`, and the difference is read before it is committed.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

import strategies
from tests.golden import record

GOLDEN: dict[str, Any] = json.loads(record.GOLDEN.read_text())


def test_every_purpose_in_the_code_draws_what_it_drew() -> None:
    """A word that is changed in the code is another purpose, which is not in the file, or one fewer of its own."""
    assert record.draws() == GOLDEN["draws"]


def test_architectures_have_the_keys_identities_and_graph_hashes_that_they_had() -> None:
    assert record.architectures() == GOLDEN["architectures"]


def test_data_and_trained_generators_are_found_under_the_names_that_they_had() -> None:
    assert record.hashes() == GOLDEN["hashes"]


def test_every_listed_strategy_is_recorded() -> None:
    assert {case.partition(" on ")[0] for case in GOLDEN["strategies"]} == strategies.BUILTIN.keys()
    assert GOLDEN["one-shot"].keys() == strategies.ONE_SHOT.keys()
    assert GOLDEN["strategies"].keys() == {f"{name} on {space}" for name, space in record.strategy_cases()}


@pytest.mark.parametrize(("name", "space"), record.strategy_cases())
def test_a_strategy_proposes_what_it_proposed(name: str, space: str) -> None:
    assert record.proposals(name, space) == GOLDEN["strategies"][f"{name} on {space}"]


@pytest.mark.parametrize("name", strategies.ONE_SHOT)
def test_a_one_shot_strategy_derives_what_it_derived(name: str) -> None:
    """Scores are learned in float32, so that processors may differ in their last digits."""
    found, then = record.one_shot(name), GOLDEN["one-shot"][name]
    assert (found["derived"], found["result"]) == (then["derived"], then["result"])
    assert found["train_loss"] == pytest.approx(then["train_loss"], rel=5e-3)
    assert found["scores"].keys() == then["scores"].keys()
    for group, weights in found["scores"].items():
        assert weights == pytest.approx(then["scores"][group], abs=5e-3), group
