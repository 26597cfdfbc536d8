"""The best of a study is feasible, whoever is asked: the running search, its queries, its list, its front."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from nas_core.architecture import Architecture
from nas_core.config import Config
from nas_core.errors import InfeasibleError
from nas_core.records import StopAt
from nas_core.strategy import Proposal, State
from studies.analysis.queries import best_trial, front_trials, summaries
from studies.search.endings import REUSED_IN_A_ROW, Ending
from studies.search.loop import Search

TRIALS = 60
LIMIT = 2.5  # on the score, which is known only after an evaluation; the most d, three, score more


def test_it_is_feasible_everywhere(bench: Any) -> None:
    with bench.store() as store:
        study = bench.study(store, objectives=("other:max", "params:min"), constraints=(f"score<={LIMIT}",), seed=3)
        search = Search(store, study, bench.parts(study.spec))
        search.run(StopAt(trials=TRIALS))
        complete = [run for run in store.trials(study, metrics=True) if run.verdict.values is not None]
        feasible = [run for run in complete if run.metrics["score"] <= LIMIT]
        wanted = max(feasible, key=lambda run: (run.metrics["other"], -run.number))
        assert max(run.metrics["other"] for run in complete) > wanted.metrics["other"]  # an infeasible one is better
        assert search.best == (wanted.metrics["other"], wanted.number)
        assert best_trial(store, study).number == wanted.number
        assert [summary.best for summary in summaries(store)] == [wanted.metrics["other"]]
        front = front_trials(store, study)
        assert front[0].metrics["other"] == wanted.metrics["other"]
        assert all(run.metrics["score"] <= LIMIT for run in front)
        again = Search(store, study, bench.parts(study.spec))  # as a resume would see it
        assert again.best == search.best


def test_there_is_none_where_nothing_is_feasible(bench: Any) -> None:
    with bench.store() as store:
        study = bench.study(store, constraints=("other<=-1",))
        search = Search(store, study, bench.parts(study.spec))
        search.run(StopAt(trials=5))
        assert State.COMPLETE in {run.state for run in store.trials(study)}
        assert search.best is None
        for query in (best_trial, front_trials):
            with pytest.raises(InfeasibleError, match="satisfies other<=-1"):
                query(store, study)
        assert [summary.best for summary in summaries(store)] == [None]


class InTurn:
    """Proposes the same two candidates for ever: one that is reused, one that a limit rejects."""

    Config = Config

    def __init__(self, setting: Any, config: Any) -> None:
        self.space = setting.space

    def ask(self, number: int, pending: Any) -> Proposal:
        last = "ad"[number % 2]
        return Proposal(Architecture(self.space.name, {f"edge{n}": "a" if n < 3 else last for n in range(4)}))

    def tell(self, outcome: Any) -> None: ...


def test_a_search_ends_where_all_is_reused_or_rejected_again(bench: Any) -> None:
    with bench.store() as store:
        study = bench.study(store, constraints=("params<=50",))
        calls = count()
        search = Search(
            store, study, bench.parts(study.spec, make=InTurn), stopping=lambda: next(calls) > 10 * REUSED_IN_A_ROW
        )
        assert search.run(StopAt(trials=5)) == Ending.EXHAUSTED
        states = [run.state for run in store.trials(study)]
        assert states.count(State.REUSED) == REUSED_IN_A_ROW
        assert set(states) == {State.COMPLETE, State.REUSED, State.REJECTED}
