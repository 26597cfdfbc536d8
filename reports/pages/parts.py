"""What pages of studies and of their runs have in common."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import sqlalchemy as sa

from nas_core.errors import InfeasibleError, NotFoundError
from nas_core.public import public
from nas_core.records import BASELINE, TRIAL, Run
from reports import make, metrics
from reports.kind import Subject
from reports.pages.blocks import Block, Facts, Folded, Picture, Table, Text
from reports.texts import Cell, duration, number, settings_text
from studies.address import WORDS, address_of
from studies.documents import View
from studies.records import Study, StudySpec
from studies.store import tables as t
from studies.store.store import Store

NETWORKS = 40  # that are listed
CHOICES = 24  # that are not folded away


def evaluated_by(spec: StudySpec) -> str:
    """`trained on digits`, in words that end a sentence."""
    facts, kind = spec.evaluator.facts, spec.evaluator.kind
    data = public(facts.data) or "no data"
    if facts.looks_up:
        return f"looked up in a table of results on {data}"
    if facts.told:
        return "evaluated elsewhere and told"
    if facts.supernet is not None:
        return f"evaluated with the shared weights of {facts.supernet.study} on {data}"
    return f"trained on {data}" if facts.trains else f"evaluated by {public(kind)}"


def values_of(view: View, run: Run) -> Mapping[str, str]:
    """The metrics of a run, objectives first."""
    values = {**run.metrics, **view.values(run)}
    order = metrics.shown(values, metrics.batch_size(view.study.spec), [one.metric for one in view.objectives])
    return {name: number(values[name]) for name in order}


def architecture(subject: Subject, view: View, run: Run) -> Iterator[Block]:
    """Notation, drawing and choices."""
    notation = view.notation(run.arch)
    yield Facts({"of": view.address(run), "notation": notation or "", "key": run.arch.key})
    alone = Subject(subject.store, view.address(run), subject.study, run, run)
    try:
        yield Picture(make.figures(alone, ["architecture"])[0])
    except (NotFoundError, InfeasibleError) as error:
        yield Text(str(error))
    choices = Facts({name: str(value) for name, value in run.arch.values.items()})
    if len(run.arch.values) > CHOICES:
        yield Folded(f"Its {len(run.arch.values)} choices", [choices])
    else:
        yield choices


def networks(store: Store, view: View) -> list[Block]:
    """What trainings and compressions of the study's trials and baselines came to, the newest first."""
    r, study = t.runs.c, view.study
    kinds = sa.or_(*(t.is_kind(r, kind) for kind in WORDS))
    found = store.read(sa.select(r.id).where(r.study == study.id, kinds))
    if not found:
        return []
    subjects = [*store.runs(study, BASELINE), *store.some_trials(study, _numbers(store, study))]
    pairs = [(subject, run) for subject in subjects for kind in WORDS for run in store.below(subject, kind)]
    pairs = sorted(pairs, key=lambda pair: -pair[1].id)[:NETWORKS]
    names = list(
        dict.fromkeys(
            name
            for _, run in pairs
            for name in metrics.shown(run.metrics, metrics.batch_size_of(run))
            if name.startswith(("val_", "test_", "params", "macs", "density"))
        )
    )
    rows: list[list[Cell]] = [
        [
            address_of(study, subject, run),
            str((run.recipe or {}).get("method") or run.recipe_name or ""),
            str(run.state),
            *(run.metrics.get(name) for name in names),
            duration(run.verdict.seconds),
        ]
        for subject, run in pairs
    ]
    more = [f"the newest {NETWORKS} of {len(found):,}"] if len(found) > NETWORKS else []
    return [Table(["network", "by", "state", *names, "time"], rows, [*names, "time"], notes=more)]


def _numbers(store: Store, study: Study) -> list[int]:
    """Of the trials that have been trained or compressed."""
    r = t.runs.c
    parents = sa.select(r.parent).where(r.study == study.id, r.parent.isnot(None))
    statement = sa.select(r.number).where(r.study == study.id, t.is_kind(r, TRIAL), r.id.in_(parents))
    return [row.number for row in store.read(statement.order_by(r.number))]


def environments(store: Store, study: Study, run: Run | None = None) -> list[Block]:
    """The machines and software of a study, or of a run, as they were recorded."""
    r, e = t.runs.c, t.environments.c
    which = r.study == study.id if run is None else r.id == run.id
    ids = sa.select(r.environment).where(which, r.environment.isnot(None)).distinct()
    found = store.read(sa.select(e.json).where(e.id.in_(ids)).order_by(e.id))
    blocks: list[Block] = []
    for row in found:
        facts = json.loads(row.json)
        packages = facts.pop("packages", {})
        entries = {name: str(value) for name, value in facts.items() if value is not None}
        blocks.append(Facts({**entries, "packages": settings_text(packages)}))
    return blocks
