"""Experts: what a layer of experts holds many of, in stacked tensors.

Made by `(experts, features, hidden, outputs)`, all of them in one module whose parameters have the experts as their
first dimension, or that says by its attribute `number` how many there are; called with `(x, assignment)`
(`search_spaces.layers.assigned`), answers each row by its expert, `[..., features]` to `[..., outputs]`. `hidden` are
the units of an MLP with as many parameters: an expert with more parameters per unit has fewer, so that all kinds of one
`hidden` cost about the same.
"""

from __future__ import annotations

from search_spaces.operators.operator import Role

EXPERT = Role(
    "expert",
    group="nas.experts",
    made_by=("experts", "features", "hidden", "outputs"),
    table={
        "gelu": "search_spaces.operators.experts.gelu:Gelu",
        "glu": "search_spaces.operators.experts.glu:Glu",
        "kan": "search_spaces.operators.experts.kan:Kan",
        "pade": "search_spaces.operators.experts.pade:Pade",
        "rational": "search_spaces.operators.experts.rational:Rational",
        "linear": "search_spaces.operators.experts.linear:Linear",
        "mixed": "search_spaces.operators.experts.mixed:Mixed",
    },
)
WITHOUT_HIDDEN = frozenset({"linear"})
"""Those whose parameters do not depend on `hidden`."""
UNMERGED = frozenset({"mixed"})
"""Those whose experts are of several kinds, so that no router can merge them."""
