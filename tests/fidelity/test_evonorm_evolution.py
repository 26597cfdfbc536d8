"""EvoNorm's evolution: what a mutant is, which candidates are passed over, ageing, and winners of tournaments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.errors import UsageError
from nas_core.evaluation import Objective
from nas_core.pareto import dominates
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Exhausted, Outcome, Proposal, Setting, State
from search_spaces.evonorm.space import EvoNorm as Layers
from strategies.evolution.evonorm import EvoNorm

SPACE = Layers()
TWO = (Objective("val_accuracy.a", "max"), Objective("val_accuracy.b", "max"))


def made(space: SearchSpace = SPACE, objectives: Sequence[Objective] = TWO[:1], **config: Any) -> EvoNorm:
    setting = Setting(space, 3, tuple(objectives), identity=space.identity)
    return EvoNorm(setting, EvoNorm.Config(**config))


def outcome(number: int, arch: Architecture, *values: float, state: State = State.COMPLETE, **rest: Any) -> Outcome:
    return Outcome(number, Proposal(arch), state, values or None, **rest)


def nodes_apart(one: Architecture, other: Architecture) -> set[str]:
    names = {name for name in {*one.values, *other.values} if one.values.get(name) != other.values.get(name)}
    return {name.partition("/")[0] for name in names}


def test_mutation_goes_on_until_the_mutant_is_new_and_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mutation changes one node, and begins at the parent or at what silent changes have made of it."""
    strategy = made(fresh=0.0, founders=2)
    parents = [SPACE.named["evonorm-s0"], SPACE.named["gn-relu"]]
    for number, arch in enumerate(parents):
        strategy.tell(outcome(number, arch, 0.5))
    steps: list[tuple[Architecture, Architecture]] = []
    mutate = SPACE.mutate

    def watched(arch: Architecture, rng: Any) -> Architecture:
        steps.append((arch, mutate(arch, rng)))
        return steps[-1][1]

    monkeypatch.setattr(SPACE, "mutate", watched)
    passed: Counter[str] = Counter()
    told = {SPACE.identity(arch) for arch in parents}
    for number in range(2, 8):
        steps.clear()
        proposal = strategy.ask(number, [])
        note = dict(proposal.note)
        assert note.pop("role") == "child"
        at = parent = parents[int(note.pop("of"))]
        counted: Counter[str] = Counter()
        for before, after in steps:
            assert before == at
            assert len(nodes_apart(before, after)) == 1
            if SPACE.identity(after) == SPACE.identity(parent):
                counted["silent"], at = counted["silent"] + 1, after
            elif after is not steps[-1][1]:
                counted["known" if SPACE.identity(after) in told else "unsound"] += 1
        assert proposal.arch == steps[-1][1]
        assert SPACE.unsound(proposal.arch) is None
        assert SPACE.identity(proposal.arch) not in told
        assert note == counted
        passed += counted
    assert min(passed["silent"], passed["unsound"]) > 5


def test_fresh_candidates_are_sound_and_as_many_as_asked_for() -> None:
    strategy = made(founders=1)
    strategy.tell(outcome(0, SPACE.named["evonorm-b0"], 0.5))
    asked = [strategy.ask(number, []) for number in range(1, 25)]
    roles = Counter(proposal.note["role"] for proposal in asked)
    assert 6 <= roles["fresh"] <= 18
    assert all(SPACE.unsound(proposal.arch) is None for proposal in asked)
    passed = [int(proposal.note.get("unsound", 0)) for proposal in asked if proposal.note["role"] == "fresh"]
    assert sum(passed) / len(passed) > 20
    assert {made(founders=1, fresh=1.0).ask(number, []).note["role"] for number in range(3)} == {"fresh"}


