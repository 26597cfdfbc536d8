"""The trait spaces have what they are there for: every trait of every listed space."""

from __future__ import annotations

from pathlib import Path

import pytest

import search_spaces
from nas_core import space as contract
from nas_core.choice import Choice
from nas_core.space import SearchSpace
from nas_core.testing.findings import Reference
from nas_core.testing.space import check, check_fresh
from nas_core.testing.trait_spaces import TRAIT_SPACES, TRAITS, Six, UnitList, traits
from search_spaces.nasbench201.space import NasBench201

EXAMPLE = f"{Path(__file__).resolve().parents[2] / 'examples' / 'my_space.py'}:space"
HAVE = {name: traits(space()) for name, space in TRAIT_SPACES.items()}
COVERED = frozenset().union(*HAVE.values())


@pytest.mark.parametrize("text", [*search_spaces.BUILTIN, "darts(levels=3)", EXAMPLE], ids=lambda text: Path(text).name)
def test_every_trait_of_a_listed_space_occurs_in_a_trait_space(text: str) -> None:
    space = Reference(text, search_spaces.BUILTIN, search_spaces.GROUP, "space").load()
    assert traits(space) - COVERED == frozenset()


def test_every_trait_occurs() -> None:
    assert set(TRAITS) == COVERED


def test_what_a_space_may_offer_is_a_trait() -> None:
    """An ability, or a method that spaces may write anew, which is added to the contract is added to the traits."""
    abilities = {name for name in vars(contract) if name.startswith("Has") and name != "Hashable"}
    # Trainings, searches and the suite read them, strategies do not.
    abilities -= {"HasReports", "HasFindings", "HasUnsound", "HasHosts", "HasHiddenUnits"}
    assert abilities == {"HasCosts", "HasLayerSignatures", "HasNamed", "HasNotation", "HasVariation"}
    methods = {name for name, value in vars(SearchSpace).items() if callable(value) and not name.startswith("_")}
    assert methods - {"build", "assignment", "Size", "recipe"} == {"allowed", "graph", "identity", "illegal"}


def test_a_trait_that_is_missing_is_noticed() -> None:
    assert {"moves of its own", "conditions", "truth values"} <= traits(UnitList()) - HAVE["fixed-graph"] - HAVE["six"]
    assert {"one graph for all", "a notation", "zeros"} <= traits(NasBench201()) - HAVE["unit-list"] - HAVE["six"]


def test_traits_are_not_seen_where_they_are_not() -> None:
    class Plain(Six):
        choices = tuple(Choice(f"c{place}", ("a", "b"), "letter") for place in range(10))

    found = {"texts", "options in no order", "one kind"}
    assert traits(Plain()) == found


@pytest.mark.parametrize("name", TRAIT_SPACES)
def test_trait_spaces_keep_the_contract_of_spaces(name: str) -> None:
    """But for the networks, which they lack."""
    found = check(TRAIT_SPACES[name](), {})
    assert [finding for finding in found if not finding.startswith("build: none of the 0 tasks")] == []


def test_trait_spaces_are_the_same_in_a_fresh_interpreter() -> None:
    references = [Reference(f"{kind.__module__}:{kind.__name__}") for kind in TRAIT_SPACES.values()]
    assert list(check_fresh(*references)) == []
