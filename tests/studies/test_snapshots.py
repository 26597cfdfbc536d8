"""A resume repeats what came after the newest snapshot alone, and is the same search."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import strategies
from nas_core import refs
from nas_core.evaluation import Fidelity
from nas_core.records import StopAt
from nas_core.strategy import Outcome
from studies.analysis.verify import verify
from studies.records import Study
from studies.search import loop
from studies.search.loop import Search
from studies.search.replay import Recorded
from studies.search.workdirs import Workdirs
from studies.store import store as stores
from studies.store import tables
from studies.store.store import Store
from tests.memory import peak

EVERY = 7  # outcomes between two snapshots
FIRST, LAST = 29, 45  # told before the search is stopped, and at its end
NAMED = {"random": {}, "regularized-evolution": {}, "local-search": {}, "nsga2": {"population": 6}, "nsga3": {}}
NAMED |= {"ae-cnn": {"population": 6}, "hyperband": {}, "enqueue": {"inner": "local-search"}}


def counting(name: str) -> Any:
    """A strategy that counts what it is told."""
    kind = refs.find(name, strategies.BUILTIN, strategies.GROUP, "strategy")

    class Counting(kind):  # type: ignore[misc, valid-type]
        tells = 0

        def tell(self, outcome: Outcome) -> None:
            self.tells += 1
            super().tell(outcome)

    return Counting


def facts(store: Store, study: Study) -> list[str]:
    """Everything of every trial but when it was; as text, because nan is not nan."""
    runs = store.trials(study, metrics=True)
    return [repr(replace(run, id=0, started=None, ended=None)) for run in runs]


def remembered(search: Search) -> list[Any]:
    """What a search remembers beside its strategy."""
    known, history = search._duplicates, search._history
    return [
        *(known._evaluated, known._screened, known._rejected),
        *(history.evaluated, history.best, history.streak, history._best_budget),
        *(search.spent.total, search.spent._budgets, search.told, search.next),
        {number: holder for number, holder in search._workdirs._holders.items() if number not in search.pending},
        search._workdirs._kept - search.pending.keys(),
    ]


def until(search: Search, told: int) -> Search:
    search.stopping = lambda: search.told >= told
    search.run(StopAt())
    return search


@pytest.mark.parametrize(
    ("strategy", "order"),
    [*((strategy, "strict 1") for strategy in NAMED), ("local-search", "strict 3"), ("hyperband", "free 1")],
)
def test_a_resume_is_told_what_came_after_the_snapshot(
    bench: Any, monkeypatch: pytest.MonkeyPatch, strategy: str, order: str
) -> None:
    ordering, lag = order.split()
    bench.evaluator.fidelity = Fidelity("epoch", 1, 2, continues=True)
    given: dict[str, Any] = {"strategy": strategy, "strategy_config": NAMED[strategy], "lag": int(lag)}
    given |= {"ordering": ordering, "objectives": ("score:max", "other:min"), "constraints": ("params<=205",)}

    def opened(store: Store, study: Study) -> Search:
        parts = bench.parts(study.spec, make=counting(strategy))
        object.__setattr__(parts.setting, "fidelity", bench.evaluator.fidelity)
        return Search(store, study, parts)

    whole = bench.store("whole")
    study = bench.study(whole, **given)
    until(opened(whole, study), LAST)
    monkeypatch.setattr(loop, "SNAPSHOT_OUTCOMES", EVERY)
    with bench.store("parts") as store:
        study = bench.study(store, **given)
        first = until(opened(store, study), FIRST)
        again = opened(store, study)
        assert 0 < again.strategy.tells <= EVERY + again.study.spec.lag
        assert remembered(again) == remembered(first)
        until(again, LAST)
        assert facts(store, study) == facts(whole, whole.study("s"))
        parts = bench.parts(study.spec)
        object.__setattr__(parts.setting, "fidelity", bench.evaluator.fidelity)
        assert list(verify(store, study, parts)) == []
        store.write(lambda connection: connection.execute(tables.snapshots.delete()))
        told_all = opened(store, study)
        assert told_all.strategy.tells == told_all.told == again.told
        assert remembered(told_all) == remembered(again)
    whole.close()


def test_snapshots_are_further_apart_the_longer_a_search_is(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SNAPSHOT_OUTCOMES", 4)
    monkeypatch.setattr(loop, "SNAPSHOT_SHARE", 0.5)
    taken: list[int] = []
    monkeypatch.setattr(Store, "save_snapshot", lambda store, study, told, state: taken.append(told))
    with bench.store() as store:
        study = bench.study(store, strategy="regularized-evolution")
        until(Search(store, study, bench.parts(study.spec)), 70)
    assert taken == [4, 8, 16, 32, 64]


def test_a_replay_holds_a_page_of_trials(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PAGE", 50)
    peaks = []
    with bench.store() as store:
        study = bench.study(store, strategy="regularized-evolution")
        search = Search(store, study, bench.parts(study.spec))
        for trials in (200, 1_200):
            until(search, trials)

            def replayed(trials: int = trials) -> None:
                found = Recorded(store, study, None, Workdirs(store, study, None, keeps=False))
                assert sum(1 for _ in found.told()) == found.count == trials
                assert sum(1 for _ in found.after(0)) == trials

            replayed()  # compiles
            peaks.append(peak(replayed))
    assert peaks[1] < 1.3 * peaks[0]


def test_what_was_told_in_another_order_is_told_so_again(bench: Any) -> None:
    """With free workers outcomes come in any order; a study that was damaged may lack some."""
    with bench.store() as store:
        study = bench.study(store, strategy="random")
        until(Search(store, study, bench.parts(study.spec)), 12)
        order = [4, 0, 2, 1, 3, 9, 5, 6, 8, 7, 10, 11]
        r = tables.runs

        def shuffle(connection: Any) -> None:
            for number, position in enumerate(order):
                connection.execute(r.update().where(r.c.number == number).values(told=position))

        store.write(shuffle)
        for known in (0, 3, 12):
            found = Recorded(store, study, None, Workdirs(store, study, None, keeps=False))
            assert [told.number for told, *_ in found.told()] == [order.index(place) for place in range(12)]
            assert [one.number for one in found.after(known)] == [order.index(place) for place in range(known, 12)]
        store.write(lambda connection: connection.execute(r.update().where(r.c.told == 5).values(told=None)))
        found = Recorded(store, study, None, Workdirs(store, study, None, keeps=False))
        told = [order.index(place) for place in range(12) if place != 5]
        assert [one.number for one, *_ in found.told()] == told
        assert [one.number for one in found.after(0)] == told
        assert list(found.pending) == [order.index(5)]
        assert (found.count, found.next) == (11, 12)
