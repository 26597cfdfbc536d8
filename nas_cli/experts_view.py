"""What the last epoch of a training says of layers of experts: who does how much of the work, and what is no good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nas_cli import render
from nas_cli.heat import SHADES, shade
from reports.facts import Loads, remarks


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


def _largest(loads: Loads) -> float:
    return max(max(shares) for shares in loads.values()) or 1.0


def _shade(share: float) -> str:
    """Blank is none at all, so that a dead expert is told from an idle one."""
    return shade(share) if share == 0 or shade(share) != SHADES[0] else SHADES[1]
