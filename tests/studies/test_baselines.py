"""Known architectures beside a search: evaluated as its candidates, stored with it, and told to nobody; and those that
are enqueued, which are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from scipy import stats

from nas_core.architecture import Architecture
from nas_core.errors import NotFoundError, UsageError
from nas_core.evaluation import Objective, Report
from nas_core.records import BASELINE, RETRAIN, Baseline, Run, StopAt, Verdict
from nas_core.space import known_by_name
from nas_core.strategy import Proposal, State
from nas_core.testing.strategy import check
from strategies.wrappers.enqueue import Enqueue
from studies.address import Address, address_of, parse, parse_trial
from studies.analysis.baselines import compare, welch
from studies.analysis.queries import addressed_trial, evaluated
from studies.analysis.verify import verify
from studies.events import Counted, Event, Finished, Reported, Started
from studies.executors.inline import Inline
from studies.search.baselines import Baselines
from studies.search.endings import Ending
from studies.search.loop import Search
from tests.studies.conftest import Edges
from tests.studies.test_screens import Screening

NAMES = {"all-a": "aaaa", "fails": "bbba", "large": "dddd", "mixed": "adab", "screened": "caaa"}


def arch(word: str) -> Architecture:
    return Architecture("edges", {f"edge{n}": letter for n, letter in enumerate(word)})


class Named(Edges):
    named: ClassVar[Mapping[str, Architecture]] = {name: arch(word) for name, word in NAMES.items()}


def known(space: Edges, *names: str) -> list[Baseline]:
    return [Baseline(name, one, space.identity(one)) for name, one in known_by_name(space, names).items()]


@pytest.fixture
def named(bench: Any) -> Any:
    bench.space = Named()
    return bench


def run(
    named: Any,
    store: Any,
    study: Any,
    stop_after: int | None = None,
    heard: Callable[[Event], None] = lambda event: None,
    kinds: tuple[type, ...] = (Started, Reported, Finished),
) -> Ending | None:
    """Evaluate the baselines; stop after so many events."""
    count = 0

    def listener(event: Event) -> None:
        nonlocal count
        count += isinstance(event, kinds)
        heard(event)

    parts = named.parts(study.spec)
    return Baselines(
        *(store, study, parts, Inline(parts.evaluator)),
        listener=listener,
        stopping=lambda: stop_after is not None and count >= stop_after,
    ).run()


def plain(runs: list[Run]) -> list[tuple[Any, ...]]:
    return [(one.number, one.recipe, one.arch, one.verdict, repr(one.metrics), one.told) for one in runs]


def test_they_are_evaluated_whatever_becomes_of_them(named: Any) -> None:
    named.evaluator = Screening()
    store, heard = named.store(), []
    spec = named.spec(constraints=("params<=100",))
    study = store.study_or_new("s", spec, StopAt(), baselines=known(named.space, "all-a", "large", "screened"))
    assert run(named, store, study, heard=heard.append) is None
    runs = store.runs(study, BASELINE)
    assert [(one.number, one.recipe, one.told) for one in runs] == [
        (1, {"name": "all-a"}, None),
        (2, {"name": "large"}, None),
        (3, {"name": "screened"}, None),
    ]
    assert [one.state for one in runs] == [State.COMPLETE, State.COMPLETE, State.REJECTED]
    assert runs[1].verdict.violations == (3.0,)
    assert (runs[2].verdict.reason, runs[2].verdict.seconds, runs[2].metrics["score"]) == (
        "quality: too low", 0.1, pytest.approx(1.0, abs=0.01),
    )  # fmt: skip
    assert [(event.done, event.total) for event in heard if isinstance(event, Counted)] == [
        (0, 3), (1, 3), (2, 3), (3, 3),
    ]  # fmt: skip
    assert {event.kind for event in heard if not isinstance(event, Counted)} == {BASELINE}
    assert not store.folder(study, runs[0]).exists()


def test_their_seeds_do_not_depend_on_the_order(named: Any) -> None:
    store = named.store()
    for name, order in (("one", ("all-a", "mixed")), ("other", ("mixed", "all-a"))):
        run(named, store, store.study_or_new(name, named.spec(), StopAt(), baselines=known(named.space, *order)))
    one, other = (store.runs(store.study(name), BASELINE) for name in ("one", "other"))
    assert {run.arch: run.metrics for run in one} == {run.arch: run.metrics for run in other}


@pytest.mark.parametrize("strategy", ["regularized-evolution", "local-search"])
def test_a_search_is_the_same_with_and_without(named: Any, strategy: str) -> None:
    store = named.store()
    found = {}
    for name, names in (("without", ()), ("with", ("all-a", "mixed", "fails"))):
        spec = named.spec(strategy=strategy)
        study = store.study_or_new(name, spec, StopAt(), baselines=known(named.space, *names))
        assert run(named, store, study) is None
        search = Search(store, study, named.parts(spec))
        search.run(StopAt(trials=15))
        found[name] = plain(list(store.trials(study, metrics=True)))
        assert evaluated(store, study) == search.evaluated == 15
        assert list(verify(store, study, named.parts(spec))) == []
    assert found["with"] == found["without"]


def test_stopped_after_every_event_they_come_to_the_same(named: Any) -> None:
    store, names = named.store(), ("all-a", "mixed", "fails", "large")
    whole = store.study_or_new("whole", named.spec(), StopAt(), baselines=known(named.space, *names))
    run(named, store, whole)
    for every, kinds in ((1, (Finished,)), (3, (Started, Reported, Finished))):
        study = store.study_or_new(f"every-{every}", named.spec(), StopAt(), baselines=known(named.space, *names))
        for _ in range(20):
            ending = run(named, store, study, every, kinds=kinds)
            if ending is None:
                break
            assert ending == Ending.INTERRUPTED
        assert plain(store.runs(study, BASELINE)) == plain(store.runs(whole, BASELINE))
        assert all(one.tries == 0 for one in store.runs(study, BASELINE))


def test_stopping_in_good_order_is_no_attempt(named: Any) -> None:
    """However often: only an evaluation that ends without a word is tried so many times."""
    store = named.store()
    study = store.study_or_new("s", named.spec(), StopAt(), baselines=known(named.space, "all-a"))
    for _ in range(5):
        assert run(named, store, study, 1, kinds=(Started,)) == Ending.INTERRUPTED
        assert [one.tries for one in store.runs(study, BASELINE)] == [0]
    assert run(named, store, study) is None
    assert [one.state for one in store.runs(study, BASELINE)] == ["complete"]


def test_more_are_added_and_none_twice(named: Any) -> None:
    store = named.store()
    study = store.study_or_new("s", named.spec(), StopAt(), baselines=known(named.space, "all-a"))
    run(named, store, study)
    store.add_baselines(study, known(named.space, "mixed", "all-a"))
    assert [(one.number, one.state) for one in store.runs(study, BASELINE)] == [(1, "complete"), (2, "waiting")]
    same = store.study_or_new("s", named.spec(), StopAt(), baselines=known(named.space, "large"))
    assert len(store.runs(same, BASELINE)) == 2  # a study that is there is left as it is


def test_names() -> None:
    space = Named()
    assert list(known_by_name(space, ("mixed", "all-a"))) == ["mixed", "all-a"]
    assert list(known_by_name(space, ("named",))) == list(NAMES)
    assert known_by_name(Edges(), ()) == {}
    for names, message in ((("mixt",), "did you mean 'mixed'"), (("mixed", "mixed"), "'mixed' is named twice")):
        with pytest.raises(UsageError, match=message):
            known_by_name(space, names)
    with pytest.raises(UsageError, match="space 'edges' knows no architecture by name; leave out 'x'"):
        known_by_name(Edges(), ("x",))


def trained(store: Any, study: Any, run: Run, *values: float, recipe: str = "r") -> None:
    for number, value in enumerate(values, 1):
        one = store.propose(
            *(study, number, run.proposal, run.identity, Verdict(State.RUNNING)),
            kind=RETRAIN,
            parent=run.id,
            repeat=number,
            recipe={"recipe_name": recipe},
        )
        store.finish(one, Verdict(State.COMPLETE), Report(1, {"score": value}))


def test_comparisons(named: Any) -> None:
    store = named.store()
    study = store.study_or_new("s", named.spec(), StopAt(), baselines=known(named.space, "all-a", "mixed", "fails"))
    run(named, store, study)
    Search(store, study, named.parts(study.spec)).run(StopAt(trials=1))
    best, (first, second, third) = store.trial(study, 0), store.runs(study, BASELINE)
    objectives = (Objective("score", "max"), Objective("other", "min"))
    score, other = compare(store, best, first, objectives)
    assert (score.difference, score.interval, score.seeds) == (
        best.metrics["score"] - first.metrics["score"],
        None,
        (1, 1),
    )
    assert score.says == ("better" if score.difference > 0 else "worse")  # type: ignore[operator]
    assert other.says == {0: "no difference", 1: "worse"}[int(other.difference > 0)]  # type: ignore[operator]
    assert [one.says for one in compare(store, best, third, objectives)] == ["unknown", "unknown"]
    trained(store, study, best, 0.5, 0.7, 0.6)
    trained(store, study, first, 0.1, 0.2)
    trained(store, study, second, 0.55, 0.64, recipe="another")
    (score,) = compare(store, best, first, objectives[:1])
    assert (score.says, score.seeds, score.value, score.best) == ("better", (3, 2), pytest.approx(0.15), 0.6)
    assert score.interval is not None
    assert score.interval[0] > 0
    assert compare(store, best, second, objectives[:1])[0].interval is None  # of other settings
    trained(store, study, second, 0.5, 0.8)
    assert compare(store, best, second, objectives[:1])[0].says == "no difference"
    assert compare(store, first, best, [Objective("score", "min")])[0].says == "better"


def test_the_interval_is_welchs() -> None:
    one, other = [0.61, 0.7, 0.64, 0.69], [0.5, 0.66]
    difference, half = welch(one, other)
    wanted = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert (difference - half, difference + half) == (pytest.approx(wanted.low), pytest.approx(wanted.high))
    assert welch([0.5, 0.5], [0.25, 0.25]) == (0.25, 0.0)


def test_addresses(named: Any) -> None:
    store = named.store()
    study = store.study_or_new("b/s/1", named.spec(), StopAt(), baselines=known(named.space, "mixed"))
    (baseline,) = store.runs(study, BASELINE)
    assert address_of(study, baseline) == "b/s/1/baseline-1"
    assert addressed_trial(store, "b/s/1/baseline-1") == (study, baseline)
    trained(store, study, baseline, 0.5)
    text = address_of(study, baseline, store.children(baseline, RETRAIN)[0])
    assert text == "b/s/1/baseline-1/train-1"
    assert parse(text) == Address("b/s/1", None, RETRAIN, 1, 1)
    assert str(parse(text)) == text
    with pytest.raises(NotFoundError, match="has no baseline 2; it has 1"):
        addressed_trial(store, "b/s/1/baseline-2")
    with pytest.raises(UsageError, match="is a baseline; a study or trial is needed here"):
        parse_trial("s/baseline-1")


def test_what_is_enqueued_comes_first_and_is_told(named: Any) -> None:
    config = {"names": ["mixed", "all-a", "large"], "inner_config": {"population": 4, "sample": 2}}
    for lag in (1, 3):
        store = named.store(f"lag-{lag}")
        study = named.study(store, strategy="enqueue", strategy_config=config, lag=lag)
        search = Search(store, study, named.parts(study.spec))
        search.run(StopAt(trials=8))
        runs = list(store.trials(study))
        assert [one.arch for one in runs[:3]] == [arch(NAMES[name]) for name in ("mixed", "all-a", "large")]
        assert [one.note["role"] for one in runs[:6]] == ["founder"] * 4 + ["child"] * 2
        assert runs[0].told == 0
        assert list(verify(store, study, named.parts(study.spec))) == []
        again = Search(store, study, named.parts(study.spec))
        assert again.strategy.ask(99, []) == search.strategy.ask(99, [])


@pytest.mark.parametrize("inner", ["regularized-evolution", "local-search", "hyperband", "random"])
def test_the_contract_of_strategies(inner: str) -> None:
    def make(setting: Any) -> Any:
        return Enqueue(setting, Enqueue.Config(names=("mixed", "all-a", "large"), inner=inner))

    assert list(check(make, Named(), 20, 3)) == []


def test_proposals_are_those_of_a_new_inner_strategy(named: Any) -> None:
    spec = named.spec(strategy="enqueue", strategy_config={"names": ["mixed"], "inner": "random"})
    parts = named.parts(spec)
    strategy = parts.make_strategy()
    assert strategy.ask(0, []) == Proposal(arch(NAMES["mixed"]))
    assert replace(parts, space=Edges()).make_strategy().ask(0, []).arch == arch(NAMES["mixed"])
