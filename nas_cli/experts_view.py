"""What the last epoch of a training says of layers of experts, where it is no good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nas_cli import render

MOST_DROPPED = 0.05


def page(metrics: Mapping[str, float]) -> None:
    """A line for each remark."""
    for text in remarks(metrics):
        render.emit(f"  warning: {text}")


def remarks(metrics: Mapping[str, float]) -> Iterator[str]:
    """Experts that get no token of a batch, and tokens that experts have no room for."""
    dead, worst = metrics.get("train_dead_share", 0.0), metrics.get("train_dead_share_max", 0.0)
    if dead > 0:
        yield (
            f"dead experts: {dead:.1%} get no token of a batch, {worst:.1%} in the worst layer; take fewer, or a "
            "larger weight of the balance loss"
        )
    dropped, worst = metrics.get("train_dropped_share", 0.0), metrics.get("train_dropped_share_max", 0.0)
    if max(dropped, worst) > MOST_DROPPED:
        yield (
            f"the capacity drops {dropped:.1%} of what routers choose, {worst:.1%} in the worst layer; raise it, or "
            "take drops=false"
        )
