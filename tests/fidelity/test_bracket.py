"""Brackets: rungs, the bracket table, promotions, what the inner strategy sees, resumption, and figures on a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.config import Config as BaseConfig
from nas_core.config import validate
from nas_core.evaluation import Constraint, Context, Fidelity, Objective
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, Snapshots, State
from nas_core.testing.findings import Reference
from nas_core.testing.strategy import check, check_fresh
from strategies.basic.random_search import RandomSearch
from strategies.multi_fidelity.asha import Asha
from strategies.multi_fidelity.bracket import Bracket
from strategies.multi_fidelity.hyperband import Hyperband, plans
from strategies.multi_fidelity.successive_halving import SuccessiveHalving
from studies.store.snapshots import pack, unpack

EPOCHS = Fidelity("epoch", 1, 81, continues=True)
QUALITY = (Objective("quality", "max"),)
BRACKETS: list[type[Bracket]] = [SuccessiveHalving, Hyperband, Asha]
Judge = Callable[[Proposal], tuple[float, ...] | None]


class Row(SearchSpace):
    """10,000 candidates."""

    name = "row"
    tasks = frozenset({"image-classification"})
    choices = (Choice("x", tuple(range(100))), Choice("y", tuple(range(100))))


class Few(SearchSpace):
    """Seven candidates."""

    name = "few"
    tasks = frozenset({"image-classification"})
    choices = (Choice("x", tuple(range(7))),)


class InOrder:
    """An inner strategy that proposes (0, 0), (0, 1), ... and remembers what it saw."""

    class Config(BaseConfig):
        pass

    def __init__(self, setting: Setting, config: Config) -> None:
        self.setting = setting
        self.told: list[Outcome] = []
        self.pending: list[Sequence[Pending]] = []

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        self.pending.append(tuple(pending))
        place = len(self.told) + len(pending)
        return Proposal(Architecture("row", {"x": place // 100, "y": place % 100}), note={"place": place})

    def tell(self, outcome: Outcome) -> None:
        self.told.append(outcome)


class Remembering(InOrder):
    """The same with snapshots."""

    def state_dict(self) -> dict[str, Any]:
        return {"places": len(self.told)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.told = [Outcome(0, Proposal(Architecture("row", {})), State.FAILED, None)] * state["places"]


class OutAtFive(InOrder):
    """Has nothing to propose for number 5, and goes on afterwards."""

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        if number == 5:
            raise Exhausted("nothing now")
        return super().ask(number, pending)


IN_ORDER, REMEMBERING, OUT_AT_FIVE = (f"{__file__}:{name}" for name in ("InOrder", "Remembering", "OutAtFive"))


def make(
    kind: type[Bracket], fidelity: Fidelity | None = EPOCHS, space: SearchSpace | None = None, **config: Any
) -> Any:
    setting = Setting(
        space or Row(), 3, config.pop("objectives", QUALITY), config.pop("constraints", ()), fidelity=fidelity
    )
    return kind(setting, validate(kind.Config, config, "strategy"))


def place(proposal: Proposal) -> int:
    return 100 * int(proposal.arch.values["x"]) + int(proposal.arch.values["y"])


def play(strategy: Any, judge: Judge, trials: int, lag: int = 1) -> list[Outcome]:
    """Outcomes in the order of their tells; at most `lag` trials in flight, the oldest ends first."""
    told: list[Outcome] = []
    pending: list[Pending] = []
    number = 0
    while len(told) < trials:
        found = None
        if number < trials:
            try:
                found = strategy.ask(number, tuple(pending))
            except Exhausted:
                if not pending:
                    return told
        if found is not None:
            pending.append(Pending(number, found))
            number += 1
        if pending and (found is None or len(pending) >= lag):
            trial = pending.pop(0)
            values = judge(trial.proposal)
            state = State.FAILED if values is None else State.COMPLETE
            told.append(Outcome(trial.number, trial.proposal, state, values))
            strategy.tell(told[-1])
    return told


def budgets_of(outcomes: Sequence[Outcome]) -> dict[float, int]:
    return dict(sorted(Counter(outcome.proposal.budget or 0.0 for outcome in outcomes).items()))


def good(proposal: Proposal) -> tuple[float, ...]:
    """A value without any order by place or budget."""
    return (float(generator("good", place(proposal)).random()),)


# -- synchronous brackets -------------------------------------------------------------------------------------


def test_hyperband_bracket_table() -> None:
    """The card's table for R = 81, eta = 3: candidates and budget of every rung."""
    table = [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]
    assert plans(5, 3) == ((0, 81), (1, 34), (2, 15), (3, 8), (4, 5))
    trials = sum(count for bracket in table for count, _ in bracket)
    outcomes = play(make(Hyperband), good, trials + 81)
    for index, bracket in enumerate(table):
        mine = [outcome for outcome in outcomes if outcome.proposal.note["bracket"] == index]
        assert budgets_of(mine) == {budget: count for count, budget in bracket}
    again = [outcome for outcome in outcomes if outcome.proposal.note["bracket"] == 5]
    assert budgets_of(again) == {1: 81}  # and from the beginning


