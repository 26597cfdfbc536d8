"""Moves, tokens and legality on randomly generated spaces: conditional choices, coupled ones, all value types."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core import moves, tokens
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.testing.space import check

fast = settings(max_examples=40, deadline=None)


class Plain(SearchSpace):
    """A space that is only its choices."""

    name = "random"
    tasks = frozenset({"image-classification"})

    def __init__(self, choices: tuple[Choice, ...]) -> None:
        self.choices = choices


class Coupled(Plain):
    """What is allowed depends, as if by chance, on everything chosen before; the last option always is."""

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        def lucky(option: Value) -> bool:
            return hashlib.sha256(f"{choice.name} {option} {sorted(prefix.items())}".encode()).digest()[0] < 128

        return tuple(option for option in choice.options if option == choice.options[-1] or lucky(option))


OPTIONS: Any = st.one_of(
    st.lists(st.integers(-5, 99), min_size=1, max_size=4, unique=True),
    st.lists(st.text(max_size=4), min_size=1, max_size=4, unique=True),
    st.lists(st.floats(-9, 9).map(lambda value: value + 0.0), min_size=1, max_size=4, unique=True),
    st.permutations([False, True]),
).map(tuple)


@st.composite
def spaces(draw: st.DrawFn) -> Plain:
    choices: list[Choice] = []
    for position in range(draw(st.integers(1, 5))):
        conditions = []
        for earlier in draw(st.lists(st.sampled_from(choices), max_size=2, unique=True) if choices else st.just([])):
            wanted = draw(st.lists(st.sampled_from(earlier.options), min_size=1, unique=True))
            conditions.append(When(earlier.name, tuple(wanted)))
        choices.append(Choice(f"part/{position}", draw(OPTIONS), when=tuple(conditions)))
    return draw(st.sampled_from([Plain, Coupled]))(tuple(choices))


seeds = st.integers(0, 2**32)


def by_hand(space: SearchSpace) -> set[tuple[tuple[str, Value], ...]]:
    """All architectures, found without `complete`: grow every prefix by every allowed option."""
    found: set[tuple[tuple[str, Value], ...]] = {()}
    for choice in space.choices:
        grown = set()
        for prefix in found:
            if choice.active(dict(prefix)):
                grown |= {(*prefix, (choice.name, option)) for option in space.allowed(choice, dict(prefix))}
            else:
                grown.add(prefix)
        found = grown
    return found


@fast
@given(spaces())
def test_random_spaces_keep_the_contract(space: Plain) -> None:
    found = [finding for finding in check(space, [], samples=10) if not finding.startswith("build: none of the 0")]
    assert found == []


@fast
@given(spaces())
def test_enumeration_finds_every_architecture_once_and_in_order(space: Plain) -> None:
    everything = list(moves.enumerate_all(space))
    assert {tuple(arch.values.items()) for arch in everything} == by_hand(space)
    assert len(set(everything)) == len(everything) == moves.size(space)
    encoded = [tokens.encode(space, arch).tolist() for arch in everything]
    assert encoded == sorted(encoded), "the last choice changes fastest"


@fast
@given(spaces(), seeds)
def test_architectures_survive_tokens_json_and_completion(space: Plain, seed: int) -> None:
    arch = moves.sample(space, generator(seed))
    encoded = tokens.encode(space, arch)
    assert encoded.shape == (len(space.choices),)
    assert tokens.decode(space, encoded) == arch
    assert tokens.decode(space, encoded.tolist()) == arch
    assert Architecture.from_json(arch.to_json()) == arch
    assert moves.complete(space, arch.values, lambda choice, options: pytest.fail("everything is given")) == arch


@fast
@given(spaces(), seeds)
def test_the_mask_is_what_can_follow(space: Plain, seed: int) -> None:
    """The tokens that a mask permits are those of the architectures that begin in the same way."""
    encoded = tokens.encode(space, moves.sample(space, generator(seed))).tolist()
    everything = [tokens.encode(space, arch).tolist() for arch in moves.enumerate_all(space)]
    for position in range(len(space.choices)):
        following = {other[position] for other in everything if other[:position] == encoded[:position]}
        mask = tokens.mask(space, position, encoded)
        assert set(numpy.flatnonzero(mask).tolist()) == following


@fast
@given(spaces(), seeds)
def test_one_hot_marks_the_active_choices(space: Plain, seed: int) -> None:
    arch = moves.sample(space, generator(seed))
    vector = tokens.one_hot(space, arch)
    assert vector.shape == (sum(len(choice.options) for choice in space.choices),)
    assert vector.sum() == len(arch.values)
    names = [(choice.name, option) for choice in space.choices for option in choice.options]
    assert {names[position] for position in numpy.flatnonzero(vector)} == set(arch.values.items())


@fast
@given(spaces(), seeds)
def test_neighbours_are_the_architectures_one_choice_away(space: Plain, seed: int) -> None:
    """Every other value of every free choice leads to one neighbour, and what does not depend on it stays."""
    arch = moves.sample(space, generator(seed))
    around = moves.neighbours(space, arch)
    wanted = {
        (choice.name, value)
        for choice in space.choices
        if choice.name in arch.values
        for value in space.allowed(choice, before(space, arch, choice.name))
        if value != arch.values[choice.name]
    }
    first = {first_difference(space, arch, other) for other in around}
    assert first == wanted
    assert len(around) == len(wanted)
    assert all(space.illegal(other) is None for other in around)


def before(space: SearchSpace, arch: Architecture, name: str) -> dict[str, Value]:
    """The values of the choices declared before `name`."""
    earlier = [choice.name for choice in space.choices]
    return {n: v for n, v in arch.values.items() if n in earlier[: earlier.index(name)]}


def first_difference(space: SearchSpace, arch: Architecture, other: Architecture) -> tuple[str, Value]:
    name = next(c.name for c in space.choices if arch.values.get(c.name) != other.values.get(c.name))
    return name, other.values[name]


@fast
@given(spaces(), seeds)
def test_mutation_changes_something_and_stays_legal(space: Plain, seed: int) -> None:
    arch = moves.sample(space, generator(seed))
    if not moves.free_choices(space, arch):
        with pytest.raises(ValueError, match="leaves nothing to mutate"):
            moves.mutate(space, arch, generator(seed))
        return
    mutant = moves.mutate(space, arch, generator(seed))
    assert mutant != arch
    assert space.illegal(mutant) is None
    assert mutant == moves.mutate(space, arch, generator(seed))


@fast
@given(spaces(), seeds)
def test_crossover_takes_from_its_parents(space: Plain, seed: int) -> None:
    rng = generator(seed)
    one, other = moves.sample(space, rng), moves.sample(space, rng)
    children = moves.crossover(space, one, other, rng)
    assert [space.illegal(child) for child in children] == [None, None]
    assert moves.crossover(space, one, one, rng) == (one, one)
    if type(space) is Plain:
        for name in one.values.keys() & other.values.keys():
            given = [child.values[name] for child in children if name in child.values]
            assert len(given) < 2 or sorted(map(str, given)) == sorted(map(str, (one.values[name], other.values[name])))


@fast
@given(spaces(), seeds, st.data())
def test_tokens_that_no_architecture_has_are_refused(space: Plain, seed: int, data: st.DataObject) -> None:
    legal = {tuple(tokens.encode(space, arch).tolist()) for arch in moves.enumerate_all(space)}
    given_tokens = data.draw(st.tuples(*(st.integers(-1, len(choice.options) + 1) for choice in space.choices)))
    if given_tokens in legal:
        assert tuple(tokens.encode(space, tokens.decode(space, given_tokens)).tolist()) == given_tokens
    else:
        with pytest.raises(ValueError, match="token"):
            tokens.decode(space, given_tokens)
    with pytest.raises(ValueError, match=f"has {len(space.choices)} tokens, got {len(space.choices) + 1}"):
        tokens.decode(space, [*given_tokens, 0])


KERNEL = Plain(
    (
        Choice("op", ("conv", "skip")),
        Choice("kernel", (3, 5), when=(When("op", ("conv",)),)),
        Choice("width", (8, 16)),
    )
)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"op": "conv", "kernel": 3, "width": 8}, None),
        ({"op": "skip", "width": 8}, None),
        ({"op": "pool", "width": 8}, "'pool' is not an option of choice 'op'"),
        ({"op": "conv", "width": 8}, "choice 'kernel' is active but missing"),
        ({"op": "skip", "kernel": 3, "width": 8}, "choice 'kernel' is inactive but given"),
        ({"op": "skip"}, "choice 'width' is active but missing"),
        ({"op": "skip", "width": 8.0}, "'8.0' is not an option of choice 'width'"),
        ({"width": 8, "op": "skip"}, "its choices are not in the order of the space"),
        ({"op": "skip", "width": 8, "depth": 1}, "'depth' is no choice of space 'random'"),
    ],
)
def test_the_reason_names_what_is_wrong(values: dict[str, Value], reason: str | None) -> None:
    found = KERNEL.illegal(Architecture("random", values))
    assert found is None if reason is None else reason in str(found)
    assert "belongs to space 'other'" in str(KERNEL.illegal(Architecture("other", values)))


def test_what_is_not_allowed_is_illegal() -> None:
    class Even(Plain):
        def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
            return tuple(o for o in choice.options if (int(o) + sum(map(int, prefix.values()))) % 2 == 0)

    space = Even((Choice("a", (0, 1, 2)), Choice("b", (0, 1, 2))))
    assert moves.size(space) == 4
    reason = space.illegal(Architecture("random", {"a": 2, "b": 1}))
    assert reason == "'1' is not allowed for choice 'b' after {'a': 2}"


def test_completion_keeps_what_is_given_where_it_is_active_and_allowed() -> None:
    def last(choice: Choice, options: tuple[Value, ...]) -> Value:
        return options[-1]

    assert dict(moves.complete(KERNEL, {"kernel": 3}, last).values) == {"op": "skip", "width": 16}
    assert dict(moves.complete(KERNEL, {"kernel": 3}, moves.first).values) == {"op": "conv", "kernel": 3, "width": 8}
    assert dict(moves.complete(KERNEL, {"op": "conv", "kernel": 7}, last).values)["kernel"] == 5


def test_sampling_is_uniform_over_what_is_allowed() -> None:
    rng = generator("uniform")
    counts = [0, 0, 0]
    for _ in range(3000):
        arch = moves.sample(KERNEL, rng)
        counts[0 if arch.values["op"] == "skip" else (arch.values["kernel"] == 3) + 1] += 1
    assert abs(counts[0] - 1500) < 110  # four standard deviations
    assert abs(counts[1] - 750) < 95


def test_size_is_a_product_counted_only_where_it_must_be() -> None:
    large = Plain(tuple(Choice(f"c{number}", tuple(range(10))) for number in range(30)))
    assert moves.size(large, limit=1) == 10**30
    conditional = Plain((*large.choices, Choice("last", (1, 2), when=(When("c0", (1,)),))))
    assert moves.size(conditional, limit=100) is None
    assert moves.size(KERNEL, limit=6) == 6
    assert moves.size(KERNEL, limit=5) is None
