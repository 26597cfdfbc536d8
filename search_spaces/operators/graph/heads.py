"""Heads of attention, side by side."""

from __future__ import annotations

from nas_core.errors import UsageError


def per_head(operator: str, hidden: int, heads: int) -> int:
    """The width of each of `heads` heads that make up `hidden` features. Raises UsageError where they do not."""
    if heads < 1 or hidden % heads:
        raise UsageError(
            f"{operator}: {heads} heads do not make up {hidden} features; say heads={_best(hidden, heads)}"
        )
    return hidden // heads


def checked_dropout(dropout: float, operator: str) -> float:
    """A share of what is attended to. Raises UsageError for what is none."""
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise UsageError(f"{operator}: dropout is {dropout!r}; use a number from 0 to below 1")
    return float(dropout)


def _best(hidden: int, heads: int) -> int:
    return max(number for number in range(1, max(1, heads) + 1) if hidden % number == 0)
