"""Questions to the store that the command line asks."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from nas_core.architecture import Architecture
from nas_core.config import size_text
from nas_core.errors import InfeasibleError, NotFoundError
from nas_core.failures import WORKER_DIED, word
from nas_core.pareto import dominates
from nas_core.records import BASELINE, TRIAL, Run
from nas_core.strategy import State
from studies.address import Address, parse, parse_trial
from studies.analysis.summary import COUNTS, STUDIES, SUPERNETS, Summary, summarise
from studies.records import Study, final_size_of
from studies.store import supernets
from studies.store import tables as t
from studies.store.store import Store

# What is known of a candidate in full: one whose function had been evaluated before may still cost less.
MEASURED = (State.COMPLETE, State.REUSED)


def summaries(store: Store) -> list[Summary]:
    """All studies in the order of their creation."""
    return summarise(*(store.read(sa.text(query)) for query in (STUDIES, COUNTS, SUPERNETS)))


def state_counts(store: Store, study: Study) -> dict[str, int]:
    """How many trials are in each state."""
    r = t.runs.c
    rows = store.read(
        sa.select(r.state, sa.func.count()).where(r.study == study.id, t.is_kind(r, TRIAL)).group_by(r.state)
    )
    return {row[0]: row[1] for row in rows}


def evaluated(store: Store, study: Study) -> int:
    """How many trials count as evaluations."""
    counts = state_counts(store, study)
    return sum(counts.get(state, 0) for state in (State.COMPLETE, State.PRUNED, State.FAILED))


def died_in(store: Store, study: Study) -> int | None:
    """The number of a trial that has taken a process down, or seems to: it was begun, and nothing is known of its end.
    None: there is none."""
    r = t.runs.c
    known = sa.and_(r.state == State.FAILED, r.reason.startswith(f"{WORKER_DIED}:"))
    died = sa.and_(r.study == study.id, t.is_kind(r, TRIAL), (r.tries > 0) | known)
    found = store.read(sa.select(r.number).where(died).order_by(r.number).limit(1))
    return found[0][0] if found else None


@dataclass(frozen=True, slots=True)
class Cause:
    """Why trials failed: the reason of the first of them, and how many failed for the same but for numbers."""

    reason: str
    count: int
    first: int


def causes(store: Store, study: Study) -> list[Cause]:
    """Why trials of a study failed, the most frequent first."""
    r = t.runs.c
    failed = sa.and_(r.study == study.id, t.is_kind(r, TRIAL), r.state == State.FAILED)
    found: dict[str, Cause] = {}
    for row in store.read(sa.select(r.number, r.reason).where(failed).order_by(r.number)):
        reason = row.reason or "unknown"
        key = re.sub(r"[0-9]+", "0", reason)
        known = found.get(key, Cause(reason, 0, row.number))
        found[key] = replace(known, count=known.count + 1)
    return sorted(found.values(), key=lambda cause: -cause.count)


@dataclass(frozen=True, slots=True)
class Rejection:
    """How many trials were rejected for a reason, which `share` of all trials they are, and the seconds that were spent
    on them."""

    reason: str
    count: int
    share: float
    seconds: float

    def __str__(self) -> str:
        """`blind 289 (45.1%, 12.3 s)`."""
        spent = f", {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.reason} {self.count:,} ({self.share:.1%}{spent})"


def rejections(store: Store, study: Study) -> list[Rejection]:
    """By the word of their reason, the most frequent first."""
    r = t.runs.c
    rejected = sa.and_(r.study == study.id, t.is_kind(r, TRIAL), r.state == State.REJECTED)
    columns = r.reason, sa.func.count(), sa.func.coalesce(sa.func.sum(r.seconds), 0.0)
    counts: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for reason, count, spent in store.read(sa.select(*columns).where(rejected).group_by(r.reason)):
        counts[word(reason)] = counts.get(word(reason), 0) + count
        seconds[word(reason)] = seconds.get(word(reason), 0.0) + spent
    total = sum(state_counts(store, study).values()) if counts else 0
    found = [Rejection(name, count, count / total, seconds[name]) for name, count in counts.items()]
    return sorted(found, key=lambda one: (-one.count, one.reason))


def causes_text(study: Study, found: Sequence[Cause], limit: int = 3) -> str:
    """`2 failed: exception: KeyError: 'x' (2 times; nas show STUDY:0)`; empty where nothing failed."""
    shown = [
        f"{cause.reason} ({f'{cause.count:,} times; ' if cause.count > 1 else ''}nas show {study.name}:{cause.first})"
        for cause in found[:limit]
    ]
    rest = [f"{len(found) - limit} more reasons"] if len(found) > limit else []
    return f"{sum(cause.count for cause in found):,} failed: " + "; ".join(shown + rest) if found else ""


def _causes(store: Store, study: Study) -> str:
    text = causes_text(study, causes(store, study))
    rejected = state_counts(store, study).get(State.REJECTED, 0)
    return "".join(f"; {part}" for part in (text, f"{rejected:,} rejected" if rejected else "") if part)


def best_trial(store: Store, study: Study) -> Run:
    """The feasible trial with the best first objective among those with the largest budget; the earliest of equals.

    Raises NotFoundError when nothing is complete, InfeasibleError when nothing is feasible.
    """
    r = t.runs.c
    complete = sa.and_(r.study == study.id, t.is_kind(r, TRIAL), r.state.in_(MEASURED), r.ended.isnot(None))
    found = store.read(
        sa.select(r.number)
        .where(complete, r.feasible.is_(True))
        .order_by(r.budget.is_(None).desc(), r.budget.desc(), r.objective.desc(), r.number)
        .limit(1)
    )
    if found:
        return store.trial(study, found[0][0])
    counts = state_counts(store, study)
    total = sum(counts.values())
    if not counts and study.spec.supernet is not None:
        raise NotFoundError(before_trials(store, study))
    shares = rejections(store, study)
    screened = [one for one in shares if one.reason != "constraint"]
    if screened and not counts.get(State.COMPLETE) and not counts.get(State.FAILED):
        raise InfeasibleError(
            f"none of the {total:,} trials of study '{study.name}' was evaluated in full; rejected: "
            f"{', '.join(map(str, shares))}; loosen '{screened[0].reason}' in a new study"
        )
    if counts.get(State.COMPLETE) or (counts.get(State.REJECTED) and not counts.get(State.FAILED)):
        raise InfeasibleError(
            f"none of the {total} trials of study '{study.name}' satisfies {', '.join(study.spec.constraints)}; "
            "loosen the constraint in a new study"
        )
    raise NotFoundError(f"study '{study.name}' has no complete trial yet{_causes(store, study)}")


def before_trials(store: Store, study: Study) -> str:
    """Why a one-shot study has no trial: where its supernet stands, and how to go on."""
    run = supernets.find(store, study)
    done, total = supernets.epoch_count(store, study), study.spec.strategy_config.get("epochs")
    trained = f"{done:,}" if total is None else f"{done:,} of {total:,}"
    if run is not None and run.state == State.FAILED:
        return f"study '{study.name}' has no trial: its supernet failed after epoch {trained} ({run.reason})"
    if run is None or run.result is None:
        return (
            f"study '{study.name}' has no trial yet: its supernet is still being trained, epoch {trained}; "
            f"where that was stopped: nas resume {study.name}"
        )
    if run.result:
        return f"study '{study.name}' has no trial yet, its supernet is trained; go on by: nas resume {study.name}"
    return (
        f"study '{study.name}' has no trials: its supernet is the result; search on it by: nas search "
        f"--space {shlex.quote(study.spec.space)} --size {shlex.quote(size_text(study.spec.size))} "
        f"--evaluator supernet:{study.name}"
    )


def observations(store: Store, study: Study) -> list[tuple[Architecture, float]]:
    """What was measured of each architecture with the largest budget: its first objective, oriented so that higher is
    better. In the order of the trials, without failures; whether constraints hold does not matter."""
    r = t.runs.c
    measured = sa.and_(r.study == study.id, t.is_kind(r, TRIAL), r.state.in_(MEASURED), r.objective.isnot(None))
    rows = store.read(
        sa.select(t.architectures.c.json, r.budget, r.objective)
        .join(t.architectures, r.architecture == t.architectures.c.key)
        .where(measured)
        .order_by(r.number)
    )
    full = max((math.inf if row.budget is None else row.budget for row in rows), default=math.inf)
    found: dict[Architecture, float] = {}
    for row in rows:
        if (math.inf if row.budget is None else row.budget) == full:
            found.setdefault(Architecture.from_json(row.json), row.objective)
    return list(found.items())


def subject_of(store: Store, study: Study, address: Address) -> Run:
    """The trial or the baseline of an address that names one. Raises NotFoundError."""
    if address.baseline is None:
        assert address.trial is not None
        return store.trial(study, address.trial)
    runs = store.runs(study, BASELINE)
    found = next((run for run in runs if run.number == address.baseline), None)
    if found is None:
        listing = f"it has {len(runs)}" if runs else "it has none"
        raise NotFoundError(f"study '{study.name}' has no baseline {address.baseline}; {listing}")
    return found


def addressed_trial(store: Store, address: str) -> tuple[Study, Run]:
    """The study and trial of `STUDY:N`, or the best trial of `STUDY`. Raises like `best_trial`."""
    found = parse(address)
    if found.baseline is not None and found.kind is None:
        study = store.study(found.study)
        return study, subject_of(store, study, found)
    name, number = parse_trial(address)
    study = store.study(name)
    if number is not None:
        return study, store.trial(study, number)
    only = next(store.trials(study), None)
    if only is not None and not only.arch.values and not only.finished:  # there is one architecture
        return study, store.trial(study, only.number)
    return study, best_trial(store, study)


def best_random(store: Store, study: Study) -> tuple[int, Run] | None:
    """Evaluations and best trial of a random search on the same problem in this database; None without one."""
    problem = ("space", "space_hash", "size", "evaluator", "split_hash", "objectives", "constraints")
    for name in store.study_names():
        other = store.study(name)
        same = all(getattr(other.spec, field) == getattr(study.spec, field) for field in problem)
        if study.spec.constraints:  # which are on what the final network costs
            same = same and final_size_of(other.spec) == final_size_of(study.spec)
        if not same or other.spec.strategy != "random":
            continue
        counts = state_counts(store, other)
        try:
            return counts.get(State.COMPLETE, 0) + counts.get(State.FAILED, 0), best_trial(store, other)
        except (InfeasibleError, NotFoundError):
            continue
    return None


def front_trials(store: Store, study: Study) -> list[Run]:
    """The Pareto front of the complete, feasible trials of the largest budget, best first objective first.

    Raises like `best_trial` when there is none.
    """
    best = best_trial(store, study)
    if len(study.spec.objectives) == 1:
        return [best]
    return [store.trial(study, number) for number, _ in _front_of(store, study, best)]


def best_trials(store: Store, study: Study) -> dict[str, Run]:
    """By objective the best trial: by the first `best_trial`, by every other one that of the front. Raises alike."""
    best = best_trial(store, study)
    first, *others = (text.rpartition(":")[0] for text in study.spec.objectives)
    front = _front_of(store, study, best) if others else []
    numbers = {metric: max(front, key=lambda row: row[1][place])[0] for place, metric in enumerate(others, start=1)}
    return {first: best, **{metric: store.trial(study, number) for metric, number in numbers.items()}}


def _front_of(store: Store, study: Study, best: Run) -> list[tuple[int, list[float]]]:
    """The numbers and oriented values of the front that the best trial lies on."""
    r = t.runs.c
    rows = store.read(
        sa.select(r.number, r.objectives)
        .where(r.study == study.id, t.is_kind(r, TRIAL), r.state.in_(MEASURED), r.feasible.is_(True))
        .where(r.budget.is_not_distinct_from(best.proposal.budget))
        .order_by(r.objective.desc(), r.number)
    )
    return _front(rows)


def _front(rows: Sequence[Any]) -> list[tuple[int, list[float]]]:
    """The non-dominated ones of rows (number, JSON of oriented values)."""
    kept: list[tuple[int, list[float]]] = []
    for number, text in rows:  # by falling first value: what a later row dominates has an equal first value
        values = json.loads(text)
        if any(other == values or dominates(other, values) for _, other in kept):
            continue
        kept = [(n, other) for n, other in kept if not dominates(values, other)]
        kept.append((number, values))
    return kept
