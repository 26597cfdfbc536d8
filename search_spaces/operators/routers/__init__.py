"""Routers: which experts compute a token.

Made by `(features, experts, active)`, where `active` is the number of experts of a token; called with `(x, condition)`,
`x [n, t, features]` in float32, answers a routing (`search_spaces.layers.dispatch`). `condition` is what is known of a
sample beside its tokens: `[n]` integers of tasks, `[n, attributes]`, or None. Class attributes with defaults say more:
- `conditional = True`: it needs a condition;
- `looks_ahead = True`: a token's routing depends on later ones of its sample (of none in causal networks);
- `single = True`: it chooses one expert.
"""

from __future__ import annotations

from search_spaces.operators.operator import Role

_HERE = "search_spaces.operators.routers"

ROUTER = Role(
    "router",
    group="nas.routers",
    made_by=("features", "experts", "active"),
    table={
        "noisy-top-k": f"{_HERE}.noisy_top_k:NoisyTopK",
        "switch": f"{_HERE}.switch:Switch",
        "gshard": f"{_HERE}.gshard:GShard",
        "grin": f"{_HERE}.grin:Grin",
        "smear": f"{_HERE}.smear:Smear",
        "expert-choice": f"{_HERE}.expert_choice:ExpertChoice",
        "loss-free": f"{_HERE}.loss_free:LossFree",
        "task": f"{_HERE}.task:TaskRouter",
        "mmoe": f"{_HERE}.task:GatePerTask",
        "attributes": f"{_HERE}.attributes:Attributes",
        "grkan": f"{_HERE}.grkan:Grkan",
        "dense": f"{_HERE}.dense:Dense",
        "random": f"{_HERE}.random:RandomRouter",
    },
)
