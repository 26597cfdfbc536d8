"""Questions to the store that the command line asks."""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from nas_core.architecture import Architecture
from nas_core.config import size_text
from nas_core.errors import InfeasibleError, NotFoundError
from nas_core.failures import UNSOUND, WORKER_DIED, word
from nas_core.records import BASELINE, TRIAL, Run
from nas_core.strategy import FINISHED, State
from studies.address import Address, parse, parse_trial
from studies.analysis import leading
from studies.analysis.leading import MEASURED
from studies.analysis.summary import QUERIES, Summary, summarise
from studies.records import Study, final_size_of
from studies.store import supernets
from studies.store import tables as t
from studies.store.store import Store


def summaries(store: Store) -> list[Summary]:
    """All studies in the order of their creation."""
    return summarise(*(store.read(sa.text(query)) for query in QUERIES))


def state_counts(store: Store, study: Study) -> dict[str, int]:
    """How many trials are in each state."""
    r = t.runs.c
    ended = sa.and_(r.study == study.id, t.is_kind(r, TRIAL), r.ended.isnot(None))
    # Each is a range of an index, which is counted without being looked at.
    counts = Counter(
        {str(state): store.read(sa.select(sa.func.count()).where(ended, r.state == state))[0][0] for state in FINISHED}
    )
    counts.update(row.state for row in unfinished(store, study, finished=counts.total()))
    return {state: count for state, count in sorted(counts.items()) if count}


def unfinished(store: Store, study: Study, *, finished: int | None = None) -> list[Any]:
    """Number, state, budget and tries of the trials that have not ended; `finished`: how many have, where that is
    known.

    No index holds them, but they are among the last, and the largest number says how many they are at most.
    """
    r = t.runs.c
    trials = sa.and_(r.study == study.id, t.is_kind(r, TRIAL))
    ended = sa.and_(r.ended.isnot(None), r.state.in_(FINISHED))
    if finished is None:
        finished = store.read(sa.select(sa.func.count()).where(trials, ended))[0][0]
    last: int | None = store.read(sa.select(sa.func.max(r.number)).where(trials))[0][0]
    left = 0 if last is None else last + 1 - finished
    columns = sa.select(r.number, r.state, r.budget, r.tries).where(trials, sa.not_(ended))
    return list(store.read(columns.order_by(r.number.desc()).limit(left))) if left else []


def evaluated(store: Store, study: Study) -> int:
    """How many trials count as evaluations."""
    counts = state_counts(store, study)
    return sum(counts.get(state, 0) for state in (State.COMPLETE, State.PRUNED, State.FAILED))


