"""What a compression has left of each part of a network: units, ranks or weights that are not zero, round by round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_core.errors import NotFoundError
from nas_core.records import COMPRESS
from reports.figure import Axis, Bars, Figure, Panel, series
from reports.kind import Kind, Subject, of_runs
from reports.trials import drawn
from studies.address import address_of
from studies.jobs.stored import parts_of

PARTS = 60  # that are drawn


def _why_not(subject: Subject) -> str | None:
    if (reason := of_runs(subject)) is not None:
        return reason
    return (
        None if subject.run is not None and subject.run.kind == COMPRESS else "is no compression (STUDY:N/compress-K)"
    )


def _make(subject: Subject) -> Figure:
    run, trial = subject.run, subject.trial
    assert run is not None
    assert trial is not None
    address = address_of(subject.searched, trial, run)
    rounds = [
        {name: share for name, part in one["report"].items() if (share := _share(part)) is not None}
        for one in parts_of(subject.store, run)
    ]
    names = list(dict.fromkeys(name for one in rounds for name in one))
    if not names:
        raise NotFoundError(f"{address} says of no part how much of it is left; there is nothing to draw")
    shown, height = names[:PARTS], 0.8 / len(rounds)
    bars = []
    for number, one in enumerate(rounds):
        at = [
            (place + (number - (len(rounds) - 1) / 2) * height, one[name])
            for place, name in enumerate(shown)
            if name in one
        ]
        title = f"round {number}" if len(rounds) > 1 else ""
        bars.append(
            Bars([y for y, _ in at], [share for _, share in at], title, series(number), lying=True, width=height)
        )
    method = (run.recipe or {}).get("method", "")
    targets = ", ".join((run.recipe or {}).get("targets", ()))
    return Figure(
        kind="pruning",
        title=f"{address}: {method}",
        caption=f"What is left of {drawn(len(shown), len(names), 'parts')}: units, ranks, or weights that are not zero"
        + (f"; targets {targets}." if targets else "."),
        panels=[
            Panel(
                Axis("share that is left", limits=(0.0, 1.05)),
                Axis("", names=shown, limits=(len(shown) - 0.4, -0.6)),
                bars,
            )
        ],
        size=(8.0, max(2.5, 0.24 * len(shown) * max(1.0, len(rounds) / 2) + 1.4)),
    )


def _share(part: Mapping[str, Any]) -> float | None:
    """How much of a part is left; None where its method does not say."""
    for left, before in (("kept", "units"), ("rank", "of")):
        if part.get(before):
            return float(part[left]) / float(part[before])
    density = part.get("density")
    return None if density is None else float(density)


KIND = Kind("what a compression has left of each part of a network", _why_not, _make)
