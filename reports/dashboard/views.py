"""What each page shows, as values for its template."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa

from nas_core.errors import InfeasibleError, NotFoundError, UsageError
from nas_core.records import TRIAL
from nas_core.strategy import State
from reports import compare, make
from reports.addressed import of_study
from reports.dashboard.listing import Asked, found
from reports.figure import Figure
from reports.kind import Subject
from reports.mirrored import Mirrored
from reports.pages import bench as bench_page
from reports.pages import run as run_page
from reports.pages import study as study_page
from reports.pages.blocks import Picture, Section
from reports.texts import duration, number
from studies.address import WORDS, address_of
from studies.analysis import queries
from studies.analysis.summary import Summary, objective
from studies.bench.plan import Plan
from studies.bench.worker import finished
from studies.records import Study
from studies.store import tables as t
from studies.store.store import Store

Query = Mapping[str, str]
Values = dict[str, Any]
SIZE = 50  # studies of a page
LONG = 10_000  # trials: what reads all of them is left to reports
MOST = 12  # studies that are compared
RUNNING = 200  # runs that are listed


@dataclass(frozen=True)
class Ways:
    """Where links of blocks lead: an address of the study `name` to its page; figures are fetched by the page."""

    name: str = ""
    figures: Mapping[str, str] = field(default_factory=dict)
    """Parameters of the URLs of figures: whose they are."""

    def url(self, block: Picture) -> str:
        return figure_url(block.figure.kind, **self.figures)

    def link(self, cell: object) -> str | None:
        if not self.name or not isinstance(cell, str) or not cell.startswith((f"{self.name}:", f"{self.name}/")):
            return None
        return run_url(self.name, cell[len(self.name) :])


def study_url(name: str) -> str:
    return f"/study?{urlencode({'name': name})}"


def run_url(name: str, rest: str) -> str:
    """`rest` is what an address has after its study: `:17`, `:17/train-2`, `/baseline-1`."""
    return f"/run?{urlencode({'study': name, 'run': rest.removeprefix(':')})}"


def figure_url(kind: str, **values: str) -> str:
    return f"/figure.json?{urlencode({'kind': kind, **values})}"


# -- pages ----------------------------------------------------------------------------------------------------


def studies(store: Store, query: Query) -> Values:
    """All studies and benches, filtered by a text, sorted, by pages."""
    every = queries.summaries(store)
    text, sort = query.get("text", ""), query.get("sort", "-created")
    keys: Mapping[str, Callable[[Summary], Any]] = {
        "created": lambda one: one.created,
        "name": lambda one: one.name,
        "space": lambda one: one.space,
        "strategy": lambda one: one.strategy,
        "evaluated": lambda one: one.evaluated,
    }
    key = sort.removeprefix("-")
    if key not in keys:
        raise UsageError(f"sort key '{key}': studies are sorted by {', '.join(keys)}")
    words = text.lower().split()
    some = [
        one for one in every if all(w in f"{one.name} {one.space} {one.strategy} {one.data}".lower() for w in words)
    ]
    some = sorted(some, key=keys[key], reverse=sort.startswith("-"))
    pages = max(1, -(-len(some) // SIZE))
    page = min(max(_whole(query, "page", 1), 1), pages)
    return {
        "rows": [_summary(one) for one in some[(page - 1) * SIZE : page * SIZE]],
        "total": len(some),
        "all": len(every),
        "page": page,
        "pages": pages,
        "sort": sort,
        "text": text,
        "keys": [*keys],
        "benches": _benches(store),
    }


def _summary(one: Summary) -> Values:
    goal = objective(one.objective)
    return {
        "name": one.name,
        "url": study_url(one.name),
        "space": one.space,
        "strategy": one.strategy,
        "data": one.data,
        "evaluated": one.evaluated,
        "of": one.trials,
        "failed": one.states.get("failed", 0),
        "best": "" if one.best is None else number(goal.orient(one.best)),
        "metric": goal.metric,
        "created": one.created,
    }


def _benches(store: Store) -> list[Values]:
    found: list[Values] = []
    for name in store.bench_names():
        bench = store.bench(name)
        plan = Plan.model_validate(bench.config)
        done = sum(finished(study) for study in store.studies_of(bench))
        url = f"/bench?{urlencode({'name': name})}"
        found.append({"name": name, "url": url, "strategies": ", ".join(plan.contenders), "done": done,
                      "of": plan.seeds * len(plan.contenders), "space": plan.problem.space_name})  # fmt: skip
    return found


def study(store: Store, query: Query) -> Values:
    """A study: where it stands, its figures, its trials, and what a report says of it."""
    one = store.study(query.get("name", ""))
    subject = Subject(store, one.name, one)
    report = study_page.Report(subject)
    asked = Asked(query.get("state", ""), query.get("text", ""), query.get("sort", "-number"), _whole(query, "page", 1))
    view = subject.view
    page = found(store, one, view.objectives, asked)
    names = [goal.metric for goal in view.objectives]
    rows = [
        {
            "number": run.number,
            "address": address_of(one, run),
            "url": run_url(one.name, f":{run.number}"),
            "state": str(run.state),
            "feasible": run.verdict.feasible or run.verdict.values is None,
            "values": [number(view.values(run).get(name)) for name in names],
            "seconds": duration(run.verdict.seconds),
            "what": run.verdict.reason or view.notation(run.arch) or run.arch.key,
        }
        for run in page.runs
    ]
    quick = sum(report.states.values()) > LONG
    more = [Section("trust", "Why it can be trusted", list(report.trust(quick=quick))),
            Section("search", "What was searched", list(report.search(quick=quick))),
            Section("costs", "Costs", list(report.costs()))]  # fmt: skip
    return {
        "name": one.name,
        "lead": report.lead(),
        "tiles": report.tiles(),
        "states": dict(report.states),
        "figures": [
            {"kind": kind, "url": figure_url(kind, study=one.name), "about": make.kind(kind).about}
            for kind in make.possible(subject)
        ],
        "rows": rows,
        "names": names,
        "asked": asked,
        "found": page,
        "sections": [section for section in more if section.blocks],
        "ways": Ways(one.name),
    }


def run(store: Store, query: Query) -> Values:
    """A trial, or what was made of it."""
    subject = _run_subject(store, query)
    page = run_page.page(subject)
    name = subject.searched.name
    below = {"study": name, "run": query.get("run", "")}
    return {"page": page, "name": name, "up": study_url(name), "ways": Ways(name, below)}


def bench(store: Store, query: Query) -> Values:
    """A bench: its ranking and figures."""
    one = store.bench(query.get("name", ""))
    page = bench_page.page(Subject(store, one.name, bench=one))
    return {"page": page, "name": one.name, "up": "/", "ways": Ways("", {"bench": one.name})}


def comparison(store: Store, names: list[str]) -> Values:
    """Studies beside one another."""
    chosen = [store.study(name) for name in dict.fromkeys(names)]
    if len(chosen) > MOST:
        raise UsageError(f"{len(chosen)} studies are more than one sees apart; name at most {MOST}")
    rows = []
    for one in chosen:
        goal = objective(one.spec.objectives[0])
        counts = queries.state_counts(store, one)
        try:
            best = queries.best_trial(store, one)
            value = number(goal.orient((best.verdict.values or (0.0,))[0]))
            where, cost = f"{one.name}:{best.number}", number(best.metrics.get("params"))
        except (NotFoundError, InfeasibleError):
            value = where = cost = ""
        evaluated = sum(counts.get(state, 0) for state in compare.EVALUATED)
        rows.append({"name": one.name, "url": study_url(one.name), "strategy": one.spec.strategy, "metric": goal.metric,
                     "space": one.spec.space, "seed": str(one.spec.seed), "evaluated": f"{evaluated:,}", "best": value,
                     "where": where, "at": run_url(one.name, where.removeprefix(one.name)), "params": cost,
                     "failed": f"{counts.get(State.FAILED, 0):,}"})  # fmt: skip
    url = "/figure.json?" + urlencode([("kind", "compare"), *(("name", one.name) for one in chosen)])
    return {"rows": rows, "url": url, "every": store.study_names()}


def running(store: Store, query: Query) -> Values:
    """Runs that are being evaluated, or were when their process was killed."""
    r, s = t.runs.c, t.studies.c
    columns = s.name, r.kind, r.number, r.started, r.attempt
    statement = sa.select(*columns).join(t.studies, r.study == s.id).where(r.state == State.RUNNING, r.ended.is_(None))
    now, rows = time.time(), []
    for row in store.read(statement.order_by(r.started.desc()).limit(RUNNING)):
        trial = row.kind == TRIAL
        rows.append(
            {
                "study": row.name,
                "what": f"{WORDS.get(row.kind, row.kind)} {row.number}",
                "url": run_url(row.name, f":{row.number}") if trial else study_url(row.name),
                "since": duration(now - row.started) if row.started else "",
                "attempt": row.attempt,
            }
        )
    return {"rows": rows, "most": RUNNING}


# -- figures and changes --------------------------------------------------------------------------------------


def figure(store: Store, query: Query, names: list[str]) -> Figure | Mirrored:
    """One figure. Raises UsageError, NotFoundError or InfeasibleError where there is none."""
    kind = query.get("kind", "")
    if kind == "compare":
        return compare.figure(store, [store.study(name) for name in dict.fromkeys(names)][:MOST])
    if "bench" in query:
        subject = Subject(store, query["bench"], bench=store.bench(query["bench"]))
    elif "run" in query:
        subject = _run_subject(store, query)
        if kind == "architecture" and subject.trial is not None:
            subject = replace(subject, run=subject.trial)
    else:
        one = store.study(query.get("study", ""))
        subject = Subject(store, one.name, one)
    if kind not in make.possible(subject):
        raise UsageError(f"no figure '{kind}'; there could be: {', '.join(make.possible(subject))}")
    return make.figures(subject, [kind])[0]


def _run_subject(store: Store, query: Query) -> Subject:
    """`study=NAME&run=17/train-2`, or `run=/baseline-1`: the name is apart, for it may look like an address."""
    return of_study(store, store.study(query.get("study", "")), query.get("run", ""))


def version(store: Store, one: Study | None) -> str:
    """What changes when something is written that a page shows."""
    if one is None:
        r = t.runs.c
        newest = store.read(sa.select(sa.func.max(r.id)))[0][0]
        return f"{newest} {len(store.study_names())}"
    counts = queries.state_counts(store, one)
    newest = store.read(sa.select(sa.func.max(t.runs.c.id)).where(t.runs.c.study == one.id, t.runs.c.kind != TRIAL))
    epochs = t.epochs.join(t.runs, t.epochs.c.run == t.runs.c.id)
    grown = 0
    if one.spec.supernet is not None:
        grown = store.read(sa.select(sa.func.count()).select_from(epochs).where(t.runs.c.study == one.id))[0][0]
    return f"{sorted(counts.items())} {newest[0][0]} {grown}"


def _whole(query: Query, name: str, otherwise: int) -> int:
    """Raises UsageError for what is no whole number."""
    text = query.get(name, "")
    if not text:
        return otherwise
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UsageError(f"{name} '{text}' is no number")
    return int(text)
