"""What a trial's network costs beside what the search has recorded: at the search size, and measured now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nas_cli import render
from nas_core.config import size_text
from nas_core.records import Run
from studies.records import Study

if TYPE_CHECKING:
    from studies.documents import View


def search_page(view: View, run: Run) -> None:
    """The costs at the search size, and that those of the trial are others."""
    from studies.documents import search_costs

    found = search_costs(view, run)
    if found:
        size = size_text(view.study.spec.size)
        render.emit("", f"costs at the search size, {size} (those above are at the final size)")
        render.pairs({name: render.number(value) for name, value in found.items()}, "  ")


def latency(study: Study, run: Run) -> dict[str, Any]:
    """The latency of a trial's network, measured now, with its conditions. Raises as
    `studies.analysis.costs.final_latency`."""
    from studies.analysis.costs import final_latency

    return asdict(final_latency(study, run.arch))


def latency_page(measured: Mapping[str, Any]) -> None:
    """A latency that was measured just now."""
    render.emit("", "latency at the final size, measured now (spread_ms: between the quartiles)")
    texts = {name: value if isinstance(value, str) else render.number(value) for name, value in measured.items()}
    render.pairs(texts, "  ")