def test_hyperband_cost_of_a_round() -> None:
    """R = 27, eta = 3: four brackets of 108, 99, 108 and 108 units without continuation."""
    outcomes = play(make(Hyperband, Fidelity("epoch", 1, 27)), good, 40 + 17 + 8 + 4)
    costs: Counter[int] = Counter()
    for outcome in outcomes:
        costs[int(outcome.proposal.note["bracket"])] += int(outcome.proposal.budget or 0)
    assert list(costs.values()) == [108, 99, 108, 108]


def test_halving_finds_the_best_of_curves_that_do_not_cross() -> None:
    """The card: a_i - b / t, s = 4: the true best is the one that is left, 405 units are paid."""
    limits = generator("limits").permutation(81)
    outcomes = play(make(SuccessiveHalving, inner=IN_ORDER), lambda p: (limits[place(p)] - 5.0 / (p.budget or 0),), 121)
    assert budgets_of(outcomes) == {1: 81, 3: 27, 9: 9, 27: 3, 81: 1}
    assert sum(outcome.proposal.budget or 0 for outcome in outcomes) == 405
    assert place(outcomes[-1].proposal) == limits.argmax()
    for budget, kept in ((3, 27), (9, 9), (27, 3)):
        climbed = {limits[place(o.proposal)] for o in outcomes if o.proposal.budget == budget}
        assert climbed == set(range(81 - kept, 81))


@pytest.mark.parametrize("lag", [1, 2, 5, 40])
@pytest.mark.parametrize("kind", [SuccessiveHalving, Hyperband])
def test_a_rung_waits_for_the_one_below_whatever_is_in_flight(kind: type[Bracket], lag: int) -> None:
    """With any lag the same candidates climb, in the same order, and each once."""
    one, many = (play(make(kind, inner=IN_ORDER), good, 203, lag) for lag in (1, lag))
    assert [(o.proposal.arch, o.proposal.budget) for o in one] == [(o.proposal.arch, o.proposal.budget) for o in many]


def test_all_of_a_rung_can_be_in_flight_at_once() -> None:
    strategy = make(SuccessiveHalving, inner=IN_ORDER)
    number = 0
    for count in (81, 27, 9, 3, 1):
        pending: list[Pending] = []
        while (proposal := strategy.ask(number, pending)) is not None:
            pending.append(Pending(number, proposal))
            number += 1
        assert len(pending) == count
        for trial in pending:
            strategy.tell(Outcome(trial.number, trial.proposal, State.COMPLETE, good(trial.proposal)))
    assert strategy.ask(number, ()).note == {"bracket": 1, "rung": 0, "place": 81}


def test_a_bracket_that_goes_on_with_what_it_has_takes_in_no_more() -> None:
    """Five candidates instead of nine: one climbs, to the top, and the next bracket is as large as ever."""
    outcomes = play(make(SuccessiveHalving, Fidelity("epoch", 1, 9), inner=OUT_AT_FIVE), good, 7 + 13)
    assert [outcome.proposal.budget for outcome in outcomes] == [1] * 5 + [3, 9] + [1] * 9 + [3] * 3 + [9]


def test_failures_are_replaced_at_the_bottom_and_lost_above() -> None:
    """Nine of the lowest rung must be comparable; a candidate that fails higher up is not tried again."""

    def judge(proposal: Proposal) -> tuple[float, ...] | None:
        failing = place(proposal) % 2 if proposal.budget == 1 else place(proposal) == 16
        return None if failing else (float(place(proposal)),)

    outcomes = play(make(SuccessiveHalving, Fidelity("epoch", 1, 9), inner=IN_ORDER), judge, 17 + 3 + 1)
    assert [place(o.proposal) for o in outcomes if o.proposal.budget == 1] == list(range(17))
    assert [place(o.proposal) for o in outcomes if o.proposal.budget == 3] == [16, 14, 12]
    assert [place(o.proposal) for o in outcomes if o.proposal.budget == 9] == [14]


