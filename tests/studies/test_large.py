"""Studies of many trials: what indexes and SQL find is what a look at every trial finds, and little is read for it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
import sqlalchemy as sa
from numpy.random import Generator

from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.evaluation import Objective
from nas_core.pareto import undominated
from nas_core.records import BASELINE, StopAt, Verdict
from nas_core.strategy import Proposal, State
from studies.analysis import leading, listing, queries
from studies.records import Study
from studies.store import rows, store, tables
from studies.store.store import Store
from studies.store.testing import SPEC
from tests.memory import peak

MEASURED = (State.COMPLETE, State.REUSED)
Row = dict[str, Any]


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty database of each kind."""
    url = f"sqlite:///{tmp_path}/nas.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")()
    with Store(url, tmp_path) as found:
        yield found


def made(opened: Store, name: str, found: Sequence[Row], objectives: int = 1) -> Study:
    """A study of these trials, each with its metrics by step."""
    goals = tuple(f"m{place}:{'min' if place else 'max'}" for place in range(objectives))
    study = opened.create_study(name, SPEC.model_copy(update={"objectives": goals}), StopAt())
    arch = Architecture("letters", {"a": 1})
    blank = {"study": study.id, "kind": "trial", "architecture": arch.key, "identity": "i", "repeat": 0, "note": "{}"}
    blank |= {"attempt": 1, "tries": 0, "reuses": None}

    def work(connection: sa.Connection) -> None:
        if not connection.execute(sa.select(tables.architectures)).first():
            connection.execute(tables.architectures.insert(), {"key": arch.key, "json": arch.to_json()})
        plain = [{key: value for key, value in row.items() if key != "metrics"} for row in found]
        connection.execute(tables.runs.insert(), [{**blank, **row} for row in plain])
        ids = dict(
            connection.execute(sa.select(tables.runs.c.number, tables.runs.c.id).filter_by(study=study.id)).all()
        )
        values = [
            rows.metric_row(ids[row["number"]], step, name, value)
            for row in found
            for step, metrics in row.get("metrics", {}).items()
            for name, value in metrics.items()
        ]
        if values:
            connection.execute(tables.metrics.insert(), values)

    opened.write(work)
    return study


def judged(state: State, values: tuple[float, ...] | None, feasible: bool = True) -> Row:
    verdict = Verdict(state, None, values, () if values is None else (-0.5 if feasible else 0.5,), 1.0)
    return {"budget": None, **rows.verdict_row(verdict, None if state in (State.RUNNING, State.WAITING) else 1.0)}


def drawn(rng: Generator, count: int, objectives: int) -> list[Row]:
    """Trials with ties, equal values, numbers that differ in their last digit, infeasible and failed ones."""
    kinds = [State.COMPLETE, State.REUSED, State.PRUNED, State.FAILED, State.REJECTED, State.RUNNING]
    levels = [1 / 3, math.nextafter(1 / 3, 1), math.nextafter(1 / 3, 0), -0.0, 0.0, 0.1 + 0.2, 0.3, 1e-300, 7.0]
    budgets = [None] if rng.random() < 0.5 else [3.0, 9.0, 9.0] + [None] * int(rng.integers(2))
    coarse = rng.random(objectives) < 0.5
    found = []
    for number in rng.permutation(count + 3)[:count].tolist():  # numbers may have gaps
        state = kinds[int(rng.choice(6, p=[0.6, 0.2, 0.05, 0.05, 0.05, 0.05]))]
        values = None
        if state in (*MEASURED, State.PRUNED):
            values = tuple(
                float(rng.choice(levels)) if coarse[place] else float(rng.normal()) for place in range(objectives)
            )
        row = judged(state, values, rng.random() < 0.9)
        found.append({"number": number, **row, "budget": budgets[int(rng.integers(len(budgets)))]})
    return found


