"""Faults that are planted in the code to see whether a test finds them: what `faults.yaml` holds.

A fault is a text of a file and what it becomes. The text occurs exactly once, so that whoever moves or changes the
code carries the fault along.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KEYS = ("name", "file", "before", "after", "breaks")


@dataclass(frozen=True)
class Fault:
    """`before` and `after`: texts of `file` (a path from the root of the tree). `breaks`: what is wrong then. `unseen`:
    why no test can find it, where none can."""

    name: str
    file: str
    before: str
    after: str
    breaks: str
    unseen: str = ""

    @property
    def digest(self) -> str:
        """Another text is another fault, whatever its name."""
        return hashlib.sha256("\0".join((self.file, self.before, self.after)).encode()).hexdigest()[:8]

    def planted(self, text: str) -> str:
        """The file's text with the fault. Raises ValueError where it does not fit."""
        count = text.count(self.before)
        if count != 1:
            raise ValueError(f"fault '{self.name}': its text occurs {count} times in {self.file}; it must occur once")
        return text.replace(self.before, self.after)


def load(path: Path = HERE / "faults.yaml") -> list[Fault]:
    """All faults of a file. Raises ValueError for one that is not complete, and for a name that comes twice."""
    faults: list[Fault] = []
    for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
        wrong = [key for key in KEYS if not isinstance(entry.get(key), str)] + sorted(entry.keys() - {*KEYS, "unseen"})
        if wrong:
            raise ValueError(f"{path}: fault {entry.get('name')!r} is wrong in {', '.join(wrong)}")
        faults.append(Fault(**entry))
    names = [fault.name for fault in faults]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: these names come twice: {', '.join(twice)}")
    return faults


def misfits(faults: Iterable[Fault], root: Path = ROOT) -> Iterator[str]:
    """What is wrong with faults in a tree: a file or text that is gone or not unique, a result that is no Python."""
    for fault in faults:
        path = root / fault.file
        if not path.is_file():
            yield f"fault '{fault.name}': there is no file {fault.file}"
            continue
        try:
            text = fault.planted(path.read_text(encoding="utf-8"))
            if fault.before == fault.after:
                yield f"fault '{fault.name}' changes nothing"
            if path.suffix == ".py":
                ast.parse(text)
        except ValueError as error:
            yield str(error)
        except SyntaxError as error:
            yield f"fault '{fault.name}' leaves no Python: {error}"


def changed_lines(before: str, after: str) -> set[int]:
    """Numbers (from 1) of the lines of `before` that `after` changes; of an insertion, the lines around it."""
    old, new = before.splitlines(), after.splitlines()
    changed: set[int] = set()
    for kind, start, end, _, _ in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "insert":
            changed |= {line for line in (start, start + 1) if 1 <= line <= len(old)}
        elif kind != "equal":
            changed |= set(range(start + 1, end + 1))
    return changed


def statements(text: str, lines: Iterable[int]) -> tuple[set[int], bool]:
    """The lines of the innermost statements that hold `lines` (of a compound one, its head), and whether all of them
    run when a function is called, rather than once at import."""
    wanted, inside = set(lines), True
    found: set[int] = set()

    def walk(body: Sequence[ast.AST], in_function: bool, left: set[int]) -> None:
        nonlocal inside
        for node in body:
            if not isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
                continue
            first, last = _span(node)
            mine = {line for line in left if first <= line <= last}
            if not mine:
                continue
            children = [child for child in ast.iter_child_nodes(node) if isinstance(child, _BLOCKS)]
            deeper = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            within = {line for child in children for line in range(_span(child)[0], _span(child)[1] + 1)}
            walk(children, deeper, mine & within)
            if mine - within:
                found.update(set(range(first, last + 1)) - within)
                inside = inside and in_function

    walk(ast.parse(text).body, False, wanted)
    return found | wanted, inside


_BLOCKS = (ast.stmt, ast.ExceptHandler, ast.match_case)


def _span(node: ast.AST) -> tuple[int, int]:
    """First and last line, decorators included."""
    if isinstance(node, ast.match_case):
        return node.pattern.lineno, node.body[-1].end_lineno or node.body[-1].lineno
    assert isinstance(node, ast.stmt | ast.ExceptHandler)
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(one.lineno for one in decorators)]), node.end_lineno or node.lineno
