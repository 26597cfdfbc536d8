"""AE-CNN's genetic algorithm: tournaments, elitism, generations, variation; and that it beats random search."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy
import pytest
from scipy.stats import ttest_rel

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.evaluation import Constraint, Objective
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, State
from search_spaces.nasbench201.space import NasBench201
from strategies.basic.random_search import RandomSearch
from strategies.evolution.ae_cnn import AeCnn
from strategies.evolution.genetic import Generations, Rates, Tournaments, couple, tournament
from strategies.evolution.nsga import Nsga2, Nsga3

CELLS = NasBench201()
QUALITY = (Objective("quality", "max"),)


class Wide(SearchSpace):
    """30 choices of 30 options: no two architectures drawn by chance are equal, and hardly two choices agree."""

    name = "wide"
    tasks = frozenset({"image-classification"})
    choices = tuple(Choice(f"c{position}", tuple(range(30))) for position in range(30))


class Tiny(SearchSpace):
    """12 architectures."""

    name = "tiny"
    tasks = frozenset({"image-classification"})
    choices = (Choice("a", (0, 1, 2)), Choice("b", (0, 1)), Choice("c", (0, 1)))


WIDE, TINY = Wide(), Tiny()


def quality(arch: Architecture) -> float:
    """Looks random, depends on the architecture alone, never twice the same."""
    return float(generator("quality", arch.key).random())


def evolve(strategy: Any, steps: int, first: int = 0) -> list[Outcome]:
    outcomes = []
    for number in range(first, first + steps):
        proposal = strategy.ask(number, ())
        outcomes.append(Outcome(number, proposal, State.COMPLETE, (quality(proposal.arch),)))
        strategy.tell(outcomes[-1])
    return outcomes


def outcome(number: int, value: float | None, *violations: float, arch: Architecture | None = None) -> Outcome:
    state = State.COMPLETE if value is not None else State.REJECTED if violations else State.FAILED
    arch = arch or moves.sample(WIDE, generator(number))
    return Outcome(number, Proposal(arch), state, None if value is None else (value,), violations)


# -- tournaments ----------------------------------------------------------------------------------------------


class Draws:
    """Stands for a generator that draws the given pair."""

    def __init__(self, pair: tuple[int, int]) -> None:
        self.pair = pair

    def choice(self, count: int, size: int, replace: bool) -> tuple[int, int]:
        assert (size, replace) == (2, False)
        return self.pair


def test_the_probabilities_of_a_binary_tournament() -> None:
    """The card's check 3, over all ordered pairs of 20 members whose rank is their position (0 is the best)."""
    wins: Counter[int] = Counter()
    pairs = list(itertools.permutations(range(20), 2))
    for pair in pairs:
        winner = tournament(20, lambda one, other: one < other, Draws(pair))  # type: ignore[arg-type]
        assert winner == min(pair)  # given the pair the better wins with probability 1
        wins[winner] += 1
    assert wins[0] / len(pairs) == 0.10
    assert wins[19] == 0
    assert [wins[rank] for rank in range(20)] == [2 * (19 - rank) for rank in range(20)]


def test_tournaments_draw_distinct_members_uniformly() -> None:
    rng = numpy.random.default_rng(0)
    drawn: Counter[tuple[int, ...]] = Counter()

    def beats(one: int, other: int) -> bool:
        drawn[tuple(sorted((one, other)))] += 1
        return one < other

    draws = 19_000
    best = sum(tournament(20, beats, rng) == 0 for _ in range(draws))
    assert abs(best / draws - 0.10) < 5 * (0.1 * 0.9 / draws) ** 0.5
    assert len(drawn) == 190
    assert all(one != other for one, other in drawn)
    assert max(drawn.values()) < 2 * min(drawn.values())


def test_of_equals_either_wins() -> None:
    rng = numpy.random.default_rng(0)
    assert {tournament(3, lambda one, other: False, rng) for _ in range(50)} == {0, 1, 2}


@pytest.mark.parametrize("count", [2, 3, 20])
def test_the_parents_of_a_couple_are_distinct(count: int) -> None:
    rng = numpy.random.default_rng(count)
    couples = [couple(count, lambda one, other: one < other, rng) for _ in range(300)]
    assert all(one != other for one, other in couples)
    worst = count - 1 if count > 2 else 2  # loses every tournament that has two members
    assert {member for pair in couples for member in pair} == set(range(count)) - {worst}
    assert couple(1, lambda one, other: False, rng) == (0, 0)


# -- survival -------------------------------------------------------------------------------------------------


def test_the_best_always_survives_and_nothing_survives_twice() -> None:
    for seed in range(200):
        rng = numpy.random.default_rng(seed)
        pool = [outcome(number, float(value)) for number, value in enumerate(rng.permutation(14))]
        kept = Tournaments().survivors(pool, 7, rng)
        assert len({one.number for one in kept}) == len(kept) == 7
        assert any(one.values == (13.0,) for one in kept)
        assert not any(one.values == (0.0,) for one in kept)  # the worst of 14 wins no tournament


