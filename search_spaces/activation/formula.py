"""Trees as texts: `mul(x, tanh(softplus(x)))`, written and read.

    value    := "x" | UNARY "(" value ")" | BINARY "(" value "," value ")"
    operand  := value | "b"

A text has as few units as it can: what is applied to an input of a unit is no unit of its own. What is written twice is
one unit.
"""

from __future__ import annotations

import re

from nas_core.errors import nearest
from search_spaces.activation.units import BINARY, CONSTANT, FIRST, IDENTITY, UNARY, Operand, Tree, Unit

NESTED = 50  # parentheses within one another
TOKEN = re.compile(r"\s*([A-Za-z_]\w*|[(),])")
CALLED = tuple(name for name in (*UNARY, *BINARY) if name not in (IDENTITY, CONSTANT, FIRST))


def to_text(tree: Tree) -> str:
    """The text of the last unit."""
    texts = ["x"]

    def operand(one: Operand) -> str:
        if one.unary == CONSTANT:
            return CONSTANT
        return texts[one.place] if one.unary == IDENTITY else f"{one.unary}({texts[one.place]})"

    for unit in tree:
        inputs = ", ".join(map(operand, unit.operands))
        texts.append(inputs if unit.binary == FIRST else f"{unit.binary}({inputs})")
    return texts[-1]


def from_text(text: str, most: int) -> Tree:
    """The tree of a text with at most `most` units. Raises ValueError with the position of what is wrong."""
    reader = _Reader(text, most)
    outermost = reader.operand(0)
    if reader.token():
        raise reader.wrong("the end")
    if not reader.units or outermost != Operand(IDENTITY, len(reader.units)):
        reader.unit(Unit(FIRST, outermost))
    return tuple(reader.units)


class _Reader:
    def __init__(self, text: str, most: int) -> None:
        self._text, self._most = text, most
        self._position = 0
        self.units: list[Unit] = []

    def operand(self, depth: int) -> Operand:
        if depth > NESTED:
            raise ValueError(f"the formula is nested more than {NESTED} deep at position {self._position + 1}")
        word = self.token()
        if word == "x":
            self._need("x")
            return Operand(IDENTITY)
        if word == CONSTANT:
            self._need(CONSTANT)
            return Operand(CONSTANT)
        if word not in CALLED:
            raise self.wrong(f"x, {CONSTANT} or a function{nearest(word, CALLED) if word.isidentifier() else ''}")
        self._need(word)
        self._need("(")
        first = self.operand(depth + 1)
        if word in UNARY:
            self._need(")")
            return Operand(word, self._place(first))
        self._need(",")
        second = self.operand(depth + 1)
        self._need(")")
        return Operand(IDENTITY, self.unit(Unit(word, first, second)))

    def unit(self, unit: Unit) -> int:
        """The place of a unit, the same one for the same unit."""
        if unit not in self.units:
            if len(self.units) == self._most:
                raise ValueError(f"the formula has more than {self._most} units, up to position {self._position}")
            self.units.append(unit)
        return self.units.index(unit) + 1

    def _place(self, operand: Operand) -> int:
        """Where its value lies, in a unit of its own if it is a function."""
        return operand.place if operand.unary == IDENTITY else self.unit(Unit(FIRST, operand))

    def token(self) -> str:
        """The next one; empty at the end."""
        found = TOKEN.match(self._text, self._position)
        return found[1] if found else self._text[self._position :].lstrip()[:1]

    def _need(self, token: str) -> None:
        if self.token() != token:
            raise self.wrong(f"'{token}'")
        self._position = self._text.index(token, self._position) + len(token)

    def wrong(self, wanted: str) -> ValueError:
        token = self.token()
        at = self._text.index(token, self._position) if token else len(self._text)
        found = f"'{token}'" if token else "the end"
        return ValueError(f"position {at + 1} of '{self._text}': {found} instead of {wanted}")
