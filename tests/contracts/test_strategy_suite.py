"""The strategy suite finds nothing in a good strategy, and each of its checks catches the defect it is there for."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, Field

from nas_core import moves, pareto
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.config import Config as BaseConfig
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, State
from nas_core.testing.findings import Reference
from nas_core.testing.strategy import SCENARIOS, SCREENED, History, Scenario, check, check_fresh, simulate


class Toy(SearchSpace):
    """63 architectures, one conditional and one coupled choice; the identity drops `tint`."""

    name = "toy"
    tasks = frozenset({"image-classification"})
    choices = (
        Choice("a", tuple(range(7)), ordered=True),
        Choice("b", ("x", "y")),
        Choice("c", (0, 1, 2), when=(When("b", ("y",)),)),
        Choice("tint", (False, True)),
    )

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        return choice.options[: 1 + int(prefix["a"])] if choice.name == "c" else choice.options

    def identity(self, arch: Architecture) -> str:
        return " ".join(f"{name}={value}" for name, value in arch.values.items() if name != "tint")


SPACE = Toy()


class Good:
    """Evolution in its simplest form: mutate the best of what was told."""

    class Config(BaseConfig):
        founders: int = Field(4, ge=1, description="random proposals at the start")

    def __init__(self, setting: Setting, config: Config) -> None:
        self.setting = setting
        self.config = config
        self.told: list[Outcome] = []

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        rng = generator(self.setting.seed, number)
        if len(self.told) + len(pending) < self.config.founders or not self.told:
            return Proposal(moves.sample(self.setting.space, rng), note={"role": "founder"})
        parent = pareto.best(self.told)
        return Proposal(moves.mutate(self.setting.space, parent.proposal.arch, rng), note={"of": parent.number})

    def tell(self, outcome: Outcome) -> None:
        self.told.append(outcome)


class WithSnapshots(Good):
    def state_dict(self) -> dict[str, Any]:
        return {"told": self.told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.told = list(state["told"])


def findings(kind: type[Any]) -> str:
    return "\n".join(check(lambda setting: kind(setting, kind.Config()), SPACE, trials=30))


@pytest.mark.parametrize("kind", [Good, WithSnapshots])
def test_nothing_is_found_in_a_good_strategy(kind: type[Any]) -> None:
    assert findings(kind) == ""


class LooseConfig(Good):
    class Config(BaseModel):  # type: ignore[assignment]
        model_config = ConfigDict(frozen=True)
        founders: int = Field(4, description="random proposals at the start")


class MutableConfig(Good):
    class Config(Good.Config):
        model_config = ConfigDict(frozen=False)


class UndescribedConfig(Good):
    class Config(Good.Config):
        speed: int = 3


class Counting(Good):
    """Changes in `ask`."""

    asked = 0

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        self.asked += 1
        return Proposal(moves.sample(self.setting.space, generator(number, self.asked)))


class GlobalRandomness(Good):
    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        return Proposal(moves.sample(self.setting.space, generator(number, random.getrandbits(60))))


class OwnRandomState(Good):
    """A generator that lives as long as the strategy and moves on with each tell is fine; one that moves with
    the first ask of a number is not, although asking twice gives the same."""

    def __init__(self, setting: Setting, config: Good.Config) -> None:
        super().__init__(setting, config)
        self.rng = generator(setting.seed)
        self.answers: dict[tuple[int, int], Proposal] = {}

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        key = (number, len(self.told))
        if key not in self.answers:
            self.answers[key] = Proposal(moves.sample(self.setting.space, self.rng))
        return self.answers[key]


class RemembersObjects(Good):
    """Knows its own proposals by identity, which does not survive the store."""

    def __init__(self, setting: Setting, config: Good.Config) -> None:
        super().__init__(setting, config)
        self.mine: list[Proposal] = []

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        if number not in [of for of, _ in self.answers()]:
            self.mine.append(Proposal(moves.sample(self.setting.space, generator(number)), note={"n": number}))
        return next(proposal for of, proposal in self.answers() if of == number)

    def answers(self) -> list[tuple[int, Proposal]]:
        return [(int(proposal.note["n"]), proposal) for proposal in self.mine]

    def tell(self, outcome: Outcome) -> None:
        if not any(outcome.proposal is mine for mine in self.mine):
            raise LookupError("not my proposal")


class NumberIsPhase(Good):
    """Takes the number for the count of trials; with gaps there may be nothing to choose a parent from."""

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        rng = generator(self.setting.seed, number)
        if number < self.config.founders:
            return Proposal(moves.sample(self.setting.space, rng))
        return Proposal(moves.mutate(self.setting.space, pareto.best(self.told).proposal.arch, rng))


class OneObjective(Good):
    def tell(self, outcome: Outcome) -> None:
        if outcome.values is not None:
            (_value,) = outcome.values
        super().tell(outcome)


class CountsOnValues(Good):
    def tell(self, outcome: Outcome) -> None:
        assert outcome.values is not None
        super().tell(outcome)


class Illegal(Good):
    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        return Proposal(Architecture("toy", {"a": 0, "b": "y", "c": 2, "tint": False}))


class NegativeBudget(Good):
    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        return Proposal(moves.sample(self.setting.space, generator(number)), budget=0.0)


class BetweenLevels(Good):
    """Half of the full budget, which a table of two schedules does not have."""

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        found, fidelity = super().ask(number, pending), self.setting.fidelity
        return found if found is None or fidelity is None else replace(found, budget=(fidelity.low + fidelity.high) / 2)


class NamesABudget(Good):
    """The same budget always, also where there is one only."""

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        fidelity = self.setting.fidelity
        arch = moves.sample(self.setting.space, generator(number))
        return Proposal(arch, budget=fidelity.low if fidelity else 1.0)


class CountsOnFidelity(Good):
    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        assert self.setting.fidelity is not None
        return super().ask(number, pending)


class Climbing(Good):
    """Candidates at the least budget; every third proposal continues the best of those that have not been continued,
    and with the full budget. Needs an evaluator with budgets, and says so."""

    def __init__(self, setting: Setting, config: Good.Config) -> None:
        super().__init__(setting, config)
        if setting.fidelity is None:
            raise UsageError("there is one budget only")
        self.fidelity = setting.fidelity

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        first = self.first(pending)
        if first is None or (len(self.told) + len(pending)) % 3:
            return Proposal(moves.sample(self.setting.space, generator(number)), budget=self.fidelity.low)
        continues = first.number if self.fidelity.continues else None
        return Proposal(first.proposal.arch, self.fidelity.high, continues, {"promotes": first.number})

    def first(self, pending: Sequence[Pending]) -> Outcome | Pending | None:
        """The candidate that is to climb."""
        trials = (*self.told, *pending)
        known = {trial.proposal.note.get("promotes", trial.number) for trial in trials if trial.proposal.note}
        left = [one for one in self.told if self.may_climb(one) and one.number not in known]
        return pareto.best(left) if left else None

    def may_climb(self, outcome: Outcome) -> bool:
        return outcome.values is not None and not outcome.proposal.note


class ContinuesATable(Climbing):
    def __init__(self, setting: Setting, config: Good.Config) -> None:
        super().__init__(setting, config)
        self.fidelity = replace(self.fidelity, continues=True)


class ContinuesWhatIsPending(Climbing):
    def first(self, pending: Sequence[Pending]) -> Outcome | Pending | None:
        return next((trial for trial in pending if not trial.proposal.note), None)


class ContinuesFailures(Climbing):
    def may_climb(self, outcome: Outcome) -> bool:
        return outcome.state is State.FAILED and not outcome.proposal.note


class ContinuesWithoutMore(Climbing):
    """Its candidates have had the full budget."""

    def __init__(self, setting: Setting, config: Good.Config) -> None:
        super().__init__(setting, config)
        self.fidelity = replace(self.fidelity, low=self.fidelity.high)


class ContinuesAnother(Climbing):
    """Takes up the weights of a trial for another architecture."""

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        found = super().ask(number, pending)
        if found is None or found.continues is None:
            return found
        return replace(found, arch=moves.mutate(SPACE, found.arch, generator(number)))


class StructuredNote(Good):
    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        return Proposal(moves.sample(self.setting.space, generator(number)), note={"parents": (1, 2)})  # type: ignore[dict-item]


class WaitsForEver(Good):
    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        return None if len(self.told) == 6 else super().ask(number, pending)


class WaitsForNothing(Good):
    """Waits while its pending proposal is out, which is allowed."""

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        return None if pending else super().ask(number, pending)


class GivesUp(Good):
    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        if len(self.told) == 8:
            raise Exhausted("enough")
        return super().ask(number, pending)


class Enumerates(Good):
    """Proposes every candidate once and is then legitimately exhausted."""

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        known = {SPACE.identity(trial.proposal.arch) for trial in (*self.told, *pending)}
        for arch in moves.enumerate_all(self.setting.space):
            if SPACE.identity(arch) not in known:
                return Proposal(arch)
        raise Exhausted("all")


class ForgetfulSnapshot(WithSnapshots):
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.told = list(state["told"])[:-1]


class EmptySnapshot(WithSnapshots):
    """The founders that are left are not in the snapshot."""

    left: ClassVar[int] = 6

    def tell(self, outcome: Outcome) -> None:
        super().tell(outcome)
        self.left -= 1  # type: ignore[misc]

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        return Proposal(moves.sample(self.setting.space, generator(max(0, self.left))))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (LooseConfig, "config: Config does not refuse unknown keys"),
        (MutableConfig, "config: Config is not frozen"),
        (UndescribedConfig, "config: 'speed' has no description"),
        (Counting, "one at a time: ask(0) answers"),
        (GlobalRandomness, "one at a time: ask(0) answers"),
        (OwnRandomState, "a fresh instance after a replay of the tells answers ask("),
        (RemembersObjects, "raised LookupError: not my proposal"),
        (NumberIsPhase, "four at a time: raised ValueError: no outcome to choose from"),
        (OneObjective, "two objectives: raised ValueError: too many values to unpack"),
        (CountsOnValues, "every trial fails: raised AssertionError"),
        (Illegal, "proposes an illegal architecture: '2' is not allowed for choice 'c'"),
        (NegativeBudget, "proposes the budget 0.0"),
        (BetweenLevels, "two objectives: ask(7) proposes the budget 106.0, which is none of the levels (12, 200)"),
        (
            NamesABudget,
            "one budget only: ask(0) proposes budget 1.0 and to continue None, but there is one budget only",
        ),
        (CountsOnFidelity, "one budget only: raised AssertionError"),
        (ContinuesATable, "but the evaluator cannot continue"),
        (ContinuesWhatIsPending, "which has not been told"),
        (ContinuesFailures, "which is failed without a result"),
        (ContinuesWithoutMore, "to 9 epoch, but it has had 9"),
        (ContinuesAnother, "which is another architecture"),
        (StructuredNote, "a store cannot keep it"),
        (WaitsForEver, "answers None though nothing is pending"),
        (GivesUp, "raises Exhausted after"),
        (ForgetfulSnapshot, "an instance restored from a snapshot answers ask("),
        (EmptySnapshot, "an instance restored from a snapshot answers ask("),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_defects_are_found(kind: type[Any], message: str) -> None:
    assert message in findings(kind)


@pytest.mark.parametrize("kind", [WaitsForNothing, Enumerates, Climbing])
def test_waiting_exhaustion_and_promotions_are_no_defects(kind: type[Any]) -> None:
    assert findings(kind) == ""


HASHED = """
from nas_core import moves
from nas_core.config import Config as BaseConfig
from nas_core.seeds import generator
from nas_core.strategy import Proposal
class Hashed:
    class Config(BaseConfig):
        pass
    def __init__(self, setting, config):
        self.setting = setting
    def ask(self, number, pending):
        options = {moves.sample(self.setting.space, generator(number, k)) for k in range(9)}
        return Proposal(next(iter(options)))
    def tell(self, outcome):
        pass