def test_infeasible_survivors_are_those_of_little_violation() -> None:
    pool = [outcome(0, None, 3.0), outcome(1, 9.0, 0.1), outcome(2, 1.0, 0.0), outcome(3, None, 2.0)]
    for seed in range(20):
        kept = Tournaments().survivors(pool, 2, numpy.random.default_rng(seed))
        assert kept[-1].number in (2, 3)
        assert any(one.number == 2 for one in kept)
        assert all(one.number != 0 for one in kept)


def test_everything_survives_where_there_is_room() -> None:
    pool = [outcome(number, float(number)) for number in range(3)]
    assert Tournaments().survivors(pool, 5, numpy.random.default_rng(0)) == pool
    assert Tournaments().survivors([], 5, numpy.random.default_rng(0)) == []


def test_elitism_the_best_fitness_is_monotone_over_generations() -> None:
    """The card's check 4, for a noise-free fitness."""
    improved = 0
    for seed in range(10):
        search = Generations(Setting(WIDE, seed, QUALITY), AeCnn.Config(), Tournaments())
        best = [0.0]
        everything: list[Outcome] = []
        for generation in range(15):
            everything += evolve(search, 20, 20 * generation)
            assert len(search.population) == 20
            best.append(max(one.values[0] for one in search.population if one.values))
            assert best[-1] == max(one.values[0] for one in everything if one.values)
        assert best == sorted(best)
        improved += best[-1] > best[1]
    assert improved >= 5


# -- generations ----------------------------------------------------------------------------------------------


def test_the_defaults_are_the_paper_s() -> None:
    assert AeCnn.Config().model_dump() == {"population": 20, "crossover": 0.9, "mutation": 0.2}


def test_children_descend_from_the_generation_before() -> None:
    search = Generations(Setting(WIDE, 3, QUALITY), Rates(population=10), Tournaments())
    founders = evolve(search, 10)
    assert [one.proposal.note for one in founders] == [{"role": "founder"}] * 10
    for generation in range(1, 8):
        numbers = {one.number for one in search.population}
        for child in evolve(search, 10, 10 * generation):
            note = child.proposal.note
            assert note["role"] == "child"
            assert {int(note["of"]), int(note.get("with", note["of"]))} <= numbers


def test_couples_have_two_children_with_all_of_both_parents() -> None:
    strategy = AeCnn(Setting(WIDE, 1, QUALITY), AeCnn.Config(population=10, crossover=1.0, mutation=0.0))
    outcomes = evolve(strategy, 60)
    for first, second in zip(outcomes[10::2], outcomes[11::2], strict=True):
        one, other = (outcomes[int(first.proposal.note[key])] for key in ("of", "with"))
        assert (second.proposal.note["of"], second.proposal.note["with"]) == (other.number, one.number)
        for name, value in first.proposal.arch.values.items():
            pair = {value, second.proposal.arch.values[name]}
            assert pair == {one.proposal.arch.values[name], other.proposal.arch.values[name]}


def foreign(child: Outcome, outcomes: Sequence[Outcome]) -> int:
    """How many values the child has from neither parent."""
    note = child.proposal.note
    parents = [outcomes[int(note[key])].proposal.arch.values for key in ("of", "with") if key in note]
    return sum(all(parent[name] != value for parent in parents) for name, value in child.proposal.arch.values.items())


def test_the_rates_are_the_configured_ones() -> None:
    outcomes = evolve(AeCnn(Setting(WIDE, 2, QUALITY), AeCnn.Config(population=100)), 1100)
    children = outcomes[100:]
    crossed = [child for child in children if "with" in child.proposal.note]
    assert abs(len(crossed) / 1000 - 0.9) < 5 * (0.9 * 0.1 / 500) ** 0.5
    # A uniform crossover of parents that agree nowhere copies neither, so what is foreign was mutated on purpose.
    early = [child for child in crossed if child.number < 300]
    mutated = sum(foreign(child, outcomes) > 0 for child in early) / len(early)
    assert abs(mutated - 0.2) < 5 * (0.2 * 0.8 / len(early)) ** 0.5


def test_a_child_like_its_parent_is_mutated_once() -> None:
    strategy = AeCnn(Setting(WIDE, 5, QUALITY), AeCnn.Config(population=6, crossover=0.0, mutation=0.0))
    outcomes = evolve(strategy, 60)
    mutations = Counter(foreign(child, outcomes) for child in outcomes[6:])
    assert mutations[0] == 0
    assert mutations[1] >= 50  # now and then the mutant is known as well


