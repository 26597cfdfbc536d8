"""Random search: uniform over candidates, without replacement, and the reference figures."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.evaluation import Objective
from nas_core.space import Same, SearchSpace
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, State
from strategies.basic.random_search import RandomSearch, candidates

OBJECTIVES = (Objective("quality", "max"),)


class Toy(SearchSpace):
    """16 architectures in five classes of 1, 4, 6, 4 and 1: those with the same number of ones."""

    name = "toy"
    choices = tuple(Choice(name, (0, 1)) for name in "abcd")

    def identity(self, arch: Architecture) -> str:
        return str(sum(int(value) for value in arch.values.values()))


class Wide(SearchSpace):
    """2^30 architectures; the identity looks at the first choice alone."""

    name = "wide"
    choices = tuple(Choice(f"choice{number}", (0, 1)) for number in range(30))

    def identity(self, arch: Architecture) -> str:
        return str(arch.values["choice0"])


def make(space: SearchSpace, seed: int = 0, rows: bool = False) -> RandomSearch:
    setting = Setting(space, seed, OBJECTIVES) if rows else Setting(space, seed, OBJECTIVES, identity=space.identity)
    return RandomSearch(setting, RandomSearch.Config())


def told(number: int, proposal: Proposal) -> Outcome:
    return Outcome(number, proposal, State.COMPLETE, (0.0,))


def test_classes_are_drawn_uniformly_and_members_uniformly_within_them() -> None:
    space = Toy()
    strategy = make(space)
    drawn = [strategy.ask(number, ()).arch for number in range(5000)]
    classes = Counter(space.identity(arch) for arch in drawn)
    assert all(abs(classes[name] - 1000) < 5 * (1000 * 0.8) ** 0.5 for name in "01234")
    members = Counter(arch.key for arch in drawn if space.identity(arch) == "2")
    assert len(members) == 6
    assert all(abs(count - classes["2"] / 6) < 5 * (classes["2"] * 5 / 36) ** 0.5 for count in members.values())


@pytest.mark.parametrize("rows", [False, True])
def test_every_candidate_once_then_exhausted(rows: bool) -> None:
    space, count = Toy(), 16 if rows else 5
    strategy = make(space, rows=rows)
    pending: list[Pending] = []
    seen: set[str] = set()
    for number in range(count):
        proposal = strategy.ask(number, pending)
        identity = proposal.arch.key if rows else space.identity(proposal.arch)
        assert identity not in seen
        seen.add(identity)
        pending.append(Pending(number, proposal))
        if number % 3 == 2:  # some are told, some still pending
            trial = pending.pop(0)
            strategy.tell(told(trial.number, trial.proposal))
    with pytest.raises(Exhausted):
        strategy.ask(count, pending)


def test_the_last_candidates_are_found() -> None:
    """Where hardly anything is left draws miss, and the rest is listed."""
    space = Toy()
    space.choices = tuple(Choice(name, tuple(range(10))) for name in "abc")
    strategy = make(space, rows=True)
    for number in range(1000):
        strategy.tell(told(number, strategy.ask(number, ())))
    with pytest.raises(Exhausted):
        strategy.ask(1000, ())


def test_a_space_too_large_to_list_draws_known_candidates_again() -> None:
    strategy = make(Wide())
    first = strategy.ask(0, ())
    strategy.tell(told(0, first))
    second = strategy.ask(1, ())
    assert first.arch.values["choice0"] != second.arch.values["choice0"]
    with pytest.raises(Exhausted):
        strategy.ask(2, [Pending(1, second)])


def test_studies_of_one_space_and_identity_share_the_list() -> None:
    space = Toy()
    assert candidates(Same(space), space.identity) is candidates(Same(space), space.identity)
    assert candidates(Same(Toy()), space.identity) is not candidates(Same(space), space.identity)


def best_of(values: list[float], queries: int) -> float:
    """The exact expectation of the best of `queries` values drawn without replacement."""
    expectation, none_yet = 0.0, 1.0
    for drawn, value in enumerate(sorted(values, reverse=True)):
        hit = queries / (len(values) - drawn)
        expectation += none_yet * hit * value
        none_yet *= 1 - hit
        if none_yet < 1e-12:
            break
    return expectation


# Mean test accuracy of the best by validation among 100 rows, over 500 seeds; and how many rows there are.
REFERENCE = {"cifar10": (93.80, 15_625), "cifar100": (71.48, 15_625), "cora": (79.93, 26_206), "cs": (90.15, 26_206)}


@pytest.mark.parametrize("seeds", [30, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("data", REFERENCE)
def test_reference(benches: Any, errors_off: Any, data: str, seeds: int) -> None:
    reference, rows = REFERENCE[data]
    bench = benches[data]
    listing = candidates(Same(bench.space), bench.table.identity)
    assert listing is not None
    assert len(listing.identities) == rows
    found = bench.incumbents(RandomSearch, RandomSearch.Config(), seeds=seeds, queries=100)
    assert errors_off([metrics["test_accuracy"] for metrics in found], reference, seeds=500) < 4
    members = [listing.members[start] for start in listing.starts[:-1]]
    archs = [
        Architecture(
            bench.space.name,
            {choice.name: choice.options[token - 1] for choice, token in zip(bench.space.choices, row, strict=True)},
        )
        for row in members
    ]
    exact = best_of([100 * bench.look_up(arch)["val_accuracy"] for arch in archs], 100)
    assert errors_off([metrics["val_accuracy"] for metrics in found], exact) < 4