"""
SMALL = """
from nas_core.choice import Choice
from nas_core.space import SearchSpace
class Small(SearchSpace):
    name = "small"
    tasks = frozenset({"image-classification"})
    choices = (Choice("a", tuple(range(20))), Choice("b", tuple(range(20))))
"""


def test_another_hash_seed_shows_an_order_of_sets(tmp_path: Path) -> None:
    (tmp_path / "hashed.py").write_text(HASHED, encoding="utf-8")
    (tmp_path / "small.py").write_text(SMALL, encoding="utf-8")
    strategy, space = Reference(f"{tmp_path / 'hashed.py'}:Hashed"), Reference(f"{tmp_path / 'small.py'}:Small")
    assert "another hash seed proposes" in "\n".join(check_fresh((strategy, space, {})))


def run(scenario: Scenario) -> History:
    setting = Setting(SPACE, 1, scenario.objectives, scenario.constraints, SPACE.identity, scenario.fidelity)
    return simulate(Good(setting, Good.Config(founders=60)), setting, scenario, 60)  # uniform: meets every state


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_simulation_is_the_study_it_says(scenario: Scenario) -> None:
    """The suite is worth what its simulated studies are: lag, order, gaps, states, violations."""
    history = run(scenario)
    asked = [one for one in history.asked if isinstance(one.answer, Proposal)]
    told = history.told
    states = {outcome.state for outcome in told}
    assert len(asked) == len(told) == 60
    assert max(len(one.pending) for one in asked) == scenario.lag - 1
    numbers = [one.number for one in asked]
    assert numbers[0] == scenario.start
    assert (numbers == list(range(numbers[0], numbers[0] + 60))) is not scenario.gaps
    assert ([outcome.number for outcome in told] == numbers) is not scenario.shuffled
    for outcome in told:
        measured = outcome.values is not None
        assert outcome.number in numbers
        assert measured == (outcome.state is State.COMPLETE) or outcome.state is State.REUSED
        assert len(outcome.violations) == (0 if outcome.state is State.FAILED else len(scenario.constraints))
        assert not measured or len(outcome.values or ()) == len(scenario.objectives)
    if scenario.failing == 1:
        assert states == {State.FAILED}
    elif scenario.name == "every trial is rejected":
        assert states == {State.REJECTED, State.REUSED}
    else:
        assert {State.COMPLETE, State.FAILED, State.REUSED} <= states
        rejecting = any(constraint.metric == "price" for constraint in scenario.constraints)
        assert (State.REJECTED in states) is rejecting


class Halved(Toy):
    def unsound(self, arch: Architecture) -> str | None:
        return "odd: a" if int(arch.values["a"]) % 2 else None


@pytest.mark.parametrize("scenario", [SCENARIOS[0], SCREENED], ids=lambda scenario: scenario.name)
def test_what_is_unsound_or_screened_is_rejected(scenario: Scenario) -> None:
    """Without values and violations; of what is sound, screens turn down the share of the scenario."""
    space = Halved()
    setting = Setting(space, 1, scenario.objectives, scenario.constraints, space.identity, scenario.fidelity)
    told = simulate(Good(setting, Good.Config(founders=60)), setting, scenario, 60).told
    states: dict[bool, set[State]] = {True: set(), False: set()}
    for outcome in told:
        if outcome.state is not State.REUSED:
            states[space.unsound(outcome.proposal.arch) is None].add(outcome.state)
        if outcome.state is State.REJECTED:
            assert (outcome.values, outcome.violations) == (None, ())
    assert states[False] == {State.REJECTED}
    assert State.COMPLETE in states[True]
    assert (State.REJECTED in states[True]) == (scenario is SCREENED)


def test_duplicates_are_told_the_values_of_the_first() -> None:
    first: dict[str, Outcome] = {}
    for outcome in run(SCENARIOS[0]).told:
        candidate = SPACE.identity(outcome.proposal.arch)
        if outcome.state is State.REUSED:
            assert outcome.values == first[candidate].values
        first.setdefault(candidate, outcome)


def test_minimised_objectives_are_turned_around() -> None:
    for outcome in run(SCENARIOS[1]).told:
        if outcome.state is State.COMPLETE:
            assert outcome.values == (-outcome.metrics["price"],)
            assert outcome.violation == max(0.0, (0.3 - outcome.metrics["quality"]) / 0.3)


def test_an_evaluation_is_a_candidate_a_budget_and_what_it_continues() -> None:
    """Told again as reused is what was evaluated before, and nothing else; more budget changes the values a little."""
    setting = Setting(SPACE, 1, SCENARIOS[0].objectives, (), SPACE.identity, SCENARIOS[0].fidelity)
    history = simulate(Climbing(setting, Climbing.Config()), setting, SCENARIOS[0], 200)
    origins: dict[int, int] = {}
    firsts: dict[object, Outcome] = {}
    pairs = []
    for outcome in history.told:
        proposal = outcome.proposal
        origin = origins.get(proposal.continues or -1, proposal.continues)
        same = (SPACE.identity(proposal.arch), proposal.budget, origin)
        assert (outcome.state is State.REUSED) == (same in firsts)
        if outcome.state is State.REUSED:
            origins[outcome.number] = firsts[same].number
            assert outcome.values == firsts[same].values
        elif outcome.state is State.COMPLETE:
            firsts[same] = outcome
            low = firsts.get((same[0], 1, None))
            if proposal.continues is not None and low is not None and low.values and outcome.values:
                pairs.append((low.values[0], outcome.values[0]))
    assert origins
    assert len(pairs) > 10
    assert all(0 < abs(low - high) < 0.3 for low, high in pairs)


class NeedsScores(Good):
    """Takes scores for granted."""

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        found = super().ask(number, pending)
        assert found is not None
        if self.setting.score is None:
            raise ValueError("no scores here")
        return replace(found, note={"score": self.setting.score("naswot", [found.arch])[0]})


class NoPrior(Good):
    """Cannot be told of another study."""

    def __init__(self, setting: Setting, config: Good.Config) -> None:
        if setting.warm_start:
            raise ValueError("what is this?")
        super().__init__(setting, config)


def test_a_search_without_scores_must_run_or_be_refused() -> None:
    assert findings(NeedsScores).startswith("no scores: raised ValueError: no scores here")
    assert "\n" not in findings(NeedsScores)


def test_results_of_another_study_must_be_accepted() -> None:
    assert findings(NoPrior).startswith("one at a time, minimising: raised ValueError: what is this?")
