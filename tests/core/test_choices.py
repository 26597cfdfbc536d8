"""Choices refuse what cannot be stored; architectures are immutable, keyed data."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from nas_core.architecture import Architecture
from nas_core.choice import Choice, When

ARCH = Architecture("toy", {"a": 1, "b": "x", "c": 0.5, "d": True})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("", (1, 2), "a choice needs a name"),
        ("a", (), "choice 'a' has no options"),
        ("a", (1, "2"), r"choice 'a' mixes option types \['int', 'str'\]"),
        ("a", (1, 2.0), r"mixes option types \['float', 'int'\]"),
        ("a", (1, True), r"mixes option types \['bool', 'int'\]"),
        ("a", ((1,), (2,)), r"mixes option types \['tuple'\]; use one of str, int, float, bool"),
        ("a", (3, 4, 3), r"choice 'a' repeats an option: \(3, 4, 3\)"),
    ],
)
def test_a_choice_that_cannot_be_stored_is_refused(name: str, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Choice(name, options)


def test_index_goes_by_type_and_value() -> None:
    assert Choice("a", (3, 5, 7)).index(5) == 1
    assert Choice("a", (False, True)).index(True) == 1
    for choice, value in ((Choice("a", (0, 1)), True), (Choice("a", (1, 2)), 1.0), (Choice("a", ("1",)), 1)):
        with pytest.raises(ValueError, match=f"'{value}' is not an option of choice 'a'"):
            choice.index(value)


def test_all_conditions_must_hold() -> None:
    choice = Choice("c", (1, 2), when=(When("a", (1, 2)), When("b", ("x",))))
    assert choice.active({"a": 2, "b": "x"})
    assert not choice.active({"a": 3, "b": "x"})
    assert not choice.active({"a": 1, "b": "y"})
    assert not choice.active({"a": 1}), "an inactive choice fulfils no condition"
    assert Choice("c", (1, 2)).active({})


def test_the_key_is_a_storage_format() -> None:
    assert ARCH.to_json() == '{"space":"toy","values":{"a":1,"b":"x","c":0.5,"d":true}}'
    assert ARCH.key == "54063193f622c372"


def test_equality_goes_by_key() -> None:
    same = Architecture("toy", {"a": 1, "b": "x", "c": 0.5, "d": True})
    assert same == ARCH
    assert len({ARCH, same}) == 1
    for other in (
        Architecture("other", dict(ARCH.values)),
        Architecture("toy", {**ARCH.values, "a": 2}),
        Architecture("toy", {**ARCH.values, "d": 1}),
        Architecture("toy", {**ARCH.values, "a": 1.0}),
        Architecture("toy", dict(reversed(ARCH.values.items()))),
        "toy",
    ):
        assert other != ARCH


def test_an_architecture_never_changes() -> None:
    given = {"a": 1}
    arch = Architecture("toy", given)
    given["a"] = 2
    assert arch.values["a"] == 1
    with pytest.raises(TypeError):
        arch.values["a"] = 3  # type: ignore[index]
    with pytest.raises(AttributeError, match="an architecture is immutable: cannot set 'space'"):
        arch.space = "other"


def test_an_architecture_survives_json_and_pickling() -> None:
    assert Architecture.from_json(ARCH.to_json()) == ARCH
    assert list(Architecture.from_json(ARCH.to_json()).values.items()) == list(ARCH.values.items())
    assert pickle.loads(pickle.dumps(ARCH)) == ARCH


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"space": "toy"}', '{"space": "toy", "values": 3}', "null", "{"])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the JSON of an architecture"):
        Architecture.from_json(text)


def test_non_ascii_names_give_the_same_text_everywhere() -> None:
    text = Architecture("größe", {"ä": "ö"}).to_json()
    assert text.isascii()
    assert json.loads(text) == {"space": "größe", "values": {"ä": "ö"}}
