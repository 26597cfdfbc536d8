"""Studies and trials as pages of text. Values are shown as their metrics have them.

Objectives are stored so that higher is better; what is shown is turned back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from nas_cli import costs_view, experts_view, render
from nas_cli.draw import draw
from nas_core.architecture import Architecture
from nas_core.errors import UsageError, unknown
from nas_core.evaluation import Objective
from nas_core.records import BASELINE, COMPRESS, RETRAIN, Run
from reports import metrics
from reports.facts import study_facts
from reports.metrics import MICRO_BATCH
from reports.texts import settings_text
from studies.address import WORDS, address_of
from studies.documents import View, hidden_units, hypervolume_of, loads_of, name_of
from studies.setup.supernets import caution
from studies.store.store import Store

if TYPE_CHECKING:
    from studies.analysis.queries import Rejection

T = TypeVar("T")

LAST = 5  # epochs of a curve that are shown


def reference_point(text: str, objectives: Sequence[Objective]) -> dict[str, float]:
    """`val_accuracy=0.85,latency_ms=50`: a value for every objective, as its metric is reported. Raises UsageError."""
    names = [objective.metric for objective in objectives]
    point: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not name or not math.isfinite(number):
            example = ",".join(f"{metric}=NUMBER" for metric in names)
            raise UsageError(f"reference '{text}': '{part}' gives no number; write {example}")
        if name not in names:
            raise unknown("objective of the study", name, names)
        if name in point:
            raise UsageError(f"reference '{text}' gives {name} twice; give every objective once")
        point[name] = number
    missing = [name for name in names if name not in point]
    if missing:
        raise UsageError(f"reference '{text}' gives no {', '.join(missing)}; give every objective of the study a value")
    return point


# -- pages ----------------------------------------------------------------------------------------------------


def study_head(
    view: View, states: Mapping[str, int], correlation: Mapping[float, float], rejected: Sequence[Rejection]
) -> None:
    """The configuration of a study, and where it stands."""
    render.pairs(study_facts(view, states, correlation, rejected))


def study_best(view: View, store: Store, best: Run | None, trouble: str, drawn: Architecture | None = None) -> None:
    """The best trial of a study, or why there is none. `drawn`: an architecture that the page shows already."""
    render.emit("")
    if best is None:
        render.emit(render.clean(trouble))
    else:
        best_page(view, store, best, best.arch == drawn)


def best_page(view: View, store: Store, run: Run, shown: bool = False, at: str = "") -> None:
    """The address, metrics and architecture of the best trial, `at` one of several objectives. `shown`: the page has
    drawn the latter already."""
    head = f"best {at}" if at else "best"
    render.emit(f"{head}: {view.address(run)}{' (the architecture derived above)' if shown else ''}")
    _metrics(view, run)
    experts_view.warnings(run.metrics, loads_of(view, store, run))
    note = caution(view.study.spec)
    if note is not None:
        render.emit(f"  note: {note}")
    if not shown:
        architecture_page(view, run.arch)


def volume_page(view: View, runs: Sequence[Run], reference: Mapping[str, float]) -> None:
    """The hypervolume of a front, and the point above which it was taken."""
    above = ", ".join(f"{name} {render.number(value)}" for name, value in reference.items())
    render.emit("", f"hypervolume: {render.number(hypervolume_of(view, runs, reference))} (reference: {above})")


def trial_page(view: View, store: Store, run: Run) -> None:
    """A trial: drawing, values, timing, curve, retrainings and files."""
    verdict = run.verdict
    render.pairs(
        {
            "trial": view.address(run),
            "name": name_of(run) if run.kind == BASELINE else None,
            "state": str(run.state),
            "reason": verdict.reason,
            "values": ", ".join(f"{name} {render.number(value)}" for name, value in view.values(run).items()),
            "violations": ", ".join(
                f"{text}: {'kept' if violation <= 0 else f'violated by {violation:.1%}'}"
                for text, violation in zip(view.study.spec.constraints, verdict.violations, strict=False)
            ),
            "same as": None if run.reuses is None else f"{view.study.name}:{run.reuses}",
            "budget": render.number(run.proposal.budget),
            "continues": None if run.proposal.continues is None else f"{view.study.name}:{run.proposal.continues}",
            "begins with": None if run.proposal.transfer is None else f"{view.study.name}:{run.proposal.transfer}",
            "recipe": settings_text(view.recipe(run.arch)),
            "note": settings_text(run.note),
            "key": run.arch.key,
            "attempts": render.number(run.attempt),
            "asked after": None if run.asked_after is None else f"{run.asked_after:,} outcomes",
            "started": render.moment(run.started),
            "ended": render.moment(run.ended),
            "seconds": render.number(verdict.seconds),
        }
    )
    traceback_page(verdict.traceback)
    architecture_page(view, run.arch)
    units = hidden_units(view, run)
    if units:
        render.emit("", *(f"hidden units per {what}: {number:,}" for what, number in units.items()))
    metrics_page(view, run)
    experts_view.page(run.metrics, loads_of(view, store, run))
    costs_view.search_page(view, run)
    curve_page(store, run)
    below = {kind: store.below(run, kind) for kind in WORDS}
    for kind, heading in ((RETRAIN, "retrainings"), (COMPRESS, "compressions")):
        _runs(view, run, below[kind], heading)
    files = [(file, who) for who in (run, *chain(*below.values())) for file in store.artifacts(who)]
    if files:
        render.emit("", "files")
        render.pairs({str(store.files / file.path): file.kind for file, _ in files}, "  ")


def traceback_page(text: str | None) -> None:
    """The traceback of a failure, where the user's own code was at work."""
    if text:
        render.emit("", *(f"  {render.clean(line)}" for line in text.splitlines()))


