"""What was computed with symbols, as statements: values that are read once are written where they are read."""

from __future__ import annotations

import ast
import copy
import io
import re
import tokenize
from collections import Counter
from collections.abc import Mapping
from typing import Any

from search_spaces.layers.features import Shared
from training.export.python.symbols import Node, Symbol, Tape, written
from training.export.python.terms import literal

NUMBERED = {"nodes": "node", "relations": "relation", "states": "state"}
"""Local lists and dictionaries whose values are named after their place, in a cell."""


def names_of(variables: Mapping[str, Any], taken: set[str]) -> dict[int, tuple[str, bool]]:
    """Names of values by their number, and whether they are named even where they are read once."""
    found: dict[int, tuple[str, bool]] = {}

    def name(value: Any, text: str, always: bool) -> None:
        if isinstance(value, Shared):
            value = None if value.empty else value.tensor
        if isinstance(value, Symbol) and text not in taken:
            found.setdefault(value._node.number, (text, always))

    for local, prefix in NUMBERED.items():
        values = variables.get(local, ())
        pairs = values.items() if isinstance(values, dict) else enumerate(values)
        for key, value in pairs:
            name(value, f"{prefix}{key}", True)
    for local, value in variables.items():
        name(value, local, False)
    return found


def lines_of(tape: Tape, result: Any, hints: Mapping[int, tuple[str, bool]]) -> tuple[tuple[str, ...], str | None]:
    """Statements for what the result reads. A value that is read once is written where it is read, and none is called
    by the name of an input or of a function, which may be read later."""
    if result is None:
        return (), None
    answer = written(result)
    uses = Counter(_read(answer))
    for node in reversed(tape.nodes):
        if uses[node.number]:
            uses.update(_read(node.expression))
    taken = {one.id for node in tape.nodes for one in ast.walk(node.expression) if isinstance(one, ast.Name)}
    names: dict[int, str] = {}
    lines: list[str] = []

    def final(expression: ast.expr) -> ast.expr:
        class Put(ast.NodeTransformer):
            def visit_Name(self, name: ast.Name) -> ast.expr:
                if not name.id.startswith("%"):
                    return name
                number = int(name.id[1:])
                if number in names:
                    return ast.Name(names[number], ast.Load())
                return final(tape.nodes[number].expression)

        return Put().visit(copy.deepcopy(expression))

    def named(node: Node) -> str:
        wish = hints[node.number][0] if node.number in hints else _wish(node, names)
        free, count = wish, 1
        while free in taken or free in names.values():
            count += 1
            free = f"{wish}{count}"
        return free

    last = int(answer.id[1:]) if isinstance(answer, ast.Name) else -1
    for node in tape.nodes:
        if not uses[node.number] or node.cheap or node.whole is not None:
            continue
        if node.items:
            text = unparsed(final(node.expression))
            for item in node.items:
                names[item.number] = named(item)
            lines.append(f"{', '.join(names[item.number] for item in node.items)} = {text}")
            continue
        always = node.number in hints and hints[node.number][1]
        if uses[node.number] > 1 or (always and node.number != last):
            text = unparsed(final(node.expression))
            names[node.number] = named(node)
            lines.append(f"{names[node.number]} = {text}")
    return tuple(lines), unparsed(final(answer))


def _read(expression: ast.expr) -> list[int]:
    found = (node.id for node in ast.walk(expression) if isinstance(node, ast.Name))
    return [int(name[1:]) for name in found if name.startswith("%")]


def _wish(node: Node, names: Mapping[int, str]) -> str:
    """A name for a value after the function that it comes from: `node0_relu`."""
    call = node.expression
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute | ast.Name):
        return "h"
    function = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
    read = [number for number in _read(call) if number in names]
    return f"{names[read[0]]}_{function}" if len(read) == 1 else function


def unparsed(tree: ast.AST) -> str:
    """Source of a tree, with strings in double quotes and bare tuples as they are usually written."""
    text = requoted(ast.unparse(ast.fix_missing_locations(tree)))
    return "\n".join(_bare_tuple(line) for line in text.split("\n"))


def _bare_tuple(line: str) -> str:
    """Without the brackets of a tuple that is assigned to several names, or returned."""
    match = re.fullmatch(r"(\s*(?:return |\w+(?:, \w+)+ = ))\((.*,.*)\)", line)
    if match is None:
        return line
    try:
        whole, inner = ast.parse(f"({match[2]})", mode="eval").body, ast.parse(match[2], mode="eval").body
    except SyntaxError:
        return line
    return match[1] + match[2] if isinstance(inner, ast.Tuple) and ast.dump(whole) == ast.dump(inner) else line


def requoted(text: str) -> str:
    """Source with its simple strings in double quotes."""
    lines = text.split("\n")
    for token in reversed(list(tokenize.generate_tokens(io.StringIO(text).readline))):
        if token.type == tokenize.STRING and token.string.startswith("'") and token.start[0] == token.end[0]:
            row, start, end = token.start[0] - 1, token.start[1], token.end[1]
            lines[row] = lines[row][:start] + literal(ast.literal_eval(token.string)) + lines[row][end:]
    return "\n".join(lines)
