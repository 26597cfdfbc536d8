"""The calls in the code that draw randomness for a purpose, read from its text, so that nothing has to run."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("nas_core", "search_spaces", "training", "predictors", "compressors", "strategies", "studies", "nas_cli")

# What derives randomness from words, and what passes a word on to one of these.
SEEDS = ("derive", "generator")
PASSING = ("sampled", "_seeded")
CALL = re.compile(rf"\b({'|'.join(SEEDS + PASSING)})\(")
CONSTANT = re.compile(r'^([A-Z_]+) = "(.*)"', re.MULTILINE)


def purposes() -> Counter[str]:
    """How often the code has each call, such as `generator(*, *, 'child')`: words that are no texts are stars.

    A name in capitals is the text that it stands for, wherever it is defined.
    """
    texts = [path.read_text() for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    constants = {name: word for text in texts for name, word in CONSTANT.findall(text)}
    return Counter(found for text in texts if CALL.search(text) for found in _calls(ast.parse(text), constants))


def _calls(tree: ast.Module, constants: dict[str, str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        words = [_word(argument, constants) for argument in node.args]
        if name in SEEDS + PASSING and any(word != "*" for word in words):
            yield f"{name}({', '.join(words)})"


def _word(node: ast.expr, constants: dict[str, str]) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return repr(node.value)
    if isinstance(node, ast.Name) and node.id in constants:
        return repr(constants[node.id])
    return "*"