def leading_ones(found: Sequence[Row]) -> list[Row]:
    """The feasible ones of the largest budget, by their numbers."""
    feasible = [row for row in found if row["state"] in MEASURED and row["feasible"]]
    spent = [math.inf if row["budget"] is None else row["budget"] for row in feasible]
    among = [row for row, budget in zip(feasible, spent, strict=True) if budget == max(spent)]
    return sorted(among, key=lambda row: row["number"])


def front_of(found: Sequence[Row]) -> list[int]:
    """By comparing all pairs; the earliest of equals, by falling first value."""
    among = leading_ones(found)
    points = [json.loads(row["objectives"]) for row in among]

    def beaten(place: int) -> bool:
        mine = points[place]
        return any(
            all(a >= b for a, b in zip(other, mine, strict=True)) and (other != mine or at < place)
            for at, other in enumerate(points)
            if at != place
        )

    kept = [place for place in range(len(among)) if not beaten(place)]
    return [among[place]["number"] for place in sorted(kept, key=lambda place: (-points[place][0], place))]


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_front_and_the_best_are_those_of_a_look_at_every_trial(opened: Store, objectives: int) -> None:
    for seed in range(6):
        rng = numpy.random.default_rng([objectives, seed])
        found = drawn(rng, int(rng.integers(3, 120)), objectives)
        study = made(opened, f"s{seed}", found, objectives)
        among = leading_ones(found)
        best = leading.best_number(opened, study)
        assert best == (max(among, key=lambda row: row["objective"])["number"] if among else None)
        summary = next(one for one in queries.summaries(opened) if one.name == study.name)
        assert summary.best == (max(row["objective"] for row in among) if among else None)
        assert summary.states == Counter(row["state"] for row in found if row["ended"])
        if among and objectives > 1:
            front = front_of(found)
            for sample in (5, 1_000):
                assert leading.front_numbers(opened, study, sample=sample) == front
            values = {row["number"]: json.loads(row["objectives"]) for row in among}
            others = [max(front, key=lambda number, k=place: values[number][k]) for place in range(1, objectives)]
            assert leading.leaders(opened, study, objectives - 1) == others


def test_what_rules_others_out_is_clearly_better(tmp_path: Path) -> None:
    """SQLite may read the last digit of a number in a text as another one."""
    with Store(f"sqlite:///{tmp_path}/nas.db") as opened:
        rng = numpy.random.default_rng(0)
        steps = [float(1 / 3 + n * math.ulp(1 / 3)) for n in range(-3, 4)]
        points = [(float(n), steps[int(rng.integers(7))], steps[int(rng.integers(7))]) for n in range(300)]
        found = [{"number": n, **judged(State.COMPLETE, point)} for n, point in enumerate(points)]
        study = made(opened, "s", found, 3)
        assert leading.front_numbers(opened, study, sample=50) == front_of(found)


@pytest.mark.slow
def test_the_front_of_a_hundred_thousand_trials(opened: Store) -> None:
    points = numpy.random.default_rng(1).normal(size=(100_000, 3))
    points[:, 2] = points[:, 2].round(1)  # ties
    points[50_000:60_000] = points[:10_000]
    values = points.tolist()
    study = made(opened, "s", [{"number": n, **judged(State.COMPLETE, tuple(one))} for n, one in enumerate(values)], 3)
    front = {tuple(values[place]): place for place in numpy.flatnonzero(undominated(points)).tolist()[::-1]}
    assert len(front) > 50
    assert leading.front_numbers(opened, study) == [front[one] for one in sorted(front, key=lambda one: -one[0])]
    assert leading.best_number(opened, study) == int(points[:, 0].argmax())
    assert queries.state_counts(opened, study) == {State.COMPLETE: 100_000}


