"""`reber`: strings of a grammar, corrupted ones, and the networks of the example that read them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from nas_core.errors import UsageError
from search_spaces.own_network import OwnNetwork
from training import cost, spaces
from training.data import load
from training.data.loading import Loading
from training.data.reber import CLASSES, SYMBOLS, grammatical, strings, ways
from training.data.split import Split
from training.data.table_source import TableSource
from training.networks import build
from training.tasks import sample_inputs

# Read off the drawing of the grammar: what follows the first X, once for each way there is to it.
REST = "(?:XT*VP)*(?:S|XT*VV)"
GRAMMAR = re.compile(f"B(?:TS*X{REST}|PT*V(?:V|P{REST}))E")


@pytest.fixture(scope="module")
def source() -> TableSource:
    found = load("reber?strings=600&length=20")
    assert isinstance(found, TableSource)
    return found


def texts(source: TableSource) -> list[str]:
    """The rows as strings again."""
    blocks = source.features.reshape(len(source.features), -1, len(SYMBOLS))
    return ["".join(SYMBOLS[block.argmax()] for block in row if block.any()) for row in blocks]


def test_the_grammar_is_that_of_an_expression_written_apart_from_it() -> None:
    found = strings(1000, 22, 3)
    assert [bool(GRAMMAR.fullmatch(text)) for text in found] == [True, False] * 500
    assert all(grammatical(text) == bool(GRAMMAR.fullmatch(text)) for text in found)
    for text in ("BTXSE", "BPVVE", "BTSSXXTVVE", "BPTVPXVPSE", "BTXXVPSE"):
        assert grammatical(text), text
    for text in ("", "B", "BTXS", "BTXSEE", "TXSE", "BPVXE", "BTXSEB", "BTXSZ"):
        assert not grammatical(text), text


def test_all_strings_of_a_length_are_found() -> None:
    """As many as the expression has among all words of six symbols."""
    words = np.stack(np.meshgrid(*[list(SYMBOLS)] * 4), -1).reshape(-1, 4)
    count = sum(bool(GRAMMAR.fullmatch(f"B{''.join(word)}E")) for word in words)
    assert count == ways(0, 6) == 3
    found = [text for text in strings(30, 8, 0) if grammatical(text)]
    assert len({text for text in found if len(text) == 6}) == 3


def test_parts_are_balanced_and_no_string_is_in_two(source: TableSource) -> None:
    found = texts(source)
    assert len(set(found)) == len(found) == 600
    assert source.inputs.classes == CLASSES
    assert all(grammatical(text) == bool(label) for text, label in zip(found, source.targets, strict=True))
    for counts in source.class_counts.values():
        assert abs(counts[0] - counts[1]) <= 1
    lengths = [np.array([len(text) for text in found])[source.targets == label] for label in (0, 1)]
    assert sorted(lengths[0]) == sorted(lengths[1])
    assert lengths[0].min() == 5
    assert lengths[0].max() == 20
    # The last symbol is in the last place.
    assert source.features[source.targets == 1][:, -7:].argmax(1).tolist() == [SYMBOLS.index("E")] * 300


def test_it_is_drawn_from_its_seed(source: TableSource) -> None:
    again, other = load("reber?length=20&strings=600"), load("reber?strings=600&length=20&seed=1")
    assert again.split_hash == source.split_hash != other.split_hash
    few = load("reber?strings=600&length=20", Split(limit=100))
    assert sum(few.sizes[part] for part in ("train", "valid")) == 100


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("reber?string=8", "data 'reber.string=8': unknown option 'string'; did you mean 'strings'"),
        ("reber?strings=8", "data 'reber.strings=8': strings: Input should be greater than or equal to 20"),
        ("reber?strings=5000&length=8", "strings of at most 8 symbols no new ones are found; ask for fewer"),
        ("digits?strings=8", r"data .digits\?strings=8.: digits is embedded and takes no argument"),
    ],
)
def test_what_cannot_be_is_said(reference: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load(reference)


@pytest.mark.parametrize(("name", "kind", "gates"), [("lstm", nn.LSTM, 4), ("gru", nn.GRU, 3)])
def test_the_networks_of_the_example_read_them(
    source: TableSource, name: str, kind: type[nn.Module], gates: int
) -> None:
    space = spaces.load(f"examples/my_recurrent.py:{name}(units=6)").object
    assert isinstance(space, OwnNetwork)
    network = build(space, space.architecture, source.task, space.Size(), 0)
    assert isinstance(network.layers, kind)
    assert cost.params(network) == 7 * 6 + 3 * gates * 6 * (6 + 6 + 2) + 6 * 2 + 2
    batch = next(iter(source.bind("cpu", Loading(batch_size=8)).batches("train", 0, 0)))
    assert network(*batch.inputs).shape == (8, 2)
    assert network(*sample_inputs(source.task, 3)).shape == (3, 2)
    # What is before a string is read as zeros, not as a symbol.
    assert not network.embedding(torch.zeros(1, 7)).any()
