"""What a network is to come to: `macs<=0.5x`, `params<=20000`, `density<=0.2`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas_core.errors import UsageError, unknown

COSTS: Mapping[str, str] = {
    "macs": "multiply-accumulates of one sample",
    "params": "parameters",
    "density": "share of the weights that are not zero",
}
"""What a target may be about."""

_TARGET = re.compile(r"\s*([\w.]+)\s*<=\s*([\d.eE+-]+)(x?)\s*")


@dataclass(frozen=True, slots=True)
class Target:
    """At most `bound` of `metric`; `relative`: of what the network before had."""

    metric: str
    bound: float
    relative: bool

    def limit(self, base: Mapping[str, float]) -> float:
        """The bound in the unit of the metric, where `base` are the costs of the network before."""
        return self.bound * base[self.metric] if self.relative else self.bound

    def __str__(self) -> str:
        return f"{self.metric}<={self.bound:g}{'x' if self.relative else ''}"


def parse_target(text: str) -> Target:
    """`macs<=0.5x` or `params<=2e4`. Raises UsageError."""
    match = _TARGET.fullmatch(text)
    try:
        bound = float(match[2]) if match else math.nan
    except ValueError:
        bound = math.nan
    if not match or not math.isfinite(bound) or bound <= 0:
        raise UsageError(f"target '{text}' is malformed; write COST<=NUMBER or COST<=SHAREx, e.g. macs<=0.5x")
    if match[1] not in COSTS:
        raise unknown("cost of a target", match[1], COSTS)
    return Target(match[1], bound, bool(match[3]))


def parse_targets(texts: Sequence[str]) -> tuple[Target, ...]:
    """Raises UsageError also for two of one cost."""
    found = tuple(map(parse_target, texts))
    for number, target in enumerate(found):
        if target.metric in {other.metric for other in found[:number]}:
            raise UsageError(f"target '{texts[number]}': {target.metric} has a target already; name each cost once")
    return found
