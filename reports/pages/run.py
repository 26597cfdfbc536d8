"""One run of a study as a page: a trial, a baseline, a training, a compression."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nas_core.public import public
from nas_core.records import BASELINE, COMPRESS, RETRAIN, Run
from reports import make
from reports.facts import remarks
from reports.kind import Subject
from reports.pages.blocks import Block, Code, Facts, Page, Picture, Section, Table, Text, Tile, Tiles
from reports.pages.parts import architecture, environments, evaluated_by, values_of
from reports.texts import Cell, Rounded, duration, moment, number, settings_text
from studies.address import WORDS, address_of
from studies.analysis.trained import parent_of
from studies.documents import loads_of, name_of
from studies.jobs.commands import command
from studies.jobs.stored import parts_of, seed_of, settings_of

NAMES = {RETRAIN: "training", COMPRESS: "compression", BASELINE: "baseline"}
SIZES = ("params", "macs", "latency_ms", "density")
BEFORE = "base_"  # how metrics of the network begin that a compression began with


def page(subject: Subject) -> Page:
    """The page of a run, which `subject` names."""
    run, trial, view = subject.run, subject.trial, subject.view
    assert run is not None
    assert trial is not None
    kind = NAMES.get(run.kind, "trial")
    pictures, missing = make.every(subject, without=("architecture",))
    figures: list[Block] = [Picture(figure) for figure in pictures.values()]
    figures += [Text(reason) for reason in missing]
    sections = [
        Section("result", "Result", list(_result(subject, run, trial))),
        Section("figures", "Figures", figures),
        Section("parts", "What is left of each part", list(_parts(subject, run))),
        Section("architecture", "Architecture", list(architecture(subject, view, trial))),
        Section("how", "How it was made", list(_how(subject, run, trial))),
        Section("environment", "Environment", environments(subject.store, subject.searched, run)),
        Section("repeat", "Repeat it", [Code("\n".join(_commands(subject, run, trial)), "Commands")]),
    ]
    lead = f"A {kind} of study {subject.searched.name}, {evaluated_by(subject.searched.spec)}."
    if run.kind in WORDS:
        lead = f"A {kind} of {view.address(trial)}."
    return Page(kind, subject.address, lead, [one for one in sections if one.blocks], _tiles(subject, run))


def _tiles(subject: Subject, run: Run) -> Tiles:
    tiles = [Tile(name, number(value)) for name, value in subject.view.values(run).items()]
    if not tiles:
        first = [one.metric for one in subject.view.objectives if one.metric in run.metrics]
        tests = [name for name in run.metrics if name.startswith("test_")][:2]
        tiles = [Tile(name, number(run.metrics[name])) for name in dict.fromkeys([*first, *tests])]
    shown = {tile.name for tile in tiles}
    for name in ("params", "macs"):
        if name in run.metrics and name not in shown:
            before = run.metrics.get(f"{BEFORE}{name}")
            beside = "" if before is None else f"of {number(before)}"
            tiles.append(Tile(name, number(run.metrics[name]), beside))
    tiles.append(Tile("state", str(run.state), duration(run.verdict.seconds)))
    return Tiles(tiles)


def _result(subject: Subject, run: Run, trial: Run) -> Iterator[Block]:
    view = subject.view
    if run.verdict.reason:
        yield Text(run.verdict.reason, "careful")
    if run.verdict.traceback:
        yield Code(run.verdict.traceback)
    before = {name.removeprefix(BEFORE): value for name, value in run.metrics.items() if name.startswith(BEFORE)}
    if before:
        rows: list[list[Cell]] = []
        for name, value in before.items():
            now = run.metrics.get(name, math.nan)
            share = Rounded(now / value, f"{now / value:.1%}") if name in SIZES and value else None
            rows.append([name, value, now, now - value, share])
        yield Table(["metric", "before", "now", "change", "share"], rows, ["before", "now", "change", "share"])
    yield Facts({name: text for name, text in values_of(view, run).items() if not name.startswith(BEFORE)})
    for text, violation in zip(subject.searched.spec.constraints, run.verdict.violations, strict=False):
        kept = violation <= 0
        says = "kept" if kept else f"violated by {violation:.1%}"
        yield Text(f"{text}: {says}.", "good" if kept else "careful")
    for remark in remarks(run.metrics, loads_of(view, subject.store, run)):
        yield Text(f"{remark[0].upper()}{remark[1:]}.", "careful")
    below = [(kind, one) for kind in WORDS for one in subject.store.below(run, kind)]
    if below:
        names = [one.metric for one in view.objectives]
        lines: list[list[Cell]] = [
            [
                address_of(subject.searched, trial, one),
                NAMES[kind],
                str(one.state),
                *(one.metrics.get(name) for name in names),
            ]
            for kind, one in below
        ]
        yield Table(["run", "kind", "state", *names], lines, names, "What was made of it")


def _parts(subject: Subject, run: Run) -> Iterator[Block]:
    """What a compression has done to each part of the network, round by round."""
    for count, done in enumerate(parts_of(subject.store, run)):
        parts: Mapping[str, Mapping[str, Any]] = done["report"]
        columns = list(
            dict.fromkeys(
                key for part in parts.values() for key, one in part.items() if isinstance(one, int | float | str)
            )
        )
        if columns:
            rows: list[list[Cell]] = [[name, *map(part.get, columns)] for name, part in parts.items()]
            yield Table(["part", *columns], rows, columns, f"Round {count}", list(done["notes"]))


def _how(subject: Subject, run: Run, trial: Run) -> Iterator[Block]:
    settings: Mapping[str, Any] = public(dict(run.recipe or {}))
    of = parent_of(subject.store, trial, run) if run.kind in WORDS else None
    if run.kind in WORDS:
        yield Facts(
            {
                "of": "" if of is None else address_of(subject.searched, trial, of),
                "method": str(settings.get("method") or ""),
                "method settings": settings_text(settings.get("config") or {}),
                "targets": ", ".join(settings.get("targets", ())),
                "ignored": ", ".join(settings.get("ignore", ())),
                "recipe": str(settings.get("recipe_name") or ""),
                "settings": settings_text(settings.get("recipe") or {}),
                "size": settings_text(settings.get("size") or {}),
                "data": str(settings.get("data") or ""),
                "split hash": str(settings.get("split_hash") or ""),
                "seed": str(seed_of(subject.searched, trial, run.kind, run.repeat)),
                "device": str(settings.get("device") or ""),
                "started": moment(run.started),
                "ended": moment(run.ended),
            }
        )
    else:
        yield Facts(
            {
                "name": name_of(run) if run.kind == BASELINE else "",
                "strategy": public(subject.searched.spec.strategy),
                "budget": number(run.proposal.budget),
                "note": settings_text(dict(run.note)),
                "recipe": settings_text(dict(subject.view.recipe(run.arch))),
                "asked after": "" if run.asked_after is None else f"{run.asked_after:,} outcomes",
                "same as": "" if run.reuses is None else f"{subject.searched.name}:{run.reuses}",
                "attempts": number(run.attempt),
                "started": moment(run.started),
                "ended": moment(run.ended),
            }
        )
    files = subject.store.artifacts(run)
    if files:
        rows: list[list[Cell]] = [[one.kind, one.path.rpartition("/")[2], one.sha256] for one in files]
        yield Table(["file", "name", "SHA-256"], rows, title="Files")


def _commands(subject: Subject, run: Run, trial: Run) -> Sequence[str]:
    lines = []
    if run.kind in WORDS:
        of = address_of(subject.searched, trial, parent_of(subject.store, trial, run))
        lines.append(shlex.join(public(command(run.kind, of, settings_of(run), run.repeat + 1))))
    return [*lines, f"nas show {subject.address}", f"nas report {subject.address}"]
