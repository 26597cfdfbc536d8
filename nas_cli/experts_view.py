"""What the last epoch of a training says of layers of experts: who does how much of the work, and what is no good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nas_cli import render
from nas_cli.heat import SHADES, shade

MOST_DROPPED = 0.05

Loads = Mapping[str, Sequence[float]]
"""Per layer the share of its work that each expert does; experts are counted from 0, as in the stacked weights."""


def page(metrics: Mapping[str, float], loads: Loads) -> None:
    """The map of the loads where there are any, and the warnings."""
    if loads:
        render.emit("", f"loads of experts (the darkest does {_largest(loads):.1%} of a layer's work)")
        render.emit(*(f"  {line}" for line in heat_map(loads)))
    warnings(metrics, loads)


def warnings(metrics: Mapping[str, float], loads: Loads) -> None:
    """A line for each remark."""
    for text in remarks(metrics, loads):
        render.emit(f"  warning: {text}")


def heat_map(loads: Loads) -> Iterator[str]:
    """The experts' numbers, tens above ones, and a line per layer: its name, a shade per expert from none (blank) to
    the largest load of the map, and who does most."""
    width, most, largest = max(map(len, loads)), max(map(len, loads.values())), _largest(loads)
    if most > 10:
        yield f"{'':<{width}}  {''.join(str(number // 10) if number % 10 == 0 else ' ' for number in range(most))}"
    yield f"{'':<{width}}  {''.join(str(number % 10) for number in range(most))}"
    for name, shares in loads.items():
        shades = "".join(_shade(share / largest) for share in shares)
        first = max(range(len(shares)), key=lambda number: shares[number])
        yield f"{name:<{width}} |{shades}| {first} does {shares[first]:.1%}"


def remarks(metrics: Mapping[str, float], loads: Loads) -> Iterator[str]:
    """Experts that get no token of a batch, by name where it is none of the epoch, and tokens that experts have no room
    for."""
    dead, worst = metrics.get("train_dead_share", 0.0), metrics.get("train_dead_share_max", 0.0)
    if dead > 0:
        yield (
            f"dead experts: {dead:.1%} get no token of a batch, {worst:.1%} in the worst layer{_dead(loads)}; take "
            "fewer, or a larger weight of the balance loss"
        )
    dropped, worst = metrics.get("train_dropped_share", 0.0), metrics.get("train_dropped_share_max", 0.0)
    if max(dropped, worst) > MOST_DROPPED:
        yield (
            f"the capacity drops {dropped:.1%} of what routers choose, {worst:.1%} in the worst layer; raise it, or "
            "take drops=false"
        )


def _dead(loads: Loads) -> str:
    """` (none of the whole epoch: 3, 5 of blocks.0.layer; 1 of ...)`."""
    found = {name: [str(number) for number, share in enumerate(shares) if share == 0] for name, shares in loads.items()}
    named = "; ".join(f"{', '.join(numbers)} of {name}" for name, numbers in found.items() if numbers)
    return f" (none of the whole epoch: {named})" if named else ""


def _largest(loads: Loads) -> float:
    return max(max(shares) for shares in loads.values()) or 1.0


def _shade(share: float) -> str:
    """Blank is none at all, so that a dead expert is told from an idle one."""
    return shade(share) if share == 0 or shade(share) != SHADES[0] else SHADES[1]
