"""Known layers as formulas. Layers before EvoNorm keep the scale and shift between normalisation and activation, v1 and
v0, and so contain the pair of modules that they are named after.

FRN is the filter response normalisation with thresholded linear unit of Singh and Krishnan, CVPR 2020:
max(g*x/rms + b, t) = max(g*x/rms, t - b) + b, with v1 = g, v0 = t - b. LN-GELU is none of them: no constant of the
primitives is that of GELU.
"""

from __future__ import annotations

from collections.abc import Mapping

_BATCH = "(x - mean_bhw(x)) / std_bhw(x)*v1 + v0"
_GROUP = "(x - mean_group(x)) / std_group(x)*v1 + v0"

FORMULAS: Mapping[str, str] = {
    "bn-relu": f"max({_BATCH}, 0)",
    "bn-silu": f"({_BATCH})*sigmoid({_BATCH})",
    "gn-relu": f"max({_GROUP}, 0)",
    "gn-silu": f"({_GROUP})*sigmoid({_GROUP})",
    "frn": "max(x / rms_hw(x)*v1, v0)",
    "evonorm-b0": "x / max(std_bhw(x), v1*x + std_hw(x))",
    "evonorm-b1": "x / max(std_bhw(x), (x + exp(0))*rms_hw(x))",
    "evonorm-b2": "x / max(std_bhw(x), rms_hw(x) - x)",
    "evonorm-s0": "x*sigmoid(v1*x) / std_group(x)",
    "evonorm-s1": "x*sigmoid(x) / std_group(x)",
    "evonorm-s2": "x*sigmoid(x) / rms_group(x)",
}
