"""The contract of a store, as findings: what a study database must do to lose nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy

from nas_core.architecture import Architecture
from nas_core.errors import NotFoundError, UsageError
from nas_core.evaluation import LOADS, Report
from nas_core.records import RETRAIN, StopAt, Verdict
from nas_core.strategy import Proposal, State
from nas_core.task import Task
from studies.records import StudySpec, SupernetSettings
from training.data.split import Split
from training.evaluators.earlier import as_now
from training.evaluators.kinds import stored

SPEC = StudySpec(
    space="letters",
    space_name="letters",
    space_version=1,
    space_hash=None,
    size={"channels": 4},
    strategy="random",
    strategy_config={},
    evaluator=stored({"kind": "made", "settings": {"data": "none"}}),
    task=Task(kind="none", input_shape=(1,), outputs=2),
    split_hash="0",
    objectives=("score:max",),
    constraints=("params<=5",),
    seed=2**62,
    lag=1,
)


SUPERNET = SupernetSettings(
    data="none", split=Split(), split_hash="", device="cpu", precision="float32", threads=1, deterministic=False
)
"""What a supernet was trained on and with, where that is of no account."""


def of_now(column: str, value: Any) -> Any:
    """A cell of an older database as a migration leaves it: the program reads the JSON of evaluators in both forms."""
    return json.dumps(as_now(json.loads(value))) if column == "evaluator" else value


def check(open_store: Callable[[], Any]) -> Iterator[str]:
    """Findings about a store; none: it keeps its contract.

    `open_store()` opens the same, at first empty, database each time; what one handle has committed another
    must see.
    """
    store = open_store()
    yield from _studies(store, open_store)
    yield from _trials(store, open_store)
    yield from _numbers(store)
    yield from _children(store)
    yield from _snapshots(store)
    yield from _benches(store, open_store)
    store.close()


def _studies(store: Any, open_store: Callable[[], Any]) -> Iterator[str]:
    made = store.create_study("one", SPEC, StopAt(trials=3))
    if made.spec != SPEC or made.stop_at != StopAt(trials=3):
        yield f"create_study: the stored study differs from the given one: {made}"
    again = open_store()
    if again.study("one") != made:
        yield "study: another handle does not see the study that was created"
    again.close()
    for name, call, expected in (
        ("a name that is taken", lambda: store.create_study("one", SPEC, StopAt()), UsageError),
        ("an unknown study", lambda: store.study("two"), NotFoundError),
        ("an unknown trial", lambda: store.trial(made, 7), NotFoundError),
    ):
        try:
            call()
            yield f"{name}: {expected.__name__} is not raised"
        except expected:
            pass
    store.set_stop_at(made, StopAt(seconds=1.5, spent=2.5))
    if store.study("one").stop_at != StopAt(seconds=1.5, spent=2.5):
        yield "set_stop_at: the budget is not changed"


def _trials(store: Any, open_store: Callable[[], Any]) -> Iterator[str]:
    study = store.study("one")
    proposal = Proposal(Architecture("letters", {"a": 1, "b": "x"}), 3.0, 0, {"role": "child", "of": 2})
    run = store.propose(study, 0, proposal, "same", Verdict(State.RUNNING), asked_after=0)
    store.report(run, Report(1, {"score": 0.25}))
    store.report(run, Report(1, {"score": 0.5}))
    other = open_store()
    (seen,) = other.trials(study, metrics=True)
    if (seen.proposal, seen.identity, seen.state, seen.told) != (proposal, "same", State.RUNNING, None):
        yield f"propose: another handle sees {seen} instead of the proposal"
    if dict(seen.metrics) != {"score": 0.5}:
        yield f"report: a step reported twice gives {dict(seen.metrics)} instead of the newer value"
    if seen.finished:
        yield "propose: a running trial counts as finished"
    store.start(run, None, tries=2)
    store.count_tries(run, 3)
    store.report(run, Report(1, {"score": 0.5}))
    (seen,) = other.trials(study)
    if (seen.state, seen.attempt, seen.tries) != (State.RUNNING, 2, 3):
        yield f"start, count_tries: another handle sees {seen} instead of a second attempt, the third without a report"
    store.report(run, Report(1, {"score": 0.5}), tries=1)
    if next(other.trials(study)).tries != 1:
        yield "report: the number of tries is not stored with it"
    store.finish(run, Verdict(State.FAILED, "made: up", seconds=1.0, traceback="one.py, line 3, in build"))
    (seen,) = other.trials(study)
    if seen.verdict.traceback != "one.py, line 3, in build":
        yield f"finish: the traceback comes back as {seen.verdict.traceback}"
    store.finish(run, Verdict(State.COMPLETE, None, (0.75,), (-0.5,), 2.5), Report(2, {"score": 0.75}))
    (seen,) = other.trials(study, metrics=True)
    if seen.verdict != Verdict(State.COMPLETE, None, (0.75,), (-0.5,), 2.5) or seen.told is not None:
        yield f"finish: another handle sees {seen.verdict} (told {seen.told})"
    if [report.step for report in other.curve(seen)] != [1, 2]:
        yield "curve: the reports are not those that were committed"
    if other.curves(study, "score") != {0: [(1.0, 0.5), (2.0, 0.75)]}:
        yield f"curves: the values of a metric are {other.curves(study, 'score')}"
    if other.loads(seen):
        yield f"loads: a run that reported none has {other.loads(seen)}"
    for step, shares in ((4, [1.0, 0.0]), (3, [0.25, 0.75])):  # one that was killed goes on with an older epoch
        store.report(run, Report(step, {}, 1.5, {LOADS: {"layer.1": shares, "layer.0": [1.0]}}))
    found = other.loads(seen)
    if list(found.items()) != [("layer.1", (0.25, 0.75)), ("layer.0", (1.0,))]:
        yield f"report: the loads of experts are {found} instead of those that were reported last"
    second = store.propose(
        study, 1, proposal, "same", Verdict(State.REUSED, "same as trial 0", (0.75,)), reuses=0,
        report=Report(2, {"score": 0.75}), asked_after=1, told=(run, 0),
    )  # fmt: skip
    first, reused = other.trials(study, metrics=True)
    if first.told != 0 or reused.told is not None or reused.reuses != 0 or dict(reused.metrics) != {"score": 0.75}:
        yield "propose: `told` of the trial before, or the result of a reused trial, is not committed with it"
    store.tell(second, 1)
    if [trial.told for trial in other.trials(study)] != [0, 1]:
        yield "tell: the position is not stored"
    if [trial.number for trial in other.trials(study, since=1)] != [1]:
        yield "trials: `since` does not start at that number"
    other.close()


def _numbers(store: Any) -> Iterator[str]:
    study = store.study("one")
    values = {"nan": math.nan, "up": math.inf, "down": -math.inf, "small": 5e-324, "third": 1 / 3, "large": 2.0**60}
    run = store.propose(study, 2, Proposal(Architecture("letters", {"a": 2})), "n", Verdict(State.RUNNING))
    store.finish(run, Verdict(State.FAILED, "made: for numbers"), Report(1, values))
    found = store.trial(study, 2).metrics
    for name, value in values.items():
        if not (found.get(name) == value or (math.isnan(value) and math.isnan(found.get(name, 0.0)))):
            yield f"metrics: {value} comes back as {found.get(name)}"


def _children(store: Any) -> Iterator[str]:
    study = store.study("one")
    trial = store.trial(study, 0)
    for repeat in range(2):
        store.propose(
            study, repeat + 1, trial.proposal, "same", Verdict(State.WAITING), kind=RETRAIN, parent=trial.id,
            repeat=repeat, recipe={"epochs": 3},
        )  # fmt: skip
    children = store.children(trial, RETRAIN)
    if [(child.repeat, child.recipe) for child in children] != [(0, {"epochs": 3}), (1, {"epochs": 3})]:
        yield f"children: {children} are not the two retrainings"
    if [trial.number for trial in store.trials(study)] != [0, 1, 2]:
        yield "children: a retraining takes a number that belongs to the trials"
    store.start(children[0].id, None)
    if store.children(trial, RETRAIN)[0].attempt != 1 or store.children(trial, RETRAIN)[0].state != State.RUNNING:
        yield "start: the attempt is not counted"


def _snapshots(store: Any) -> Iterator[str]:
    study = store.study("one")
    state: dict[str, Any] = {
        "weights": numpy.arange(6.0).reshape(2, 3),
        "empty": numpy.zeros((0, 2), "int64"),
        "steps": [1, None, "a"],
    }
    for told in (1, 2, 3):
        store.save_snapshot(study, told, {**state, "told": told})
    store.save_snapshot(study, 3, {**state, "told": 33})
    found = list(store.snapshots(study))
    if [(told, back["told"]) for told, back in found] != [(3, 33), (2, 2)]:
        yield f"snapshots: the two newest are not what is kept: {[told for told, _ in found]}"
    for _, back in found:
        same = [numpy.array_equal(back[name], state[name]) for name in ("weights", "empty")]
        if not all(same) or back["steps"] != state["steps"] or back["empty"].dtype != numpy.int64:
            yield f"snapshots: {state} comes back as {back}"


def _benches(store: Any, open_store: Callable[[], Any]) -> Iterator[str]:
    made = store.create_bench("ranking", {"strategies": ["random"], "seeds": 2})
    child = store.create_study("ranking/random/0", SPEC, StopAt(trials=1), bench=made.id)
    store.set_measured(child, {"ask_seconds": 0.5})
    other = open_store()
    if other.bench("ranking") != made or other.bench_names() != ["ranking"] or other.find_bench("none") is not None:
        yield "bench: another handle does not see the bench that was created"
    if [(study.name, study.bench, study.measured) for study in other.studies_of(made)] != [
        ("ranking/random/0", made.id, {"ask_seconds": 0.5})
    ]:
        yield "studies_of: the bench's child is not found with what was measured"
    if "ranking/random/0" in other.study_names() or other.study("ranking/random/0").spec != SPEC:
        yield "study_names: children of benches are listed, or not found by name"
    other.close()
