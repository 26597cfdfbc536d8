"""Lines of source: statements broken at their brackets where they are too long, docstrings filled."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from itertools import pairwise

WIDTH = 120
STEP = "    "

_OPEN, _CLOSE = "([{", ")]}"
_OPERATOR = r" (?=(?:[-+*/%@|&]|//|and|or) )"
_STATEMENT = re.compile(r"(?P<head>return |[\w.,\s]+ [-+*/]?= )(?P<expression>.+)", re.DOTALL)


def statement(text: str, indent: str = "", width: int = WIDTH) -> list[str]:
    """A statement as lines of at most `width` characters, broken as formatters do; `text` is one line."""
    if len(indent) + len(text) <= width:
        return [indent + text]
    match = _STATEMENT.fullmatch(text)
    if match and (places := _places(match["expression"], _OPERATOR)):
        parts = _cut(match["expression"], places)
        inner = [line for part in parts for line in statement(part.strip(), indent + STEP, width)]
        return [f"{indent}{match['head']}(", *inner, f"{indent})"]
    pairs = _brackets(text)
    if not pairs:
        return [indent + text]
    # The last pair where that is short before and after it, else the last one.
    room = width - len(indent)
    start, end = next((pair for pair in pairs if pair[0] < room and len(text) - pair[1] <= room), pairs[0])
    head, body, tail = text[: start + 1], text[start + 1 : end], text[end:]
    return [indent + head, *_body(head, body, indent + STEP, width), indent + tail]


def _body(head: str, body: str, indent: str, width: int) -> list[str]:
    """What stands in brackets: on one line where it fits, else one item a line, with a comma after the last."""
    body = body.strip()
    if len(indent) + len(body) <= width and not body.endswith(","):
        return [indent + body]
    clauses = [place for place in _places(body, r" (?=(?:for|if) )") if " for " in _bare(body)]
    if clauses:
        return [line for part in _cut(body, clauses) for line in statement(part.strip(), indent, width)]
    parts = [part.strip().removesuffix(",") for part in _cut(body, [place + 1 for place in _places(body, ",")])]
    parts = [part for part in parts if part]
    # A comma after one item makes a tuple of it, one in a subscript another index.
    subscript = bool(re.search(r"[\w)\]\"]\[$", head))
    comma = not subscript and (len(parts) > 1 or body.endswith(","))
    lines: list[str] = []
    for position, part in enumerate(parts):
        lines += statement(part + ("," if comma or position < len(parts) - 1 else ""), indent, width)
    return lines


def _places(text: str, pattern: str) -> list[int]:
    """Where a pattern stands outside of strings and brackets."""
    kept = _outside(text)
    return [found.start() for found in re.finditer(pattern, text) if found.start() in kept]


def _bare(text: str) -> str:
    """What stands outside of all brackets."""
    kept = _outside(text)
    return "".join(letter for place, letter in enumerate(text) if place in kept)


def _cut(text: str, places: list[int]) -> list[str]:
    bounds = [0, *places, len(text)]
    return [text[one:other] for one, other in pairwise(bounds)]


def _scan(text: str) -> Iterator[tuple[int, str, int]]:
    """Every character outside of strings with its place and the depth of brackets that it stands at."""
    depth, quote, place = 0, "", 0
    while place < len(text):
        letter = text[place]
        if quote:
            if letter == "\\":
                place += 1
            elif letter == quote:
                quote = ""
        elif letter in "\"'":
            quote = letter
        else:
            depth -= letter in _CLOSE
            yield place, letter, depth
            depth += letter in _OPEN
        place += 1


def _outside(text: str) -> set[int]:
    return {place for place, letter, depth in _scan(text) if depth == 0 and letter not in _OPEN + _CLOSE}


def _brackets(text: str) -> list[tuple[int, int]]:
    """The pairs of outermost brackets that hold something, the last first."""
    found: list[tuple[int, int]] = []
    start = 0
    for place, letter, depth in _scan(text):
        if depth == 0 and letter in _OPEN:
            start = place
        elif depth == 0 and letter in _CLOSE and text[start + 1 : place].strip():
            found.insert(0, (start, place))
    return found


def docstring(text: str, indent: str = "") -> list[str]:
    """Paragraphs as a docstring; lines that are indented stay as they are."""
    paragraphs = text.strip().replace("\\", "\\\\").replace('"""', "'''").split("\n\n")
    filled = []
    for paragraph in paragraphs:
        if paragraph.startswith(" "):
            filled.append(textwrap.indent(textwrap.dedent(paragraph), indent + STEP))
        else:
            first = '"""' if not filled else ""
            words = first + " ".join(paragraph.split())
            filled.append(
                textwrap.fill(
                    words,
                    WIDTH,
                    initial_indent=indent,
                    subsequent_indent=indent,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
    if len(filled) == 1 and "\n" not in filled[0] and len(filled[0]) <= WIDTH - 3:
        return [filled[0] + '"""']
    lines = "\n\n".join(filled).split("\n")
    if len(filled) == 1 and len(lines[-1]) <= WIDTH - 3:
        return [*lines[:-1], lines[-1] + '"""']
    return [*lines, indent + '"""']