@pytest.mark.parametrize("strategy", [AeCnn, Nsga2, Nsga3])
def test_a_small_space_is_proposed_once_and_then_exhausted(strategy: Any) -> None:
    search = strategy(Setting(TINY, 0, QUALITY), strategy.Config(population=4))
    assert {one.proposal.arch for one in evolve(search, 12)} == set(moves.enumerate_all(TINY))
    with pytest.raises(Exhausted, match="every candidate"):
        search.ask(12, ())


@pytest.mark.parametrize("lag", [2, 8, 30])
def test_trials_in_flight_are_neither_waited_for_nor_repeated(lag: int) -> None:
    search = AeCnn(Setting(CELLS, 0, QUALITY), AeCnn.Config(population=10))
    pending: list[Pending] = []
    seen: list[str] = []
    for number in range(80):
        proposal = search.ask(number, tuple(pending))
        seen.append(proposal.arch.key)
        pending.append(Pending(number, proposal))
        if len(pending) == lag:
            done = pending.pop(0)
            search.tell(Outcome(done.number, done.proposal, State.COMPLETE, (quality(done.proposal.arch),)))
    assert len(set(seen)) == 80
    assert sum(trial.proposal.note["role"] == "child" for trial in pending) >= min(lag - 1, 20)


def test_failed_trials_are_no_parents_and_end_generations_all_the_same() -> None:
    search = Generations(Setting(WIDE, 0, QUALITY), Rates(population=6), Tournaments())
    for number in range(60):
        proposal = search.ask(number, ())
        assert all(int(proposal.note.get(key, 1)) % 2 for key in ("of", "with"))
        search.tell(outcome(number, 1.0 if number % 2 else None, arch=proposal.arch))
    assert len(search.population) == 6


def test_rejected_trials_teach() -> None:
    """Only candidates with a small first choice are feasible; the others say how far they are from it."""
    setting = Setting(WIDE, 0, QUALITY, (Constraint("price", "<=", 1.0),))
    search = Generations(setting, AeCnn.Config(mutation=0.5), Tournaments())
    for number in range(300):
        proposal = search.ask(number, ())
        excess = sum(int(value) for value in proposal.arch.values.values()) / 300 - 1
        value = quality(proposal.arch) if excess <= 0 else None
        search.tell(outcome(number, value, excess, arch=proposal.arch))
    assert statistics.fmean(one.violation for one in search.population) < 0.2  # 0.45 in random candidates


class Own(Wide):
    """A space whose operators leave a mark: children are all zeros but for a counter of mutations."""

    def mutate(self, arch: Architecture, rng: Any) -> Architecture:
        count = int(arch.values["c0"]) + 1
        return Architecture(self.name, {choice.name: 0 if choice.name != "c0" else count for choice in self.choices})

    def crossover(self, one: Architecture, other: Architecture, rng: Any) -> tuple[Architecture, Architecture]:
        child = Architecture(self.name, {choice.name: 0 for choice in self.choices})
        return child, child


def test_the_space_s_own_operators_are_used() -> None:
    strategy = AeCnn(Setting(Own(), 0, QUALITY), AeCnn.Config(population=4, crossover=1.0, mutation=0.0))
    children = evolve(strategy, 10)[4:]
    assert [child.proposal.arch.values["c0"] for child in children] == [0, 1, 2, 3, 4, 5]
    assert all(set(list(child.proposal.arch.values.values())[1:]) == {0} for child in children)


@pytest.mark.parametrize(("key", "value"), [("population", 1), ("crossover", 1.5), ("mutation", -0.1), ("cross", 1)])
def test_a_wrong_setting_is_explained(key: str, value: float) -> None:
    with pytest.raises(UsageError, match=key):
        validate(AeCnn.Config, {key: value}, "strategy")


# -- against random search ------------------------------------------------------------------------------------


SEEDS = 30
QUERIES = {"cifar10": 100, "cs": 200}


def incumbents(benches: Any, strategy: Any, data: str) -> list[float]:
    """Validation accuracy of the incumbent of each seed, with the default settings."""
    found = benches[data].incumbents(strategy, strategy.Config(), SEEDS, QUERIES[data])
    return [metrics["val_accuracy"] for metrics in found]


@pytest.fixture(scope="module")
def uninformed(benches: Any) -> dict[str, list[float]]:
    return {data: incumbents(benches, RandomSearch, data) for data in QUERIES}


@pytest.mark.parametrize(
    ("data", "strategy"),
    [
        *(("cifar10", AeCnn), ("cs", Nsga2), ("cifar10", Nsga3)),  # every strategy, and every table
        *(pytest.param(*case, marks=pytest.mark.matrix) for case in (("cs", AeCnn), ("cifar10", Nsga2), ("cs", Nsga3))),
    ],
)
def test_it_beats_random_search(benches: Any, uninformed: dict[str, list[float]], strategy: Any, data: str) -> None:
    """Paired over the seeds."""
    assert ttest_rel(incumbents(benches, strategy, data), uninformed[data], alternative="greater").pvalue < 0.01
