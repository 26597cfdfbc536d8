"""How layers of experts divide their work: a heat map of layers and experts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nas_core.errors import NasError
from nas_core.records import BASELINE, TRIAL
from reports.figure import Axis, Cells, Figure, Panel
from reports.kind import Kind, Subject, of_runs, run_of
from studies.address import address_of
from studies.documents import loads_of


def _why_not(subject: Subject) -> str | None:
    if (reason := of_runs(subject)) is not None:
        return reason
    return None if _loads(subject) else "has no layers of experts that report loads"


def _loads(subject: Subject) -> Mapping[str, Sequence[float]]:
    try:
        run = run_of(subject)
    except NasError:  # nothing is complete yet
        return {}
    if run.kind in (TRIAL, BASELINE):
        return loads_of(subject.view, subject.store, run)
    return subject.store.loads(run)


def _make(subject: Subject) -> Figure:
    loads, run = _loads(subject), run_of(subject)
    most = max(map(len, loads.values()))
    rows = [[*shares, *[math.nan] * (most - len(shares))] for shares in loads.values()]
    dead = sum(share == 0 for shares in loads.values() for share in shares)
    address = address_of(subject.searched, subject.trial or run, run)
    return Figure(
        kind="loads",
        title=f"{address}: loads of experts",
        caption=f"The share of its layer's work that each expert did in the last epoch; {dead} did none.",
        panels=[
            Panel(
                Axis("expert", names=[str(number) for number in range(most)]),
                Axis("", names=list(loads)),
                [Cells(rows, "share", 0.0, max(max(shares) for shares in loads.values()) or 1.0)],
            )
        ],
        size=(max(6.0, 0.25 * most + 3), max(2.5, 0.3 * len(rows) + 1.6)),
    )


KIND = Kind("how layers of experts divide their work", _why_not, _make)