def test_counts_are_those_of_a_look_at_every_trial(opened: Store) -> None:
    for seed in range(4):
        rng = numpy.random.default_rng(seed)
        found = drawn(rng, 60, 1)
        for row in found:
            if row["state"] == State.FAILED:
                row["reason"] = str(rng.choice(["worker-died: 3 times", "exception: no 1", "exception: no 22", "oom"]))
            elif row["state"] == State.REJECTED:
                row["reason"] = str(rng.choice(["constraint: params is 4", "constraint: params is 5", "blind"]))
            elif row["state"] == State.RUNNING:
                row["tries"] = int(rng.integers(2))
        found.sort(key=lambda row: row["number"])
        study = made(opened, f"s{seed}", found)
        assert queries.state_counts(opened, study) == Counter(row["state"] for row in found)
        died = [row["number"] for row in found if row.get("tries") or str(row.get("reason")).startswith("worker-died:")]
        assert queries.died_in(opened, study) == (died[0] if died else None)
        reasons = [row["reason"] for row in found if row["state"] == State.FAILED]
        causes = queries.causes(opened, study)
        assert sum(cause.count for cause in causes) == len(reasons)
        for cause in causes:
            words = cause.reason.rstrip("0123456789")
            alike = [row["number"] for row in found if (row.get("reason") or "").startswith(words)]
            assert (cause.count, cause.first) == (len(alike), alike[0])
        rejected = Counter(row["reason"].partition(":")[0] for row in found if row["state"] == State.REJECTED)
        assert {one.reason: one.count for one in queries.rejections(opened, study)} == rejected


def listed(rng: Generator, count: int) -> list[Row]:
    """Trials with metrics that are missing, equal, not finite, or reported in an early step alone."""
    found = drawn(rng, count, 2)
    for row in found:
        row["reason"] = "oom" if row["state"] == State.FAILED else None
        row["seconds"] = None if rng.random() < 0.2 else float(rng.integers(5))
        early = {"m0": float(rng.normal()), "once": float(rng.integers(3))} if rng.random() < 0.3 else {}
        late = {"m0": float(rng.choice([1.0, 2.0, math.nan, math.inf, -math.inf])), "m1": float(rng.integers(3))}
        row["metrics"] = {1: early, 2: {} if rng.random() < 0.2 else late}
    return found


def in_order(found: Sequence[Row], sort: str) -> list[int]:
    """The numbers as a sort in memory has them."""
    key, sign = sort.removeprefix("-"), -1 if sort.startswith("-") else 1
    sign = -sign if key == "m0" else sign  # an objective to be maximised: best first

    def rank(row: Row) -> tuple[bool, float, int]:
        newest = {name: value for _, metrics in sorted(row["metrics"].items()) for name, value in metrics.items()}
        value = {"number": row["number"], "seconds": row["seconds"]}.get(key, newest.get(key))
        missing = value is None or math.isnan(value)
        return missing, 0.0 if missing else sign * value, row["number"]

    return [row["number"] for row in sorted(found, key=rank)]