def test_the_oldest_leave_the_window() -> None:
    """The best of all is never a parent again; what was turned down is not in the window and not proposed again."""
    space = Numbers()
    strategy = made(space, fresh=0.0, founders=3, window=5, tournament=1.0, winner="mean")
    archs = [space.at(number) for number in range(0, 400, 9)]
    strategy.tell(outcome(0, archs[0], 100.0))
    for number in range(1, 30):
        rejected = number % 3 == 0
        values = () if rejected else (number % 7,)
        strategy.tell(outcome(number, archs[number], *values, state=State.REJECTED if rejected else State.COMPLETE))
        valid = [one for one in range(number + 1) if one % 3 or one == 0]
        if len(valid) < 3:
            assert strategy.ask(99, []).note["role"] == "fresh"
            continue
        best = max(valid[-5:], key=lambda one: 100 if one == 0 else one % 7)
        assert strategy.ask(99, []).note["of"] == best


@pytest.mark.parametrize("share", [0.1, 0.25, 1.0])
def test_tournaments_are_a_share_of_the_window(share: float) -> None:
    space = Numbers()
    strategy = made(space, tournament=share)
    for number in range(40):
        strategy.tell(outcome(number, space.at(number), 1.0))
    drawn = [strategy.contestants(generator("tournament", number)) for number in range(300)]
    assert {len({one.number for one in contestants}) for contestants in drawn} == {round(40 * share)}
    assert {one.number for contestants in drawn for one in contestants} == set(range(40))


def test_a_winner_on_the_front_is_never_dominated_and_any_of_it() -> None:
    space, strategy = Numbers(), made(Numbers(), TWO)
    points = generator("points").random((200, 3))
    outcomes = [outcome(number, space.at(number), *row) for number, row in enumerate(points.tolist())]
    for number in range(60):
        rng = generator("front", number)
        contestants = [outcomes[int(place)] for place in rng.choice(200, 12, replace=False)]
        front = {
            one.number
            for one in contestants
            if not any(dominates(other.values or (), one.values or ()) for other in contestants)
        }
        winners = {strategy.winner(contestants, generator("winner", number, draw)).number for draw in range(80)}
        assert winners == front


def test_a_winner_by_its_mean() -> None:
    space = Numbers()
    strategy = made(space, TWO, winner="mean")
    values = [(0.9, 0.1), (0.5, 0.6), (0.3, 0.75)]
    contestants = [outcome(number, space.at(number), *row) for number, row in enumerate(values)]
    assert strategy.winner(contestants, generator("mean")).number == 1
    worse = [*contestants, outcome(3, space.at(3), 1.0, 1.0, violations=(0.2,))]
    assert strategy.winner(worse, generator("mean")).number == 1
    with pytest.raises(UsageError, match=r"no mean of a:max, params:min, whose goals differ; use winner=pareto"):
        made(space, (Objective("a", "max"), Objective("params", "min")), winner="mean")


class Numbers(SearchSpace):
    """400 architectures, all sound and no two the same."""

    name = "numbers"
    tasks = frozenset({"image-classification"})
    choices = (Choice("tens", tuple(range(20))), Choice("ones", tuple(range(20))))

    def at(self, number: int) -> Architecture:
        return Architecture(self.name, {"tens": number // 20, "ones": number % 20})


class Even(Numbers):
    """Twenty of them, of which every second one is unsound."""

    choices = (Choice("tens", tuple(range(4))), Choice("ones", tuple(range(5))))

    def unsound(self, arch: Architecture) -> str | None:
        return "odd" if int(arch.values["ones"]) % 2 else None  # type: ignore[arg-type]


@pytest.mark.parametrize("fresh", [0.0, 1.0])
def test_the_search_ends_when_all_that_is_sound_is_known(fresh: float) -> None:
    """Also by the listing of a small space, where draws have found nothing."""
    space = Even()
    strategy = made(space, fresh=fresh, founders=1, tries=3)
    sound = [arch for arch in moves.enumerate_all(space) if space.unsound(arch) is None]
    found = []
    for number in range(len(sound)):
        found.append(strategy.ask(number, []).arch)
        strategy.tell(outcome(number, found[-1], 1.0))
    with pytest.raises(Exhausted, match="every candidate of the space is known or unsound"):
        strategy.ask(len(sound), [])
    assert sorted(arch.key for arch in found) == sorted(arch.key for arch in sound)
