"""How well what is cheap ranks trials: rungs of a bracket, stored scores of proxies and surrogates, and searched values
(shared weights, tables, short trainings) against trainings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa

from nas_core.errors import NotFoundError
from nas_core.public import public
from nas_core.records import RETRAIN, TRIAL
from nas_core.strategy import State
from reports import scores
from reports.figure import Axis, Bars, Figure, Panel
from reports.kind import Kind, Subject, of_study
from reports.texts import plural
from studies.analysis.queries import observations
from studies.documents import rank_correlation
from studies.store import rows
from studies.store import tables as t

LEAST = 3  # pairs that are worth a panel
SCORES = 11  # panels of scores, those of the most architectures


def _make(subject: Subject) -> Figure:
    study = subject.searched
    panels = [*_rungs(subject), *_scores(subject), *_trained(subject)]
    if not panels:
        raise NotFoundError(
            f"study '{study.name}' has nothing whose ranks could be compared: no rungs, no scores of its architectures "
            f"(nas score --of {study.name}), and no {LEAST} trained trials (nas train {study.name} --top {LEAST})"
        )
    caption = "The best are at the right by the cheap value, at the top by the measured one; ranks share ties."
    return scores.in_rows("ranks", f"{study.name}: rank correlations", caption, panels)


def _rungs(subject: Subject) -> Iterator[Panel]:
    """Kendall's tau of each smaller budget with the largest."""
    found = rank_correlation(subject.store, subject.searched)
    if found:
        names = [f"{budget:g}" for budget in found]
        bars = [Bars(list(range(len(found))), list(found.values()))]
        yield Panel(
            Axis("budget of the rung", names=names),
            Axis("Kendall's tau", limits=(-1.0, 1.0)),
            bars,
            "rungs and the largest budget",
        )


def _scores(subject: Subject) -> Iterator[Panel]:
    """Every stored score of architectures of the study against its first objective."""
    measured = {arch.key: value for arch, value in observations(subject.store, subject.searched)}
    s, r = t.scores.c, t.runs.c
    own = sa.select(r.architecture).where(r.study == subject.searched.id, t.is_kind(r, TRIAL))
    statement = sa.select(s.context, s.predictor, s.architecture, s.value, s.number).where(s.architecture.in_(own))
    found: dict[tuple[int, str], dict[str, float]] = {}
    for row in subject.store.read(statement.order_by(s.context, s.predictor, s.architecture)):
        if row.architecture in measured:
            found.setdefault((row.context, row.predictor), {})[row.architecture] = rows.number(row)
    kept = {key: values for key, values in found.items() if len(values) >= LEAST}
    names = [name for _, name in kept]
    for (context, name), values in sorted(kept.items(), key=lambda one: -len(one[1]))[:SCORES]:
        title = f"{public(name)}" + (f" (context {context})" if names.count(name) > 1 else "")
        yield _panel(title, values, measured, subject.view.objectives[0].metric)


def _trained(subject: Subject) -> Iterator[Panel]:
    """The first objective as the search had it against its mean over a trial's complete trainings."""
    objective = subject.view.objectives[0]
    parent, child, m = t.runs.alias(), t.runs.c, t.metrics.c
    statement = (
        sa.select(parent.c.number, parent.c.objective, child.id, m.value)
        .select_from(sa.join(t.runs, parent, child.parent == parent.c.id).join(t.metrics, m.run == child.id))
        .where(child.study == subject.searched.id, t.is_kind(child, RETRAIN), child.state == State.COMPLETE)
        .where(parent.c.kind == TRIAL, parent.c.objective.isnot(None), m.name == objective.metric, m.value.isnot(None))
        .order_by(child.id, m.step)
    )
    searched: dict[str, float] = {}
    trained: dict[str, dict[int, float]] = {}
    for number, value, run, result in subject.store.read(statement):
        name = f"{subject.searched.name}:{number}"
        searched[name] = value
        trained.setdefault(name, {})[run] = objective.orient(result)  # the last step stays
    if len(searched) >= LEAST:
        means = {name: statistics.fmean(values.values()) for name, values in trained.items()}
        yield _panel("search and training", searched, means, f"{objective.metric} as trained")


def _panel(title: str, cheap: Mapping[str, float], measured: Mapping[str, float], metric: str) -> Panel:
    from scipy import stats

    names: Sequence[str] = list(cheap)
    x, y = [cheap[name] for name in names], [measured[name] for name in names]
    rho = float(stats.spearmanr(x, y).statistic) if len(set(x)) > 1 and len(set(y)) > 1 else math.nan
    return scores.panel(
        f"{title}: Spearman {scores.two_digits(rho)}, {plural(len(names), 'pair')}", x, y, names, f"rank by {metric}"
    )


KIND = Kind("rank correlations of rungs, scores and searched values with what was measured", of_study, _make)