def test_a_bracket_whose_promotions_all_fail_is_over() -> None:
    outcomes = play(
        make(SuccessiveHalving, Fidelity("epoch", 1, 9)), lambda p: (1.0,) if p.budget == 1 else None, 9 + 3 + 1
    )
    assert budgets_of(outcomes) == {1: 10, 3: 3}
    assert outcomes[-1].proposal.note == {"bracket": 1, "rung": 0}


@pytest.mark.parametrize("lag", [1, 3])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (SuccessiveHalving, {1: 7, 3: 2, 9: 1}),  # seven of nine: floor(7/3), and one at the top
        (Asha, {1: 7, 3: 2}),
        (Hyperband, {1: 7, 3: 2 + 7, 9: 1 + 2 + 7}),  # one inner strategy for every start
    ],
)
def test_exhaustion_lets_what_is_left_climb(kind: type[Bracket], expected: dict[float, int], lag: int) -> None:
    outcomes = play(make(kind, Fidelity("epoch", 1, 9), Few()), lambda p: (float(p.arch.values["x"]),), 99, lag)
    assert budgets_of(outcomes) == expected
    assert sorted(o.proposal.arch.values["x"] for o in outcomes if o.proposal.note["rung"] == 0) == list(range(7))


# -- the asynchronous bracket ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("sign", "expected"), [(-1, (3, 1, 0)), (1, (7, 5, 3))])
def test_asha_promotions_of_nine_with_one_worker(sign: int, expected: tuple[int, ...]) -> None:
    """The card: results that arrive best first promote (3, 1, 0) by rung, worst first (7, 5, 3)."""
    strategy = make(Asha, inner=IN_ORDER)
    outcomes: list[Outcome] = []
    while (proposal := strategy.ask(len(outcomes), ())).note["rung"] or place(proposal) < 9:
        outcomes.append(Outcome(len(outcomes), proposal, State.COMPLETE, (float(sign * place(proposal)),)))
        strategy.tell(outcomes[-1])
    rungs = Counter(outcome.proposal.note["rung"] for outcome in outcomes)
    assert (rungs[0], rungs[1], rungs[2], rungs[3]) == (9, *expected)


