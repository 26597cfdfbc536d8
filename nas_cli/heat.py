"""Weights of candidates as text: a shade per candidate, and their path over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SHADES = " .:-=+*#%@"
WIDEST = 40  # groups that are shown


def shade(weight: float) -> str:
    """A character that is the darker, the larger the weight (0 to 1)."""
    return SHADES[min(int(max(weight, 0.0) * len(SHADES)), len(SHADES) - 1)]


def heat_map(scores: Mapping[str, Sequence[float]]) -> list[str]:
    """A line per group: its name, a shade per candidate, and the largest weight."""
    width = max((len(name) for name in scores), default=0)
    lines = [
        f"{name:<{width}} |{''.join(shade(weight) for weight in weights)}| {max(weights):.2f}"
        for name, weights in list(scores.items())[:WIDEST]
    ]
    return lines if len(scores) <= WIDEST else [*lines, f"... {len(scores) - WIDEST} more"]