def test_lists_are_sorted_as_in_memory(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FIRST_PAGE", 4)
    monkeypatch.setattr(store, "PAGE", 7)
    goals = (Objective("m0", "max"), Objective("m1", "min"))
    for seed in range(2):
        found = listed(numpy.random.default_rng(seed), 50)
        study = made(opened, f"s{seed}", found, 2)
        for sort in ("number", "-number", "seconds", "-seconds", "m0", "-m0", "m1", "-m1", "once", "-once"):
            for state in (None, State.COMPLETE, State.FAILED, State.RUNNING):
                those = [row for row in found if state in (None, row["state"])]
                if sort.endswith("once") and not any("once" in row["metrics"][1] for row in those):
                    continue
                for limit in (None, 1, 9):
                    seen = listing.listed(opened, study, goals, sort=sort, limit=limit, state=state)
                    numbers = in_order(those, sort)[:limit]
                    chosen = [row for row in those if row["number"] in numbers]
                    assert [run.number for run in seen.runs] == numbers, (sort, state, limit)
                    assert seen.reasons == any(row["reason"] for row in chosen)
                    assert seen.budgets == any(row["budget"] for row in chosen)
                assert listing.count(opened, study, state) == len(those)
        with pytest.raises(UsageError, match=r"'onc'; did you mean 'once'\? \(known: number, seconds, m0, m1, once\)"):
            listing.listed(opened, study, goals, sort="onc")


def test_runs_of_a_kind_are_read_in_pages(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Baselines and trainings have the same numbers below other parents."""
    monkeypatch.setattr(store, "FIRST_PAGE", 2)
    monkeypatch.setattr(store, "PAGE", 2)
    study = made(opened, "s", [{"number": n, **judged(State.COMPLETE, (1.0,))} for n in range(3)])
    archs = [Architecture("letters", {"a": n}) for n in range(7)]
    for place, arch in enumerate(archs):
        opened.propose(study, place // 5, Proposal(arch), arch.key, Verdict(State.WAITING), kind=BASELINE)
    assert [run.arch for run in opened.runs(study, BASELINE)] == archs
    assert [run.number for run in opened.some_trials(study, [2, 0, 17, 1])] == [2, 0, 1]


# -- what is read ---------------------------------------------------------------------------------------------


def steps(opened: Store, work: Callable[[], object]) -> int:
    """How many hundreds of its instructions SQLite needs, which is what rows cost."""
    count = 0

    def more() -> int:
        nonlocal count
        count += 1
        return 0

    driver: Any = opened._connection.connection.driver_connection
    driver.set_progress_handler(more, 100)
    work()
    driver.set_progress_handler(None, 100)
    return count


def many(count: int) -> list[Row]:
    """Complete, reused and failed trials, the last one unfinished."""
    rng = numpy.random.default_rng(count)
    states = [State.COMPLETE, State.COMPLETE, State.COMPLETE, State.REUSED, State.FAILED]
    found = []
    for number in range(count):
        state = State.RUNNING if number == count - 1 else states[number % 5]
        values = tuple(rng.normal(size=3).tolist()) if state in MEASURED else None
        found.append({"number": number, **judged(state, values), "metrics": {1: {"m0": 1.0}}})
    return found


ASKED: dict[str, tuple[Callable[[Store, Study], object], float, float]] = {
    "best": (leading.best_number, 0, 20),
    "best of others": (lambda opened, study: leading.leaders(opened, study, 1), 0, 20),
    "one trial": (lambda opened, study: opened.trial(study, 77), 0, 20),
    "baselines": (lambda opened, study: opened.runs(study, BASELINE), 0, 20),
    "first trials": (lambda opened, study: list(listing.listed(opened, study, (), limit=9).runs), 0, 90),
    "counts": (queries.state_counts, 6, 20),
    "list of studies": (lambda opened, study: queries.summaries(opened), 6, 20),
    "front": (leading.front_numbers, 30, 100),
}
"""What is asked, how many instructions it may cost per trial, and how many hundreds however many trials there are."""


@pytest.mark.parametrize("name", ASKED)
def test_little_is_read_for_what_is_shown(tmp_path: Path, name: str) -> None:
    ask, each, whole = ASKED[name]
    with Store(f"sqlite:///{tmp_path}/nas.db") as opened:
        study = made(opened, "s", many(4_000), 3)
        assert steps(opened, lambda: ask(opened, study)) <= 4_000 * each / 100 + whole


def test_lists_do_not_grow_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAGE", 100)
    with Store(f"sqlite:///{tmp_path}/nas.db") as opened:
        few, more = (made(opened, f"s{count}", many(count), 3) for count in (300, 2_400))

        def all_of(study: Study, sort: str) -> Callable[[], int]:
            return lambda: sum(1 for _ in listing.listed(opened, study, (), sort=sort).runs)

        for sort in ("number", "-m0"):
            all_of(few, sort)()  # what is compiled once
            assert peak(all_of(more, sort)) < 1.5 * peak(all_of(few, sort))
        with opened.asked("SELECT number FROM trials") as (_, found):
            assert next(iter(found)) == (0,)
