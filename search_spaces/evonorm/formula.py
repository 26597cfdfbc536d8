"""Formulas: `x / max(std_bhw(x), v1*x + std_hw(x))`, written and read.

    sum     := product (("+" | "-") product)*          a - b is add(a, neg(b))
    product := signed (("*" | "/") signed)*
    signed  := "-" signed | atom
    atom    := "x" | "0" | "v0" | "v1" | "(" sum ")" | NAME "(" sum ["," sum] ")"

NAME is `max` or an operation of one input. What is written twice is one node.
"""

from __future__ import annotations

import re

from nas_core.errors import nearest
from search_spaces.evonorm.graph import INITIAL, Graph, Node
from search_spaces.evonorm.primitives import AGGREGATIONS, BINARY, UNARY

NESTED = 100  # parentheses and signs within one another
TOKEN = re.compile(r"\s*(?:([A-Za-z_]\w*|\d+)|([-+*/(),]))")
SUM, PRODUCT, SIGNED, ATOM = range(4)  # how tightly a text binds

FUNCTIONS = ("max", *UNARY, *AGGREGATIONS)


def to_text(graph: Graph) -> str:
    """The formula of the output, without the affine map that every layer ends with."""
    texts = [(text, ATOM) for text in INITIAL]

    def within(place: int, least: int) -> str:
        text, binds = texts[place]
        return text if binds >= least else f"({text})"

    nodes = graph.live().nodes
    for node in nodes:
        one, other = node.first, node.second
        if node.op == "add" and other is not None:
            term = nodes[other - len(INITIAL)] if other >= len(INITIAL) else None
            if term is not None and term.op == "neg":
                right = f"- {within(term.first, PRODUCT)}"
            else:
                right = f"+ {within(other, PRODUCT)}"
            texts.append((f"{within(one, SUM)} {right}", SUM))
        elif node.op == "mul" and other is not None:
            texts.append((f"{within(one, PRODUCT)}*{within(other, SIGNED)}", PRODUCT))
        elif node.op == "div" and other is not None:
            texts.append((f"{within(one, PRODUCT)} / {within(other, SIGNED)}", PRODUCT))
        elif node.op == "neg":
            texts.append((f"-{within(one, SIGNED)}", SIGNED))
        else:
            inputs = ", ".join(texts[place][0] for place in node.inputs)
            texts.append((f"{node.op}({inputs})", ATOM))
    return texts[-1][0]


def from_text(text: str, most: int) -> Graph:
    """The graph of a formula of at most `most` nodes. Raises ValueError with the position of what is wrong."""
    reader = _Reader(text, most)
    place = reader.sum(0)
    reader.end()
    if place < len(INITIAL):
        raise ValueError(f"'{text.strip()}' has no operation; write '{text.strip()} + 0'")
    return Graph(tuple(reader.nodes))  # the outermost operation holds all others, and so came last


class _Reader:
    def __init__(self, text: str, most: int) -> None:
        self._text, self._most = text, most
        self._position = 0
        self.nodes: list[Node] = []
        self._places: dict[Node, int] = {}

    def sum(self, depth: int) -> int:
        place = self._product(depth)
        while (sign := self._next("+", "-")) is not None:
            other = self._product(depth)
            place = self._node("add", place, other if sign == "+" else self._node("neg", other))
        return place

    def end(self) -> None:
        if self._peek():
            raise self._wrong("the end of the formula")

    def _product(self, depth: int) -> int:
        place = self._signed(depth)
        while (sign := self._next("*", "/")) is not None:
            place = self._node("mul" if sign == "*" else "div", place, self._signed(depth))
        return place

    def _signed(self, depth: int) -> int:
        if depth > NESTED:
            raise ValueError(f"the formula is nested more than {NESTED} deep at position {self._position + 1}")
        if self._next("-") is not None:
            return self._node("neg", self._signed(depth + 1))
        return self._atom(depth)

    def _atom(self, depth: int) -> int:
        if self._next("(") is not None:
            place = self.sum(depth + 1)
            self._need(")")
            return place
        word = self._peek()
        if word in INITIAL:
            self._next(word)
            return INITIAL.index(word)
        if not re.fullmatch(r"\w+", word):
            raise self._wrong("x, 0, v0, v1, a function or '('")
        if word not in FUNCTIONS:
            raise self._wrong(f"x, 0, v0, v1 or a function{nearest(word, FUNCTIONS)}")
        self._next(word)
        self._need("(")
        inputs = [self.sum(depth + 1)]
        if word in BINARY:
            self._need(",")
            inputs.append(self.sum(depth + 1))
        self._need(")")
        return self._node(word, *inputs)

    def _node(self, op: str, *inputs: int) -> int:
        node = Node(op, *inputs)
        if node not in self._places:
            if len(self.nodes) == self._most:
                raise ValueError(f"the formula has more than {self._most} nodes, up to position {self._position}")
            self.nodes.append(node)
            self._places[node] = len(INITIAL) + len(self.nodes) - 1
        return self._places[node]

    def _peek(self) -> str:
        """The next token; empty at the end."""
        found = TOKEN.match(self._text, self._position)
        if found:
            return found[1] or found[2]
        rest = self._text[self._position :].lstrip()
        return rest[:1]

    def _next(self, *tokens: str) -> str | None:
        token = self._peek()
        if not token or token not in tokens:
            return None
        self._position = self._text.index(token, self._position) + len(token)
        return token

    def _need(self, token: str) -> None:
        if self._next(token) is None:
            raise self._wrong(f"'{token}'")

    def _wrong(self, wanted: str) -> ValueError:
        token = self._peek()
        at = self._text.index(token, self._position) if token else len(self._text)
        found = f"'{token}'" if token else "the end"
        return ValueError(f"position {at + 1} of '{self._text}': {found} instead of {wanted}")
