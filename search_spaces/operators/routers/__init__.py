"""Routers: which experts compute a token.

Made by `(features, experts, active)`, where `active` is the number of experts of a token; called with `(x, condition)`,
`x [n, t, features]` in float32, answers a routing (`search_spaces.layers.dispatch`). `condition` is what is known of a
sample beside its tokens: `[n]` integers of tasks, `[n, attributes]`, or None. Its attribute `active` is the number of
experts whose parameters a token passes. Of padded sequences it sees each token as a sample of its own, and no padding;
one that decides by the tokens of a sample together says so by its attribute `by_sample = True`, and is called with `(x,
condition, real)`, where `real [n, t]` are the positions of tokens, or None: all are. What networks it can stand in, and
what is left to choose of it, are its `Facts`, listed beside its line; a class of a user's has them as its attribute
`facts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from search_spaces.operators.operator import Operator, Role
from search_spaces.operators.routers.facts import ALL, CONDITION, LATER, ONE, SEVERAL, Facts

_HERE = "search_spaces.operators.routers"
_BALANCE = {"balance": (0.0, 0.001, 0.01, 0.1)}

CATALOGUE: Mapping[str, tuple[str, Facts]] = {
    "noisy-top-k": (
        "noisy_top_k:NoisyTopK",
        Facts(
            options={
                "softmax": ("after", "before"),
                "importance": (0.0, 0.01, 0.1),
                "load": (0.0, 0.01, 0.1),
            },
            alone={"softmax": ("before",)},
        ),
    ),
    "switch": ("switch:Switch", Facts(most=1, options={**_BALANCE, "z": (0.0, 0.001)})),
    "gshard": ("gshard:GShard", Facts(most=2, options=_BALANCE)),
    "grin": ("grin:Grin", Facts(most=2, options=_BALANCE)),
    "smear": ("smear:Smear", Facts(frozenset({LATER}), ONE, drops=False, options={"dropout": (0.0, 0.1)})),
    "smear-task": (
        "smear:SmearByTask",
        Facts(frozenset({CONDITION}), ONE, drops=False, by_task=True, options={"dropout": (0.0, 0.1)}),
    ),
    "expert-choice": ("expert_choice:ExpertChoice", Facts(frozenset({LATER, SEVERAL}), drops=False)),
    "loss-free": ("loss_free:LossFree", Facts(options={"rate": (0.001, 0.01)})),
    "task": ("task:TaskRouter", Facts(frozenset({CONDITION}), drops=False, by_task=True)),
    "mmoe": ("task:GatePerTask", Facts(frozenset({CONDITION}), ALL, drops=False)),
    "attributes": (
        "attributes:Attributes",
        Facts(frozenset({CONDITION}), most=2, drops=False, by_task=True, options=_BALANCE),
    ),
    "grkan": ("grkan:Grkan", Facts(computes=ALL, drops=False)),
    "softmax": ("softmax:Softmax", Facts(computes=ALL, drops=False)),
    "random": ("random:RandomRouter", Facts()),
}

ROUTER = Role(
    "router",
    group="nas.routers",
    made_by=("features", "experts", "active"),
    table={name: f"{_HERE}.{place}" for name, (place, _) in CATALOGUE.items()},
)


def facts_of(router: Operator) -> Facts:
    """Of one of the catalogue, or of a user's class, without the options that its reference gives."""
    found: Facts = getattr(router.kind, "facts", Facts()) if router.own else CATALOGUE[router.name][1]
    return replace(
        found, options={name: values for name, values in found.options.items() if name not in router.options}
    )
