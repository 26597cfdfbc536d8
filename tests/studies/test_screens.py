"""Candidates that are turned down: unsound ones for nothing, others by an evaluation that has spent something."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from nas_core.architecture import Architecture
from nas_core.errors import Rejected
from nas_core.evaluation import Budget, Context, Report
from nas_core.records import Run, StopAt, Verdict
from nas_core.strategy import Proposal, State
from nas_core.testing import space as suite
from studies.analysis.queries import best_trial, evaluated, rejections
from studies.analysis.verify import verify
from studies.events import Event, Finished, Reported
from studies.search.duplicates import Duplicates
from studies.search.endings import Ending
from studies.search.loop import Search
from studies.search.trial import Trial
from studies.search.verdicts import Verdicts
from tests.studies.conftest import Edges, Score
from tests.studies.test_blackbox import listed
from training.screens import Screen

SMALL = {"population": 4, "sample": 2}


class Screening(Score):
    """Turns down what begins with b before anything else, and what begins with c after its first report."""

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        first = next(iter(proposal.arch.values.values()))
        if first == "b":
            self.evaluated.append(proposal.arch)
            raise Rejected("blind", "it does not see", 0.5)
        for report in super().evaluate(proposal, budget, context):
            yield report
            if first == "c":
                raise Rejected("quality", "too low", report.seconds)


class Sound(Edges):
    """Nothing with a d at the first place can be any good."""

    def unsound(self, arch: Architecture) -> str | None:
        return "flat: all outputs are alike" if arch.values["edge0"] == "d" else None


@pytest.fixture
def screening(bench: Any) -> Any:
    bench.evaluator = Screening()
    return bench


def plain(run: Run) -> tuple[Any, ...]:
    return run.number, run.proposal, run.verdict, run.metrics, run.told, run.asked_after, run.reuses


def test_rejected_trials_keep_reason_seconds_and_reports(screening: Any) -> None:
    store = screening.store()
    study = screening.study(store)
    make = listed("baaa", "caaa", "aaaa")
    search = Search(store, study, screening.parts(study.spec, make=make))
    assert search.run(StopAt(trials=1)) == Ending.TRIALS
    runs = list(store.trials(study, metrics=True))
    assert [run.state for run in runs] == [State.REJECTED, State.REJECTED, State.COMPLETE]
    assert [run.verdict.reason for run in runs[:2]] == ["blind: it does not see", "quality: too low"]
    assert [run.verdict.seconds for run in runs[:2]] == [0.5, 0.1]
    assert [[report.step for report in store.curve(run)] for run in runs] == [[], [1], [1, 2]]
    assert [outcome.state for outcome in search.strategy.outcomes] == [run.state for run in runs]
    assert [outcome.values for outcome in search.strategy.outcomes[:2]] == [None, None]
    assert evaluated(store, study) == search.evaluated == 1
    assert [(one.reason, one.count, one.seconds) for one in rejections(store, study)] == [
        ("blind", 1, 0.5),
        ("quality", 1, 0.1),
    ]
    assert list(verify(store, study, screening.parts(study.spec, make=make))) == []


def test_a_budget_counts_the_share_that_was_trained(screening: Any) -> None:
    store = screening.store()
    study = screening.study(store)
    make = listed("baaa", "caaa", "aaaa", "cbaa", "abaa")
    search = Search(store, study, screening.parts(study.spec, make=make))
    assert search.run(StopAt(spent=2.0)) == Ending.SPENT
    assert search.spent.total == 0 + 0.5 + 1 + 0.5
    assert [run.state for run in store.trials(study)] == ["rejected", "rejected", "complete", "rejected"]
    again = Search(store, study, screening.parts(study.spec, make=make))
    assert again.spent.total == search.spent.total
    assert again.run(StopAt(spent=2.0)) == Ending.SPENT


@pytest.mark.parametrize("lag", [1, 3])
def test_nobody_pays_twice(screening: Any, lag: int) -> None:
    """Candidates of one identity, one after another or at the same time; each has its own costs."""
    store = screening.store()
    study = screening.study(store, lag=lag, objectives=("score:max", "params:min"))
    make = listed("baab", "baaa", "aaaa", "caab", "caaa")
    search = Search(store, study, screening.parts(study.spec, make=make))
    assert search.run(StopAt()) == Ending.EXHAUSTED
    runs = list(store.trials(study, metrics=True))
    assert [run.state for run in runs] == ["rejected", "rejected", "complete", "rejected", "rejected"]
    assert [run.reuses for run in runs] == [None, 0, None, None, 3]
    assert [run.verdict.seconds for run in runs] == [0.5, None, 0.2, 0.1, None]
    assert runs[1].verdict.reason == runs[0].verdict.reason
    assert (runs[1].metrics, runs[4].metrics) == ({"params": 10}, {"params": 10})
    assert len(screening.evaluator.evaluated) == 3
    assert list(verify(store, study, screening.parts(study.spec, make=make))) == []


def test_when_a_candidate_is_turned_down_decides_nothing(screening: Any) -> None:
    """One that is asked again repeats a trial that nobody has been told of yet, whether it runs or has been rejected by
    its evaluation; what was rejected before any evaluation repeats nothing."""
    store = screening.store()
    study = screening.study(store)
    duplicates = Duplicates(store, study, Verdicts(screening.parts(study.spec)), lambda number: number)
    proposal = Proposal(Architecture("edges", {"edge0": "b"}))

    def source(verdict: Verdict) -> int | None:
        pending = Trial(7, 1, proposal, "b", verdict, None, {}, 0)
        return duplicates.source(proposal, "b", [pending])

    assert source(Verdict(State.RUNNING)) == 7
    assert source(Verdict(State.REJECTED, "blind", seconds=0.5)) == 7
    assert source(Verdict(State.REJECTED, "illegal")) is None


def test_a_screen_leaves_the_generators_as_they_were() -> None:
    def drawing(network: Any) -> str | None:
        return "unlucky" if float(torch.rand(())) < 0 else None

    screen, network = Screen("own", drawing, ("network",), None), torch.nn.Linear(1, 1)
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    assert screen.reason(network, torch.device("cpu")) is None
    assert torch.equal(torch.rand(4), wanted)


@pytest.mark.parametrize("lag", [1, 3])
@pytest.mark.parametrize("strategy", ["random", "regularized-evolution", "local-search"])
def test_a_resumed_search_is_the_same(screening: Any, strategy: str, lag: int) -> None:
    config = SMALL if strategy == "regularized-evolution" else {}
    store = screening.store()

    def search(name: str, every: int | None, *kinds: type) -> list[tuple[Any, ...]]:
        spec = screening.spec(strategy=strategy, lag=lag, strategy_config=config)
        study = store.study_or_new(name, spec, StopAt(trials=10))
        for _ in range(100):
            heard: list[Event] = []

            def listener(event: Event, heard: list[Event] = heard) -> None:
                heard += [event] if isinstance(event, kinds) else []

            def stopping(heard: list[Event] = heard) -> bool:
                return every is not None and len(heard) >= every

            parts = screening.parts(spec)
            parts = replace(parts, space=Sound(), setting=replace(parts.setting, space=Sound()))
            if (
                Search(store, study, parts, listener=listener, stopping=stopping).run(StopAt(trials=10))
                != "interrupted"
            ):
                assert list(verify(store, study, parts)) == []
                return [plain(run) for run in store.trials(study, metrics=True)]
        raise AssertionError("it does not come to its end")

    wanted = search("whole", None)
    words = {verdict.reason.split(":")[0] for _, _, verdict, *_ in wanted if verdict.state == State.REJECTED}
    assert {"unsound", "quality"} <= words
    assert sum(verdict.state in (State.COMPLETE, State.FAILED) for _, _, verdict, *_ in wanted) == 10
    for every, kinds in ((1, (Finished,)), (2, (Finished, Reported)), (3, (Finished, Reported))):
        assert search(f"every-{every}", every, *kinds) == wanted


def test_where_all_are_rejected_the_shares_are_said(screening: Any) -> None:
    store = screening.store()
    study = screening.study(store)
    Search(store, study, screening.parts(study.spec, make=listed("baaa", "bbaa", "caaa"))).run(StopAt())
    with pytest.raises(Exception, match=r"rejected: blind 2 \(66\.7%, 1\.0 s\), quality 1 .*; loosen 'blind'"):
        best_trial(store, study)


class Vague(Edges):
    def unsound(self, arch: Architecture) -> str | None:
        return ""


class Hopeless(Edges):
    def unsound(self, arch: Architecture) -> str | None:
        return "flat"


def test_the_suite_of_spaces_knows_what_unsound_may_answer() -> None:
    found = list(suite.check(Vague(), {}))
    assert any(text.startswith("unsound: '' instead of a reason") for text in found)
    assert any("none is sound, so nothing was built" in text for text in suite.check(Hopeless(), {}))
    assert not any("unsound" in text for text in suite.check(Sound(), {}))
