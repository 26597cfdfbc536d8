"""`reber?strings=N`: strings of the Reber grammar, and the same strings with one symbol changed.

Reber, "Implicit learning of artificial grammars", Journal of Verbal Learning and Verbal Behavior 6, 1967, in the form
in which recurrent networks are tried on it (Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997, figure 3): from
state to state along arrows that carry a symbol each.

Half of the strings are grammatical, half corrupted: of such a string one symbol between the first and the last is
another one, so that the string is not grammatical. No string occurs twice, so that none of the test part has been seen
before; to every grammatical one there is a corrupted one of the same length, and lengths are as even as there are
strings (of 5 symbols there are 2, of 24 there are 3,616), each of a length as likely as the others. A row of the table
is a string: a column per place, one of seven symbols, with the string at the *end* of the row and nothing before it
(all fields 0), so that what a recurrent network has read last is the string's last symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from nas_core.config import Config
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.task import TABULAR_CLASSIFICATION
from training.data.files import nothing
from training.data.reference import options
from training.data.split import Split, divide
from training.data.table_source import TableSource, table_source
from training.inputs.tables import CategoryColumn, TableInputs

if TYPE_CHECKING:
    from numpy.random import Generator

SYMBOLS = ("B", "E", "P", "S", "T", "V", "X")
CLASSES = ("corrupted", "grammatical")
START, END = 0, 7
SHORTEST = 5
ARROWS: Mapping[int, tuple[tuple[str, int], ...]] = {
    START: (("B", 1),),
    1: (("T", 2), ("P", 3)),
    2: (("S", 2), ("X", 4)),
    3: (("T", 3), ("V", 5)),
    4: (("X", 3), ("S", 6)),
    5: (("P", 4), ("V", 6)),
    6: (("E", END),),
}
"""By state the symbols that may follow, and the states that they lead to."""

EXAMPLES = 3
PATIENCE = 50  # draws that give nothing new before the strings of a length count as exhausted


class Options(Config):
    """What follows the name, as in `reber?strings=2000&length=20`."""

    strings: int = Field(default=2000, ge=20, le=1_000_000, description="how many, half of them grammatical")
    length: int = Field(default=24, ge=5, le=200, description="of the longest ones")
    seed: int = Field(default=0, ge=0, description="what the strings are drawn from")


def load(argument: str, split: Split) -> TableSource:
    """Strings as rows of one-hot blocks, two classes.

    Raises UsageError for options that it does not know, and for more strings than there are of that length.
    """
    reference = f"reber{argument}"
    where, chosen = options("", reference, Options)
    nothing("reber", where.removeprefix("reber").removeprefix(":"))
    texts = strings(chosen.strings, chosen.length, chosen.seed)
    labels = np.array([grammatical(text) for text in texts], dtype=np.int64)
    columns = tuple(CategoryColumn(name=f"p{place}", levels=SYMBOLS) for place in range(1, chosen.length + 1))
    inputs = TableInputs(kind=TABULAR_CLASSIFICATION, columns=columns, target="class", classes=CLASSES)
    rows = [[""] * (chosen.length - len(text)) + list(text) for text in texts]
    parts = divide(labels, split)
    used = np.sort(np.concatenate([part for _, part in parts.items()]))
    cells = {column.name: [rows[row][place] for row in used] for place, column in enumerate(columns)}
    renumbered = type(parts)(*(np.searchsorted(used, part) for _, part in parts.items()))
    examples = [rows[row] for row in parts.valid[:EXAMPLES]]
    return table_source(reference, inputs.encode(cells), labels[used], renumbered, inputs, examples=examples)


def strings(count: int, longest: int, seed: int) -> list[str]:
    """Different strings, a grammatical and a corrupted one of the same length in turn. Raises UsageError where there
    are not so many."""
    draws = generator(seed, "reber")
    found: dict[str, None] = {}
    lengths = list(range(SHORTEST, longest + 1))
    while len(found) < count:
        if not lengths:
            raise UsageError(
                f"data 'reber': after {len(found):,} strings of at most {longest} symbols no new ones are found; ask "
                f"for fewer, or for longer ones (length={longest + 6})"
            )
        length = lengths[int(draws.integers(len(lengths)))]
        pair = [_new(make, draws, length, found) for make in (_grammatical, _corrupted)]
        if None in pair:
            lengths.remove(length)
        else:
            found |= {text: None for text in pair if text is not None}
    return list(found)[:count]


def _new(make: Callable[[Generator, int], str], draws: Generator, length: int, known: Collection[str]) -> str | None:
    """A string that is not known; None where many draws give none."""
    return next((text for text in (make(draws, length) for _ in range(PATIENCE)) if text not in known), None)


def grammatical(text: str) -> bool:
    """Whether a string leads from the start of the grammar to its end."""
    state = START
    for symbol in text:
        following = dict(ARROWS.get(state, ()))
        if symbol not in following:
            return False
        state = following[symbol]
    return state == END


@cache
def ways(state: int, length: int) -> int:
    """How many strings of this length lead from a state to the end."""
    if length == 0:
        return int(state == END)
    return sum(ways(following, length - 1) for _, following in ARROWS.get(state, ()))


def _grammatical(draws: Generator, length: int) -> str:
    """One of the grammatical strings of a length, each as likely as the others."""
    state, text = START, ""
    while state != END:
        left = length - len(text) - 1
        share = float(draws.random()) * ways(state, left + 1)
        for symbol, following in ARROWS[state]:
            if ways(following, left):
                chosen = symbol, following
                share -= ways(following, left)
                if share < 0:
                    break
        text, state = text + chosen[0], chosen[1]
    return text


def _corrupted(draws: Generator, length: int) -> str:
    """A grammatical string with one symbol changed, so that it is none any more."""
    while True:
        text = _grammatical(draws, length)
        place = 1 + int(draws.integers(length - 2))
        symbol = SYMBOLS[int(draws.integers(len(SYMBOLS)))]
        changed = text[:place] + symbol + text[place + 1 :]
        if not grammatical(changed):
            return changed
