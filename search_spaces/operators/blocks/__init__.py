"""Blocks that stages of macro spaces repeat.

Made by `(inputs, outputs, stride)` and options, called with `(n, inputs, h, w)`, answers
`(n, outputs, ceil(h / stride), ceil(w / stride))`. What a space may choose of its options stands beside its line; a
block of a user's says so in its class: `choices = {"hidden": (16, 32)}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_core.choice import Value
from nas_core.errors import UsageError
from search_spaces.operators.operator import Operator, Role

Options = Mapping[str, tuple[Value, ...]]

_CARDINALITIES, _REDUCTIONS = (1, 2, 4, 8, 32), (8, 16, 32)

CATALOGUE: Mapping[str, tuple[str, Options]] = {
    "bottleneck": (
        "search_spaces.operators.blocks.bottleneck:bottleneck",
        {"ratio": (1, 2, 4), "group_width": (1, 2, 4, 8, 16, 32), "squeeze": (0.0, 0.25)},
    ),
    "resnext": (
        "search_spaces.operators.blocks.resnext:resnext",
        {"cardinality": _CARDINALITIES, "base_width": (4, 8, 14, 24, 40, 64)},
    ),
    "selective-kernel": (
        "search_spaces.operators.blocks.selective_kernel:SelectiveKernelBlock",
        {"cardinality": _CARDINALITIES, "base_width": (4, 8), "branches": (2, 3), "reduction": _REDUCTIONS},
    ),
}

BLOCK = Role(
    "block",
    group="nas.blocks",
    made_by=("inputs", "outputs", "stride"),
    table={name: place for name, (place, _) in CATALOGUE.items()},
)


def choices_of(block: Operator) -> Options:
    """The options of a block that are left to choose, with their values in order. Raises UsageError for those of a
    user's class that are none."""
    options: Any = getattr(block.kind, "choices", {}) if block.own else CATALOGUE[block.name][1]
    for name, values in dict(options).items():
        if not (isinstance(values, tuple) and values and all(isinstance(one, int | float | str) for one in values)):
            raise UsageError(f"block '{block.reference}': its choices of '{name}' are {values!r}; list them in a tuple")
    return {name: values for name, values in options.items() if name not in block.options}
