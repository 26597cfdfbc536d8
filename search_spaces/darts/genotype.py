"""Genotypes: the cells of DARTS (Liu, Simonyan and Yang, ICLR 2019) as values and as the text that papers print."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import permutations

from nas_core.errors import nearest

NONE, MAX_POOL, AVG_POOL, SKIP, SEP3, SEP5, DIL3, DIL5 = OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
KEPT = OPERATIONS[1:]  # a genotype has no `none`

NODES = (2, 3, 4, 5)
NORMAL, REDUCE = "normal", "reduce"

Node = tuple[tuple[int, str], tuple[int, str]]
"""The two inputs in ascending order, each with its operation."""

Cell = tuple[Node, ...]


def _published(normal: str, reduce: str) -> dict[str, Cell]:
    """The two cells of `operation~input` twice for every node."""
    cells = {}
    for name, cell in ((NORMAL, normal), (REDUCE, reduce)):
        pairs = [(int(source), operation) for operation, _, source in (part.partition("~") for part in cell.split())]
        cells[name] = tuple((min(two), max(two)) for two in zip(pairs[::2], pairs[1::2], strict=True))
    return cells


PUBLISHED = {
    "DARTS_V1": _published(
        "sep_conv_3x3~1 sep_conv_3x3~0 skip_connect~0 sep_conv_3x3~1"
        " skip_connect~0 sep_conv_3x3~1 sep_conv_3x3~0 skip_connect~2",
        "max_pool_3x3~0 max_pool_3x3~1 skip_connect~2 max_pool_3x3~0"
        " max_pool_3x3~0 skip_connect~2 skip_connect~2 avg_pool_3x3~0",
    ),
    "DARTS_V2": _published(
        "sep_conv_3x3~0 sep_conv_3x3~1 sep_conv_3x3~0 sep_conv_3x3~1"
        " sep_conv_3x3~1 skip_connect~0 skip_connect~0 dil_conv_3x3~2",
        "max_pool_3x3~0 max_pool_3x3~1 skip_connect~2 max_pool_3x3~1"
        " max_pool_3x3~0 skip_connect~2 skip_connect~2 max_pool_3x3~1",
    ),
    "PDARTS": _published(
        "skip_connect~0 dil_conv_3x3~1 skip_connect~0 sep_conv_3x3~1"
        " sep_conv_3x3~1 sep_conv_3x3~3 sep_conv_3x3~0 dil_conv_5x5~4",
        "avg_pool_3x3~0 sep_conv_5x5~1 sep_conv_3x3~0 dil_conv_5x5~2"
        " max_pool_3x3~0 dil_conv_3x3~1 dil_conv_3x3~1 dil_conv_5x5~3",
    ),
    "PC_DARTS_cifar": _published(
        "sep_conv_3x3~1 skip_connect~0 sep_conv_3x3~0 dil_conv_3x3~1"
        " sep_conv_5x5~0 sep_conv_3x3~1 avg_pool_3x3~0 dil_conv_3x3~1",
        "sep_conv_5x5~1 max_pool_3x3~0 sep_conv_5x5~1 sep_conv_5x5~2"
        " sep_conv_3x3~0 sep_conv_3x3~3 sep_conv_3x3~1 sep_conv_3x3~2",
    ),
}
"""Normal and reduction cells for CIFAR-10. Liu et al., ICLR 2019 (first and second order); Chen et al., ICCV 2019;
Xu et al., ICLR 2020."""


@lru_cache(maxsize=4096)  # a search asks for the identity of the same architecture again and again
def canonical(cell: Cell) -> Cell:
    """The same cell for all that differ in the order of their nodes: the smallest of them."""
    return min(renumbered for order in permutations(range(len(cell))) if (renumbered := _renumbered(cell, order)))


def _renumbered(cell: Cell, order: Sequence[int]) -> Cell | None:
    """The nodes in another order; None where one would come before what it reads."""
    new = {0: 0, 1: 1} | {NODES[old]: NODES[position] for position, old in enumerate(order)}
    result: list[Node] = []
    for position, old in enumerate(order):
        one, other = sorted((new[source], operation) for source, operation in cell[old])
        if other[0] >= NODES[position]:
            return None
        result.append((one, other))
    return tuple(result)


def to_text(cells: Mapping[str, Cell]) -> str:
    """`Genotype(normal=[(operation, input), ...], normal_concat=range(2, 6), ...)`."""
    parts = []
    for kind, cell in cells.items():
        pairs = ", ".join(f"('{operation}', {source})" for inputs in cell for source, operation in inputs)
        parts.append(f"{kind}=[{pairs}], {kind}_concat=range(2, 6)")
    return f"Genotype({', '.join(parts)})"


def from_text(text: str, *names: tuple[str, ...]) -> dict[str, Cell]:
    """The cells of a genotype, whose names are one of `names` (the first, where none fits). Nothing is evaluated.
    Raises ValueError, naming what is wrong with the text."""
    text = text.strip()
    fields = _fields(text)
    cells = next((known for known in names if set(known) <= fields.keys()), names[0])
    wanted = [field for cell in cells for field in (cell, f"{cell}_concat")]
    for field in fields:
        if field not in wanted:
            raise ValueError(f"a genotype has no field '{field}'{nearest(field, wanted)} ({', '.join(wanted)})")
    for field in wanted:
        if field not in fields:
            raise ValueError(f"the genotype lacks '{field}'; it needs {', '.join(wanted)}")
    for cell in cells:
        written = "".join((ast.get_source_segment(text, fields[f"{cell}_concat"]) or "").split())
        if written not in ("range(2,6)", "[2,3,4,5]", "(2,3,4,5)"):
            raise ValueError(f"{cell}_concat is {_short(written)}; here it is range(2, 6): all four nodes")
    return {cell: _cell(cell, fields[cell]) for cell in cells}


def _fields(text: str) -> dict[str, ast.expr]:
    """The keywords of `Genotype(...)`."""
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        call = None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "Genotype":
        raise ValueError(f"'{_short(text)}' is no genotype: write Genotype(normal=[(operation, input), ...], ...)")
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ValueError(f"'{_short(text)}' must name all its fields: Genotype(normal=[...], normal_concat=..., ...)")
    return {str(keyword.arg): keyword.value for keyword in call.keywords}


def _cell(name: str, value: ast.expr) -> Cell:
    if not isinstance(value, ast.List | ast.Tuple):
        raise ValueError(f"the field '{name}' is no list; it needs {2 * len(NODES)} pairs of operation and input")
    if len(value.elts) != 2 * len(NODES):
        raise ValueError(f"the field '{name}' has {len(value.elts)} pairs; it needs {2 * len(NODES)}, two per node")
    cell: list[Node] = []
    for position, node in enumerate(NODES):
        place = f"node {node} of '{name}'"
        one, other = (_pair(place, node, pair) for pair in value.elts[2 * position : 2 * position + 2])
        if one[0] == other[0]:
            raise ValueError(f"{place} reads node {one[0]} twice; it needs two distinct inputs")
        cell.append((min(one, other), max(one, other)))
    return tuple(cell)


def _pair(place: str, node: int, pair: ast.expr) -> tuple[int, str]:
    parts = pair.elts if isinstance(pair, ast.List | ast.Tuple) else []
    values = [part.value if isinstance(part, ast.Constant) else None for part in parts]
    if len(values) != 2 or not isinstance(operation := values[0], str) or type(source := values[1]) is not int:
        raise ValueError(f"a pair at {place} is not of the form ('operation', input)")
    if operation not in KEPT:
        known = ", ".join(KEPT)
        raise ValueError(f"'{operation}' at {place} is no operation of a genotype{nearest(operation, KEPT)} ({known})")
    if not 0 <= source < node:
        raise ValueError(f"{place} reads node {source}; it may read 0 to {node - 1}")
    return source, operation


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