def architecture_page(view: View, arch: Architecture) -> None:
    """The notation of an architecture, its drawing, and its choices where the drawing does not name them."""
    graph, trouble = view.graph(arch)
    render.emit("", "architecture")
    notation = view.notation(arch)
    if notation:
        render.emit(f"  {render.clean(notation)}")
    if graph is None:
        render.emit(f"  (not drawn: {render.clean(trouble)})")
    else:
        render.emit("", *(f"  {line}" for line in draw(graph)))
    choices = {name: str(value) for name, value in arch.values.items()}
    if graph is None or not {f"{name}={value}" for name, value in choices.items()} <= set(graph.nodes):
        render.emit("", "choices")
        render.pairs(choices, "  ")


def metrics_page(view: View, run: Run) -> None:
    """The metrics of a run under a heading, where it has any."""
    if run.metrics:
        render.emit("", "metrics")
        _metrics(view, run)


def _metrics(view: View, run: Run) -> None:
    """The metrics of a run, objectives first."""
    first = [objective.metric for objective in view.objectives]
    order = metrics.shown(run.metrics, metrics.batch_size(view.study.spec), first)
    render.pairs({name: render.number(run.metrics[name]) for name in order}, "  ")


def curve_page(store: Store, run: Run) -> None:
    curve = store.curve(run)
    if len(curve) < 2:
        return
    shown = curve[-LAST:]
    names = [name for name in dict.fromkeys(name for report in shown for name in report.metrics) if name != MICRO_BATCH]
    render.emit("", f"curve (the last {len(shown)} of {len(curve)} steps)")
    rows = [[report.step, *(report.metrics.get(name) for name in names)] for report in shown]
    render.table(["step", *names], rows, right=["step", *names])


def _runs(view: View, run: Run, children: Sequence[Run], heading: str) -> None:
    """The runs of a kind that belong to a trial, under a heading."""
    if not children:
        return
    names = list(
        dict.fromkeys(
            name
            for child in children
            for name in metrics.shown(child.metrics, metrics.batch_size_of(child))
            if not name.startswith("base_")
        )
    )
    methods = [(child.recipe or {}).get("method") for child in children]
    heads = ["run", *(["method"] if any(methods) else []), "recipe", "state", *names, "seconds"]
    rows = [
        [
            address_of(view.study, run, child),
            *([method or ""] if any(methods) else []),
            child.recipe_name or "",
            str(child.state),
            *(child.metrics.get(name) for name in names),
            child.verdict.seconds,
        ]
        for child, method in zip(children, methods, strict=True)
    ]
    render.emit("", heading)
    render.table(heads, rows, right=[*names, "seconds"])
    for child in children:
        if child.verdict.reason:
            render.emit("", f"{address_of(view.study, run, child)}: {render.clean(child.verdict.reason)}")
            traceback_page(child.verdict.traceback)
