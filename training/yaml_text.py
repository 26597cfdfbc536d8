"""Plain data out of YAML that somebody else may have written: of a size that can be gone through and printed.

The safe loader makes no objects, but by aliases a text of a few lines stands for more values than fit into memory.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from nas_core.plain import DEEP, DEEPEST, DIGITS

LARGEST = 100_000  # values, those of an alias as often as it occurs


def from_yaml(text: str) -> Any:
    """What YAML's safe loader makes of a text. Raises ValueError that says in words what is wrong with it, a key that
    is given twice as well."""
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _measure(node, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError(DEEP) from None


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """How many values a node stands for, and how deep they are nested. `known`: of the nodes that were seen; None while
    what is in them is looked at."""
    place = f"line {node.start_mark.line + 1}"
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise ValueError(f"{place}: what is in it holds it itself")
        return found
    if isinstance(node, yaml.ScalarNode):
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > DIGITS:
            raise ValueError(f"{place}: a whole number of {len(node.value):,} digits")
        return 1, 0
    known[id(node)] = None
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
        inner = [one for pair in node.value for one in pair]
    else:
        inner = node.value
    size, depth = 1, 1
    for one in inner:
        values, levels = _measure(one, known)
        size, depth = size + values, max(depth, 1 + levels)
    if size > LARGEST:
        raise ValueError(f"{place}: it stands for more than {LARGEST:,} values")
    if depth > DEEPEST:
        raise ValueError(DEEP)
    known[id(node)] = size, depth
    return size, depth


def _check_keys(node: yaml.MappingNode) -> None:
    seen: set[Hashable] = set()
    for key, _ in node.value:
        if (key.tag, str(key.value)) in seen:
            raise ValueError(f"line {key.start_mark.line + 1}: the key '{key.value}' is given twice")
        seen.add((key.tag, str(key.value)))
