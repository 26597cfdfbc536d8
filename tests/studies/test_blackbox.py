"""The black-box loop: order, counting, duplicates, constraints, failures, resume."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import pytest

from nas_core.architecture import Architecture
from nas_core.config import Config
from nas_core.records import Run, StopAt
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, State
from studies.analysis.verify import verify
from studies.events import Event, Finished, Reported, Started
from studies.records import Study
from studies.search.endings import REJECTED_IN_A_ROW, Ending
from studies.search.loop import Search
from studies.store.store import Store

STRATEGIES = ("random", "regularized-evolution", "local-search")


class Listed:
    """Proposes a list of words, and records what every ask had seen."""

    class Config(Config):
        pass

    words: Sequence[str] = ()
    wait_until: int = 0  # ask 2 waits until so many outcomes were told

    def __init__(self, setting: Setting, config: Any) -> None:
        self.told: list[int] = []
        self.asks: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
        self.outcomes: list[Outcome] = []

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        if number >= len(self.words):
            raise Exhausted
        if number == 2 and len(self.told) < self.wait_until:
            return None
        self.asks.append((number, tuple(self.told), tuple(trial.number for trial in pending)))
        return Proposal(Architecture("edges", {f"edge{n}": letter for n, letter in enumerate(self.words[number])}))

    def tell(self, outcome: Outcome) -> None:
        self.told.append(outcome.number)
        self.outcomes.append(outcome)


def listed(*words: str, wait_until: int = 0) -> type[Listed]:
    return type("Words", (Listed,), {"words": words, "wait_until": wait_until})


def run(bench: Any, strategy: Any = None, trials: int | None = None, **changes: Any) -> tuple[list[Run], Any, Ending]:
    store = bench.store()
    study = bench.study(store, **changes)
    search = Search(store, study, bench.parts(study.spec, make=strategy))
    ending = search.run(StopAt(trials=trials))
    runs = list(store.trials(study, metrics=True))
    assert list(verify(store, study, bench.parts(study.spec, make=strategy))) == []
    return runs, search.strategy, ending


@pytest.mark.parametrize("lag", [1, 2, 4])
def test_ask_k_sees_the_outcomes_up_to_k_minus_lag(bench: Any, lag: int) -> None:
    words = ["aaaa", "baaa", "caaa", "abaa", "acaa", "adaa", "aaba"]
    _, strategy, ending = run(bench, listed(*words), lag=lag)
    assert ending == Ending.EXHAUSTED
    for number, told, pending in strategy.asks:
        assert told == tuple(range(max(0, number - lag + 1)))
        assert pending == tuple(range(max(0, number - lag + 1), number))
    assert strategy.told == list(range(len(words)))


def test_a_strategy_that_waits_is_told_more(bench: Any) -> None:
    runs, strategy, _ = run(bench, listed("aaaa", "baaa", "caaa", "abaa", wait_until=2), lag=4)
    assert strategy.asks[2] == (2, (0, 1), ())
    assert [run.asked_after for run in runs] == [0, 0, 2, 2]


def test_functional_duplicates_are_reused_with_their_own_costs(bench: Any) -> None:
    runs, strategy, _ = run(bench, listed("abaa", "abad", "acaa"))
    assert [run.state for run in runs] == [State.COMPLETE, State.REUSED, State.COMPLETE]
    assert runs[1].reuses == 0
    assert runs[1].verdict.values == runs[0].verdict.values
    assert runs[0].metrics["params"] == 10
    assert runs[1].metrics["params"] == 100
    assert len(bench.evaluator.evaluated) == 2
    assert strategy.outcomes[1].values == strategy.outcomes[0].values


def test_a_duplicate_of_a_pending_trial_waits_for_it(bench: Any) -> None:
    runs, _, _ = run(bench, listed("abaa", "abab", "acaa"), lag=3)
    assert [run.state for run in runs] == [State.COMPLETE, State.REUSED, State.COMPLETE]
    assert len(bench.evaluator.evaluated) == 2


def test_a_duplicate_of_a_pending_trial_that_fails_is_evaluated_itself(bench: Any) -> None:
    runs, _, _ = run(bench, listed("bbba", "bbbb", "acaa"), lag=3)
    assert [run.state for run in runs] == [State.FAILED, State.FAILED, State.COMPLETE]
    assert len(bench.evaluator.evaluated) == 3


def test_failures_become_states_with_reasons(bench: Any) -> None:
    runs, strategy, _ = run(bench, listed("bbba", "ccca", "bcba", "aaaa"))
    assert [run.state for run in runs] == [State.FAILED, State.FAILED, State.FAILED, State.COMPLETE]
    reasons = [run.verdict.reason or "" for run in runs]
    assert reasons[0] == "out-of-memory: too large"
    assert reasons[1] == "exception: ZeroDivisionError: in a user's code"
    assert reasons[2].startswith("not-finite: 'score' is nan")
    found = runs[1].verdict.traceback or ""
    assert found.startswith("Traceback")
    assert "conftest.py" in found
    assert found.endswith("ZeroDivisionError: in a user's code")
    assert "inline.py" not in found
    assert runs[3].verdict.traceback is None
    assert all(outcome.values is None for outcome in strategy.outcomes[:3])


def test_constraints_on_costs_reject_before_evaluation(bench: Any) -> None:
    runs, strategy, _ = run(bench, listed("abaa", "ddaa", "adaa"), constraints=("params<=150",))
    assert [run.state for run in runs] == [State.COMPLETE, State.REJECTED, State.COMPLETE]
    assert len(bench.evaluator.evaluated) == 2
    outcome = strategy.outcomes[1]
    assert outcome.values is None
    assert outcome.violations == pytest.approx(((210 - 150) / 150,))
    assert runs[1].metrics == {"params": 210}
    assert "params is 210, not <=150" in (runs[1].verdict.reason or "")


def test_constraints_on_learned_metrics_are_checked_after_evaluation(bench: Any) -> None:
    runs, _, _ = run(bench, listed("aaaa", "daaa"), constraints=("other<=0",))
    assert [run.verdict.feasible for run in runs] == [True, False]
    assert runs[1].state == State.COMPLETE


def test_a_functional_twin_of_a_rejected_candidate_has_its_own_costs(bench: Any) -> None:
    runs, _, _ = run(bench, listed("adad", "adaa"), constraints=("params<=150",))
    assert [run.state for run in runs] == [State.REJECTED, State.COMPLETE]


def test_values_are_oriented(bench: Any) -> None:
    runs, _, _ = run(bench, listed("ddaa"), objectives=("other:min", "score:max"))
    assert runs[0].verdict.values is not None
    assert runs[0].verdict.values[0] == -2
    assert runs[0].verdict.values[1] == runs[0].metrics["score"]


def test_trials_count_evaluations(bench: Any) -> None:
    runs, _, ending = run(bench, listed("abaa", "abab", "bbba", "ddda", "acaa", "aaaa"), trials=3, lag=1)
    assert ending == Ending.TRIALS
    assert [run.state for run in runs] == [State.COMPLETE, State.REUSED, State.FAILED, State.COMPLETE]


def test_a_run_of_rejected_candidates_ends_the_search(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REJECTED_IN_A_ROW > 1000
    monkeypatch.setattr("studies.search.endings.REJECTED_IN_A_ROW", 20)
    runs, _, ending = run(bench, constraints=("params<=-1",))
    assert ending == Ending.REJECTED
    assert len(runs) == 20


def test_reports_are_stored_per_step(bench: Any) -> None:
    store = bench.store()
    study = bench.study(store)
    Search(store, study, bench.parts(study.spec, make=listed("aaaa"))).run(StopAt())
    curve = store.curve(store.trial(study, 0))
    assert [report.step for report in curve] == [1, 2]
    assert curve[1].metrics["score"] == 2 * curve[0].metrics["score"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("lag", [1, 3])
def test_a_search_that_stops_and_resumes_is_the_same_search(bench: Any, strategy: str, lag: int) -> None:
    """Stopped by an exception in the middle of every third commit."""
    store = bench.store("whole")
    study = bench.study(store, strategy=strategy, lag=lag)
    Search(store, study, bench.parts(study.spec)).run(StopAt(trials=30))
    whole = [_plain(run) for run in store.trials(study, metrics=True)]

    store = bench.store("stopped")
    study = bench.study(store, strategy=strategy, lag=lag)
    calls = 0

    class Killed(BaseException):
        pass

    def counted(verb: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls % 7 == 3:
                raise Killed
            result = verb(*arguments, **options)
            if calls % 7 == 0:
                raise Killed
            return result

        return call

    for name in ("propose_all", "finish", "report", "tell", "start"):
        setattr(store, name, counted(getattr(store, name)))
    for _ in range(500):
        try:
            Search(store, study, bench.parts(study.spec)).run(StopAt(trials=30))
            break
        except Killed:
            continue
    assert calls > 50
    assert [_plain(run) for run in store.trials(study, metrics=True)] == whole
    assert list(verify(store, study, bench.parts(study.spec))) == []


def _plain(run: Run) -> str:
    """What must not depend on interruptions; as text, because nan is not equal to itself."""
    return repr((
        run.number, run.arch.to_json(), run.identity, run.state, run.reuses, run.asked_after, run.told,
        run.verdict.values, run.verdict.violations, run.verdict.reason, dict(run.metrics), dict(run.note),
    ))  # fmt: skip


@pytest.mark.parametrize("lag", [1, 3])
def test_nothing_is_heard_of_before_it_is_committed(bench: Any, lag: int) -> None:
    """What another process finds in the database at that moment."""
    store = bench.store()
    study = bench.study(store, lag=lag)
    words = ["aaaa", "aaaa", "baaa", "aaaa", "baaa", "baaa", "caaa", "aaaa", "aaba", "caaa", "caaa"]
    heard: list[Event] = []

    def look(event: Event) -> None:
        with bench.store() as other:
            if isinstance(event, Started):
                assert other.trial(study, event.number).state == State.RUNNING
            elif isinstance(event, Reported):
                assert other.trial(study, event.number).metrics["score"] == event.report.metrics["score"]
            elif isinstance(event, Finished):
                run = other.trial(study, event.number)
                assert (run.verdict, run.metrics) == (event.verdict, event.metrics)
        heard.append(event)

    parts = bench.parts(study.spec, make=listed(*words))
    assert Search(store, study, parts, listener=look).run(StopAt()) == Ending.EXHAUSTED
    assert [event.number for event in heard if isinstance(event, Started)] == [0, 2, 6, 8]
    assert [event.number for event in heard if isinstance(event, Finished)] == list(range(len(words)))
    assert sum(isinstance(event, Reported) for event in heard) >= 3  # some fail before


def test_what_costs_no_evaluation_is_stored_with_the_next_one_that_does(bench: Any) -> None:
    """A search that stops, or is killed, between them goes on to the same study."""
    words = ["aaaa", *["aaaa"] * 5, "baaa", *["aaaa", "baaa"] * 4]
    store = bench.store()
    study = bench.study(store)
    together: list[int] = []
    propose_all = store.propose_all

    def counted(study: Study, proposed: Any) -> list[int]:
        together.append(len(proposed))
        return propose_all(study, proposed)

    store.propose_all = counted
    Search(store, study, bench.parts(study.spec, make=listed(*words))).run(StopAt())
    assert together == [1, 6, 8]
    whole = [_plain(run) for run in store.trials(study, metrics=True)]

    class Killed(BaseException):
        pass

    for last in range(len(words)):

        def killed(event: Event, last: int = last) -> None:
            if isinstance(event, Finished) and event.number == last:
                raise Killed

        with bench.store(f"killed-{last}") as other:
            half = bench.study(other)
            with pytest.raises(Killed):
                Search(other, half, bench.parts(half.spec, make=listed(*words)), listener=killed).run(StopAt())
            assert [_plain(run) for run in other.trials(half, metrics=True)][: last + 1] == whole[: last + 1]
            Search(other, half, bench.parts(half.spec, make=listed(*words))).run(StopAt())
            assert [_plain(run) for run in other.trials(half, metrics=True)] == whole


def test_a_proposal_waits_for_a_moment_only(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = bench.store()
    study = bench.study(store)
    stored: list[int] = []

    class Slow(Listed):
        words = ("aaaa",) * 6

        def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
            stored.append(len(list(store.trials(study))))
            return super().ask(number, pending)

    monkeypatch.setattr("studies.search.proposals.MOMENT", 0.0)
    Search(store, study, bench.parts(study.spec, make=Slow)).run(StopAt())
    assert stored == list(range(7))


def test_stopping_keeps_the_running_trial_for_the_resume(bench: Any) -> None:
    store = bench.store()
    study = bench.study(store)
    make = listed("aaaa", "baaa")

    class Stop:
        reports = 0

        def stopping(self) -> bool:
            return self.reports >= 3

        def __call__(self, event: Event) -> None:
            self.reports += 2 * isinstance(event, Reported)

    stop = Stop()
    search = Search(store, study, bench.parts(study.spec, make=make), listener=stop, stopping=stop.stopping)
    assert search.run(StopAt()) == Ending.INTERRUPTED
    assert [run.state for run in store.trials(study)] == [State.COMPLETE, State.RUNNING]
    assert Search(store, study, bench.parts(study.spec, make=make)).run(StopAt()) == Ending.EXHAUSTED
    runs = list(store.trials(study))
    assert [run.state for run in runs] == [State.COMPLETE, State.COMPLETE]
    assert [run.attempt for run in runs] == [1, 2]


@pytest.mark.parametrize(
    "alteration",
    [
        "UPDATE runs SET architecture = (SELECT key FROM architectures WHERE key <> runs.architecture LIMIT 1) "
        "WHERE number = 7",
        'UPDATE runs SET note = \'{"role":"child","of":1}\' WHERE number = 12',
        "UPDATE runs SET objectives = '[9.5]', objective = 9.5 WHERE number = 4",
        "UPDATE metrics SET value = value + 1 WHERE run = 5 AND name = 'score'",
        "UPDATE runs SET identity = 'zzz' WHERE number = 3",
        "UPDATE runs SET asked_after = asked_after - 1 WHERE number = 25",
        "DELETE FROM metrics WHERE run = 9",
        "UPDATE runs SET objective = 99 WHERE number = 4",
        "UPDATE runs SET feasible = 0 WHERE number = 0",
        "UPDATE runs SET state = 'failed' WHERE number = 0",
        "UPDATE runs SET state = 'rejected' WHERE number = 0",
    ],
)
def test_verify_notices_alterations(bench: Any, alteration: str) -> None:
    store = bench.store()
    study = bench.study(store, strategy="regularized-evolution", strategy_config={"population": 5, "sample": 5})
    Search(store, study, bench.parts(study.spec)).run(StopAt(trials=30))
    assert list(verify(store, study, bench.parts(study.spec))) == []
    with sqlite3.connect(bench.folder / "nas.db") as connection:
        assert connection.execute(alteration).rowcount > 0
    connection.close()
    assert list(verify(store, study, bench.parts(study.spec))) != []


@pytest.mark.parametrize(("kept", "queries"), [(2, 2), (1, 4)])
def test_a_source_is_looked_up_once_while_it_is_at_hand(
    bench: Any, monkeypatch: pytest.MonkeyPatch, kept: int, queries: int
) -> None:
    """As many as are kept; and each reused trial has what its own source measured."""
    asked: list[int] = []

    def trial(self: Store, study: Study, number: int, look: Any = Store.trial) -> Run:
        asked.append(number)
        found: Run = look(self, study, number)
        return found

    monkeypatch.setattr("studies.search.duplicates.KEPT", kept)
    monkeypatch.setattr(Store, "trial", trial)
    runs, _, _ = run(bench, listed("aaaa", "caaa", "aaab", "caab", "aaac", "caac"))
    assert len(asked) == queries
    assert [run.reuses for run in runs] == [None, None, 0, 1, 0, 1]
    assert [run.metrics["score"] for run in runs[2:]] == [runs[0].metrics["score"], runs[1].metrics["score"]] * 2