def died_in(store: Store, study: Study) -> int | None:
    """The number of a trial that has taken a process down, or seems to: it was begun, and nothing is known of its end.
    None: there is none."""
    r = t.runs.c
    failed = sa.and_(r.study == study.id, t.is_kind(r, TRIAL), r.state == State.FAILED, r.ended.isnot(None))
    known = store.read(sa.select(r.number).where(failed, r.reason.startswith(f"{WORKER_DIED}:")))
    begun = [row for row in unfinished(store, study) if row.tries > 0]
    return min((row.number for row in [*known, *begun]), default=None)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why trials failed: the reason of the first of them, and how many failed for the same but for numbers."""

    reason: str
    count: int
    first: int


def causes(store: Store, study: Study) -> list[Cause]:
    """Why trials of a study failed, the most frequent first."""
    r = t.runs.c
    failed = sa.and_(r.study == study.id, t.is_kind(r, TRIAL), r.state == State.FAILED, r.ended.isnot(None))
    first, found = sa.func.min(r.number), dict[str, Cause]()
    for row in store.read(sa.select(r.reason, sa.func.count(), first).where(failed).group_by(r.reason).order_by(first)):
        reason = row[0] or "unknown"
        key = re.sub(r"[0-9]+", "0", reason)
        known = found.get(key, Cause(reason, 0, row[2]))
        found[key] = replace(known, count=known.count + row[1])
    return sorted(found.values(), key=lambda cause: -cause.count)


@dataclass(frozen=True, slots=True)
class Rejection:
    """How many trials were rejected for a reason, which `share` of all trials they are, and the seconds that were spent
    on them. `unsound`: the space knew, without building anything."""

    reason: str
    count: int
    share: float
    seconds: float
    unsound: bool = False

    def __str__(self) -> str:
        """`blind 289 (45.1%, 12.3 s)`."""
        spent = f", {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.reason} {self.count:,} ({self.share:.1%}{spent})"


def rejections(store: Store, study: Study, states: Mapping[str, int] | None = None) -> list[Rejection]:
    """By the word of their reason, the most frequent first; `states`: the counts of states, where they are known."""
    r = t.runs.c
    rejected = sa.and_(r.study == study.id, t.is_kind(r, TRIAL), r.state == State.REJECTED, r.ended.isnot(None))
    columns = r.reason, sa.func.count(), sa.func.coalesce(sa.func.sum(r.seconds), 0.0)
    counts: dict[tuple[str, bool], int] = {}
    seconds: dict[tuple[str, bool], float] = {}
    for reason, count, spent in store.read(sa.select(*columns).where(rejected).group_by(r.reason)):
        key = word(reason), (reason or "").startswith(UNSOUND)
        counts[key] = counts.get(key, 0) + count
        seconds[key] = seconds.get(key, 0.0) + spent
    total = sum((states or state_counts(store, study)).values()) if counts else 0
    found = [Rejection(key[0], count, count / total, seconds[key], key[1]) for key, count in counts.items()]
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
    number = leading.best_number(store, study)
    if number is not None:
        return store.trial(study, number)
    counts = state_counts(store, study)
    total = sum(counts.values())
    if not counts and study.spec.supernet is not None:
        raise NotFoundError(before_trials(store, study))
    shares = rejections(store, study, counts)
    screened = [one for one in shares if one.reason != "constraint"]
    if screened and not counts.get(State.COMPLETE) and not counts.get(State.FAILED):
        raise InfeasibleError(
            f"none of the {total:,} trials of study '{study.name}' was evaluated in full; rejected: "
            f"{', '.join(map(str, shares))}; {_loosened(screened)}"
        )
    if counts.get(State.COMPLETE) or (counts.get(State.REJECTED) and not counts.get(State.FAILED)):
        raise InfeasibleError(
            f"none of the {total} trials of study '{study.name}' satisfies {', '.join(study.spec.constraints)}; "
            "loosen the constraint in a new study"
        )
    raise NotFoundError(f"study '{study.name}' has no complete trial yet{_causes(store, study)}")


def _loosened(screened: Sequence[Rejection]) -> str:
    """What to do where everything was rejected for these reasons."""
    by_screens = [one.reason for one in screened if not one.unsound]
    if by_screens:
        return f"loosen '{by_screens[0]}' in a new study"
    return "all were unsound, which the space says: search longer, or by a strategy that proposes sound ones (evonorm)"


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


def top_trials(store: Store, study: Study, count: int) -> list[Run]:
    """The best `count` of the feasible trials of the largest budget by the first objective, no two of one identity;
    fewer where there are not so many. Raises like `best_trial` when there is none."""
    best_trial(store, study)
    return list(store.some_trials(study, leading.top_numbers(store, study, count)))


def best_random(store: Store, study: Study) -> tuple[int, Run] | None:
    """Evaluations and best trial of a random search on the same problem in this database; None without one."""
    for other in random_searches(store, study):
        counts = state_counts(store, other)
        try:
            return counts.get(State.COMPLETE, 0) + counts.get(State.FAILED, 0), best_trial(store, other)
        except (InfeasibleError, NotFoundError):
            continue
    return None


def random_searches(store: Store, study: Study) -> Iterator[Study]:
    """The random searches on the same problem in this database; the study itself may be one of them."""
    problem = ("space", "space_hash", "size", "evaluator", "split_hash", "objectives", "constraints")
    for other in store.studies_by("random"):
        same = all(getattr(other.spec, field) == getattr(study.spec, field) for field in problem)
        if study.spec.constraints:  # which are on what the final network costs
            same = same and final_size_of(other.spec) == final_size_of(study.spec)
        if same:
            yield other


def front_trials(store: Store, study: Study) -> list[Run]:
    """The Pareto front of the complete, feasible trials of the largest budget, best first objective first.

    Raises like `best_trial` when there is none.
    """
    best = best_trial(store, study)
    if len(study.spec.objectives) == 1:
        return [best]
    return list(store.some_trials(study, leading.front_numbers(store, study)))


def best_trials(store: Store, study: Study) -> dict[str, Run]:
    """By objective the best trial: by the first `best_trial`, by every other one that of the front. Raises alike."""
    best = best_trial(store, study)
    first, *others = (text.rpartition(":")[0] for text in study.spec.objectives)
    found = store.some_trials(study, leading.leaders(store, study, len(others)) if others else [])
    return {first: best, **dict(zip(others, found, strict=True))}
