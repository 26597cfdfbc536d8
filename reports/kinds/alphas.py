"""The weights of the operations of a one-shot search's supernet over the epochs, group by group."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nas_core.errors import NotFoundError
from nas_core.records import Epoch
from reports.figure import BLACK, Axis, Figure, Line, Mark, Panel, Points, series
from reports.kind import Kind, Subject, of_study
from reports.texts import plural
from reports.trials import drawn
from studies.analysis.operations import operations_of
from studies.store import supernets

ACROSS = 4  # panels in a row
GROUPS = 40  # that are drawn
EPOCHS = 400  # of a line


def _why_not(subject: Subject) -> str | None:
    if (reason := of_study(subject)) is not None or subject.study is None:
        return reason
    return (
        None
        if subject.study.spec.supernet is not None
        else f"has no supernet (strategy '{subject.study.spec.strategy}')"
    )


def _make(subject: Subject) -> Figure:
    study = subject.searched
    epochs = [epoch for epoch in supernets.epochs(subject.store, study) if epoch.strengths]
    if not epochs:
        raise NotFoundError(
            f"study '{study.name}' has no epoch with weights of operations yet; there is nothing to draw"
        )
    shown = _sampled(epochs)
    options = operations_of(subject.view, epochs)
    groups = list(options)[:GROUPS]
    numbers = [float(epoch.number) for epoch in shown]
    seen: set[tuple[str, ...]] = set()
    panels = []
    for group in groups:
        marks = []
        for place, name in enumerate(options[group]):
            weights = [_weight(epoch, group, place) for epoch in shown]
            marks.append(Line(numbers, weights, "" if options[group] in seen else name, series(place)))
        seen.add(options[group])
        panels.append(Panel(Axis("epoch", whole=True), Axis("weight", limits=(0.0, 1.0)), marks, group))
    changed = [float(now.number) for now, before in zip(epochs[1:], epochs, strict=False) if now.arch != before.arch]
    entropy = [_entropy(epoch, groups) for epoch in shown]
    marks_entropy: list[Mark] = [Line(numbers, entropy, "", BLACK)]
    known = dict(zip(numbers, entropy, strict=True))
    at = [number for number in changed if number in known]
    if at:
        marks_entropy.append(Points(at, [known[number] for number in at], name="derives another", color=series(1)))
    panels.append(Panel(Axis("epoch", whole=True), Axis("entropy", limits=(0.0, 1.05)), marks_entropy, "mean entropy"))
    across = min(ACROSS, len(panels))
    some = (
        f"{len(groups)} of {plural(len(options), 'group')}"
        if len(groups) < len(options)
        else plural(len(groups), "group")
    )
    return Figure(
        kind="alphas",
        title=f"{study.name}: weights of operations",
        caption=f"{some} of the supernet, {drawn(len(shown), len(epochs), 'epochs')}. Entropy is 1 for equal weights.",
        panels=panels,
        columns=across,
        size=(3.4 * across + 0.6, 2.5 * math.ceil(len(panels) / across) + 0.8),
    )


def _sampled(epochs: Sequence[Epoch]) -> list[Epoch]:
    """At most `EPOCHS` of them, evenly, with the first and the last."""
    if len(epochs) <= EPOCHS:
        return list(epochs)
    return [epochs[round(place * (len(epochs) - 1) / (EPOCHS - 1))] for place in range(EPOCHS)]


def _weight(epoch: Epoch, group: str, place: int) -> float:
    weights = epoch.strengths.get(group, ())
    return weights[place] if place < len(weights) else math.nan


def _entropy(epoch: Epoch, groups: Sequence[str]) -> float:
    """Mean over the groups of the entropy of their weights, over its largest value."""
    found = []
    for group in groups:
        weights = [weight for weight in epoch.strengths.get(group, ()) if weight > 0]
        total, count = sum(weights), len(epoch.strengths.get(group, ()))
        if total > 0 and count > 1:
            found.append(-sum(weight / total * math.log(weight / total) for weight in weights) / math.log(count))
    return sum(found) / len(found) if found else math.nan


KIND = Kind("the weights of a supernet's operations over the epochs", _why_not, _make)
