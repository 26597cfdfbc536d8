"""How good the trained and the compressed networks of a study are, at what cost."""

from __future__ import annotations

from itertools import combinations

from nas_core.errors import NotFoundError
from nas_core.pareto import undominated
from nas_core.records import COMPRESS
from reports.figure import BLACK, VERMILION, Axis, Figure, Line, Mark, Panel, Points, series
from reports.kind import Kind, Subject, of_study
from reports.texts import plural
from studies.address import address_of
from studies.analysis import compressed


def _make(subject: Subject) -> Figure:
    study = subject.searched
    axes = compressed.axes(study)
    networks = compressed.networks(subject.store, study, axes)
    if not networks:
        names = ", ".join(axis.metric for axis in axes)
        raise NotFoundError(
            f"study '{study.name}' has no trained network with {names}; run 'nas train {study.name}' first"
        )
    groups: dict[str, list[compressed.Network]] = {}
    for network in networks:
        method = (network.run.recipe or {}).get("method", "") if network.run.kind == COMPRESS else "trained"
        groups.setdefault(str(method), []).append(network)
    best = [
        network for network, kept in zip(networks, undominated([one.values for one in networks]), strict=True) if kept
    ]
    panels = []
    for pair in combinations(range(len(axes)), 2):
        good, cost = pair
        marks: list[Mark] = []
        if len(axes) == 2:
            line = sorted((axes[cost].orient(one.values[cost]), axes[good].orient(one.values[good])) for one in best)
            marks.append(Line([x for x, _ in line], [y for _, y in line], "", VERMILION, width=1.0, dashed=True))
        for place, (method, members) in enumerate(groups.items()):
            x = [axes[cost].orient(one.values[cost]) for one in members]
            y = [axes[good].orient(one.values[good]) for one in members]
            texts = [address_of(study, one.trial, one.run) for one in members]
            color = BLACK if method == "trained" else series(place)
            marks.append(Points(x, y, texts, method, color, "square" if method == "trained" else "circle", 5.5))
        panels.append(Panel(Axis(axes[cost].metric), Axis(axes[good].metric), marks))
    across = min(2, len(panels))
    return Figure(
        kind="compressed",
        title=f"{study.name}: trained and compressed networks",
        caption=f"All {plural(len(networks), 'network')} of the study's own data drawn, {len(best)} on the front.",
        panels=panels,
        columns=across,
        size=(7.0 if across == 1 else 11.0, 4.6 * ((len(panels) + 1) // across)),
    )


def _why_not(subject: Subject) -> str | None:
    if (reason := of_study(subject)) is not None or subject.study is None:
        return reason
    return None if compressed.any_trained(subject.store, subject.study) else "has no trained or compressed network"


KIND = Kind("accuracy against cost of trained and compressed networks", _why_not, _make)
