"""Names are refused in words, and what others call a thing leads to what it is called here."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_core.errors import SYNONYMS, nearest
from nas_core.names import bench_name, stem, study_name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my study", "a space is not allowed"),
        ("a/b", "'/' is not allowed"),
        ("größe", "'ö' is not allowed"),
        ("a:1", "':' is not allowed"),
        ("a\nb", "a control character is not allowed"),
        ("-a", "begins with '-'"),
        (".hidden", "begins with '.'"),
        ("", "it is empty"),
        ("a" * 201, "201 characters long"),
    ],
)
def test_names_are_refused_in_words(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        study_name(name)
    assert "\n" not in str(caught.value)
    assert "pattern" not in str(caught.value)


@given(st.text(alphabet=string.printable + "é中", max_size=300))
def test_a_name_that_is_made_up_is_allowed(text: str) -> None:
    assert bench_name(f"{stem(text)}-123") == study_name(f"{stem(text)}-123")


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("acc", ["train_loss", "val_accuracy", "test_accuracy"], "val_accuracy"),
        ("valid_acc", ["test_accuracy", "val_accuracy"], "val_accuracy"),
        ("test_acc", ["val_accuracy", "test_accuracy"], "test_accuracy"),
        ("Learning-Rate", ["epochs", "lr", "batch_size"], "lr"),
        ("flops", ["params", "macs", "latency_ms"], "macs"),
        ("latency", ["params", "macs", "latency_ms"], "latency_ms"),
        ("population_size", ["population", "sample"], "population"),
        ("paramms", ["params", "macs"], "params"),
    ],
)
def test_words_of_the_field_lead_to_ours(word: str, known: list[str], meant: str) -> None:
    assert nearest(word, known) == f"; did you mean '{meant}'?"


def test_a_word_that_means_nothing_leads_nowhere() -> None:
    assert nearest("qqqq", ["params", "macs"]) == ""
    assert not set(SYNONYMS) & set(SYNONYMS.values())