@pytest.mark.parametrize("lag", [1, 4, 9])
def test_asha_keeps_its_rule_at_every_ask(lag: int) -> None:
    """A promotion is among the best third of its rung and the highest possible; no candidate climbs twice."""
    strategy = make(Asha, inner=IN_ORDER)
    told: list[Outcome] = []
    climbed: set[int] = set()

    class Watched:
        def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
            found = strategy.ask(number, pending)
            if found is None:
                return None
            rungs = [[o for o in told if o.proposal.note["rung"] == rung and o.values] for rung in range(5)]
            best = [sorted(rung, key=lambda o: (-(o.values or (0,))[0], o.number))[: len(rung) // 3] for rung in rungs]
            possible = [rung for rung in range(4) if any(entry.number not in climbed for entry in best[rung])]
            assert found.note["rung"] == (max(possible) + 1 if possible else 0)
            if possible:
                first = next(entry for entry in best[max(possible)] if entry.number not in climbed)
                assert (found.note["promotes"], found.arch) == (first.number, first.proposal.arch)
                climbed.add(first.number)
            return found

        def tell(self, outcome: Outcome) -> None:
            told.append(outcome)
            strategy.tell(outcome)

    outcomes = play(Watched(), lambda p: None if place(p) % 7 == 3 else good(p), 300, lag)
    assert {outcome.proposal.note["rung"] for outcome in outcomes} == {0, 1, 2, 3, 4}


# -- what all share -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BRACKETS)
@pytest.mark.parametrize("continues", [True, False])
def test_promotions_continue_only_where_the_evaluator_can(kind: type[Bracket], continues: bool) -> None:
    outcomes = play(make(kind, Fidelity("epoch", 1, 27, continues=continues)), good, 150, lag=3)
    by_number = {outcome.number: outcome for outcome in outcomes}
    promotions = [outcome for outcome in outcomes if "promotes" in outcome.proposal.note]
    assert promotions
    for outcome in promotions:
        source = by_number[int(outcome.proposal.note["promotes"])]
        assert outcome.proposal.continues == (source.number if continues else None)
        assert outcome.proposal.arch == source.proposal.arch
        assert outcome.proposal.note["rung"] == source.proposal.note["rung"] + 1
        assert outcome.proposal.budget == 3 * (source.proposal.budget or 0)
    assert all(outcome.proposal.continues is None for outcome in outcomes if outcome not in promotions)


@pytest.mark.parametrize("kind", BRACKETS)
def test_an_inner_strategy_sees_its_own_candidates_at_one_budget(kind: type[Bracket]) -> None:
    strategy = make(kind, Fidelity("epoch", 1, 9, continues=True), inner=IN_ORDER)
    outcomes = play(strategy, good, 90, lag=4)
    inners = [inner.strategy for inner in strategy.inners]
    entered = [outcome for outcome in outcomes if "promotes" not in outcome.proposal.note]
    assert len(inners) == (3 if kind is Hyperband else 1)
    for rung, inner in enumerate(inners):
        mine = [outcome for outcome in entered if outcome.proposal.note["rung"] == rung]
        assert len(mine) > 2
        assert inner.setting.fidelity is None
        assert [(o.number, o.values, o.state) for o in inner.told] == [(o.number, o.values, o.state) for o in mine]
        numbers = {outcome.number for outcome in mine}
        for seen in (*inner.told, *(trial for pending in inner.pending for trial in pending)):
            assert seen.number in numbers
            assert seen.proposal == Proposal(seen.proposal.arch, note={"place": place(seen.proposal)})
    assert any(len(pending) > 1 for pending in inners[0].pending)


def test_reused_outcomes_climb_and_pruned_rejected_and_empty_ones_do_not() -> None:
    strategy = make(Asha, Fidelity("epoch", 1, 9), eta=2, inner=IN_ORDER, constraints=(Constraint("size", "<=", 1.0),))
    states = [State.REUSED, State.PRUNED, State.REJECTED, State.REUSED, State.FAILED, State.COMPLETE]
    for number, state in enumerate(states):
        proposal = strategy.ask(number, ())
        assert proposal.note["rung"] == 0
        values = None if number in (2, 3, 4) else (float(number),)
        violations = () if state is State.FAILED else (1.0 if state is State.REJECTED else 0.0,)
        strategy.tell(Outcome(number, proposal, state, values, violations))
    assert [entry.number for entry in strategy.rungs[0].entries] == [5, 0]
    assert strategy.ask(6, ()).note == {"bracket": 0, "rung": 1, "promotes": 5}


def test_feasible_candidates_climb_first_then_those_that_violate_least() -> None:
    strategy = make(Asha, eta=2, inner=IN_ORDER, constraints=(Constraint("quality", ">=", 5.0),))
    for number, (value, violation) in enumerate([(9.0, 2.0), (1.0, 0.0), (8.0, 1.0), (2.0, 0.0), (2.0, 0.0)]):
        strategy.tell(Outcome(number, strategy.inners[0].ask(number, (), 0), State.COMPLETE, (value,), (violation,)))
    assert [entry.number for entry in strategy.rungs[0].entries] == [3, 4, 1, 2, 0]


def test_with_several_objectives_the_less_dominated_climb() -> None:
    objectives = (Objective("quality", "max"), Objective("latency", "min"))
    strategy = make(Asha, eta=2, inner=IN_ORDER, objectives=objectives)
    points = [(1.0, 1.0), (3.0, 0.0), (2.0, 2.0), (0.0, 0.5), (2.0, 2.0), (0.0, 3.0)]
    for number, values in enumerate(points):
        strategy.tell(Outcome(number, strategy.inners[0].ask(number, (), 0), State.COMPLETE, values))
    assert [entry.number for entry in strategy.rungs[0].entries] == [1, 2, 4, 5, 0, 3]  # beaten by 0 0 0 0 2 3


@pytest.mark.parametrize("kind", BRACKETS)
@pytest.mark.parametrize("inner", ["random", IN_ORDER, REMEMBERING])
def test_a_search_goes_on_from_its_middle(kind: type[Bracket], inner: str) -> None:
    """After a replay of any part of the tells, and from a stored snapshot, the rest is the same search."""
    fidelity = Fidelity("epoch", 1, 9, continues=True)
    whole = make(kind, fidelity, inner=inner)
    told: list[Outcome] = []
    asked: list[Proposal] = []
    states: list[tuple[str, bytes]] = []
    assert isinstance(whole, Snapshots) == (inner != IN_ORDER)
    for number in range(60):
        if isinstance(whole, Snapshots):
            states.append(pack(whole.state_dict()))
        asked.append(whole.ask(number, ()))
        told.append(Outcome(number, asked[-1], State.COMPLETE, good(asked[-1])))
        whole.tell(told[-1])
    for middle in (0, 31, 52):
        replayed = [make(kind, fidelity, inner=inner)]
        for outcome in told[:middle]:
            replayed[0].tell(outcome)
        if states:
            replayed.append(make(kind, fidelity, inner=inner))
            replayed[1].load_state_dict(unpack(*states[middle]))
        for strategy in replayed:
            for number in range(middle, 60):
                assert strategy.ask(number, ()) == asked[number]
                strategy.tell(told[number])


@pytest.mark.parametrize("kind", BRACKETS)
def test_snapshots_keep_the_contract(kind: type[Bracket], tmp_path: Path) -> None:
    """The suite with an inner strategy that has snapshots, in this interpreter and in another."""
    (tmp_path / "inner.py").write_text(DRAWS, encoding="utf-8")
    (tmp_path / "space.py").write_text(SPACE, encoding="utf-8")
    config = {"inner": f"{tmp_path / 'inner.py'}:Draws"}
    space = Reference(f"{tmp_path / 'space.py'}:Small")
    made = validate(kind.Config, config, "strategy")
    assert list(check(lambda setting: kind(setting, made), space.load(), trials=30)) == []
    strategy = Reference(f"{kind.__module__}:{kind.__name__}")
    assert list(check_fresh((strategy, space, config))) == []


DRAWS = """
from nas_core import moves
from nas_core.config import Config as BaseConfig
from nas_core.seeds import generator
from nas_core.strategy import Proposal
class Draws:
    class Config(BaseConfig):
        pass
    def __init__(self, setting, config):
        self.setting, self.count, self.sum = setting, 0, 0.0
    def ask(self, number, pending):
        rng = generator(self.setting.seed, number, self.count, repr(self.sum), len(pending))
        return Proposal(moves.sample(self.setting.space, rng), note={"rung_of_mine": self.count})
    def tell(self, outcome):
        self.count += 1
        self.sum += sum(outcome.values or ())
    def state_dict(self):
        return {"count": self.count, "sum": self.sum}
    def load_state_dict(self, state):
        self.count, self.sum = state["count"], state["sum"]
"""
SPACE = """
from nas_core.choice import Choice
from nas_core.space import SearchSpace
class Small(SearchSpace):
    name = "small"
    tasks = frozenset({"image-classification"})
    choices = (Choice("a", tuple(range(20))), Choice("b", tuple(range(20))))
"""


# -- a table --------------------------------------------------------------------------------------------------


def spend(strategy: Any, look_up: Callable[[Proposal], float], identity: Callable[[Architecture], str]) -> float:
    """The best value at the full budget after a spend of 100 full evaluations; what is known costs nothing."""
    known: dict[tuple[str, float], float] = {}
    spent, number, best = 0.0, 0, -math.inf
    while True:
        proposal = strategy.ask(number, ())
        budget = proposal.budget or 200.0
        key = (identity(proposal.arch), budget)
        state = State.REUSED if key in known else State.COMPLETE
        if key not in known:
            spent += budget / 200
            if spent > 100 + 1e-9:
                return best
            known[key] = look_up(proposal)
        if budget == 200:
            best = max(best, known[key])
        strategy.tell(Outcome(number, proposal, state, (known[key],)))
        number += 1


@pytest.mark.parametrize(
    ("data", "seeds"),
    [("cifar100", 40), *(pytest.param(data, 60, marks=pytest.mark.slow) for data in ("cifar10", "cifar100"))],
)
def test_brackets_beat_random_search_at_equal_cost(benches: Any, data: str, seeds: int) -> None:
    """NAS-Bench-201 with both schedules, at a spend of 100 full evaluations: a paired test over the seeds."""
    from scipy.stats import ttest_rel

    bench = benches[data]

    def look_up(proposal: Proposal) -> float:
        (report,) = bench.table.evaluate(proposal, proposal.budget, Context(0, Path()))
        return 100 * float(report.metrics["val_accuracy"])

    def best(kind: Any) -> list[float]:
        found = []
        for seed in range(seeds):
            setting = Setting(bench.space, seed, QUALITY, (), bench.table.identity, bench.table.fidelity)
            found.append(spend(kind(setting, kind.Config()), look_up, bench.table.identity))
        return found

    uninformed = best(RandomSearch)
    for kind in BRACKETS:
        assert ttest_rel(best(kind), uninformed, alternative="greater").pvalue < 0.01
