"""Guided masked diffusion: exact guidance, calls of the denoiser, legality on every space, what is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import chisquare, spearmanr

import search_spaces
from nas_core import moves, refs
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Wanted
from nas_core.task import IMAGE_CLASSIFICATION, Task
from search_spaces.nasbench201.space import NasBench201
from strategies.diffusion.config import GuideConfig
from strategies.diffusion.guide import CHANCE, NUMBER, WIDE, Absence, Guide, Perceptrons, PropertyBound
from strategies.diffusion.sampler import BEST, SAME, ordered, tau_leaping
from strategies.diffusion.slots import Slots

Floats = NDArray[numpy.float64]
Tokens = NDArray[numpy.int64]

SPACE = NasBench201()
CELLS = Slots(SPACE)
IMAGES = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 32, 32), outputs=10)


class Conditional(SearchSpace):
    """A third choice that is there with one value of the first, and a fourth that hangs on the third."""

    name = "conditional"
    choices = (
        Choice("first", ("a", "b", "c")),
        Choice("second", (0, 1)),
        Choice("third", (0, 1, 2), when=(When("first", ("b",)),)),
        Choice("fourth", (True, False), when=(When("third", (1, 2)),)),
    )


class Rising(SearchSpace):
    """No choice is below the one before."""

    name = "rising"
    choices = tuple(Choice(f"c{place}", (0, 1, 2, 3)) for place in range(4))

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        least = max((int(value) for value in prefix.values()), default=0)
        return tuple(option for option in choice.options if int(option) >= least)


WITH_ARGUMENTS = ("ae-cnn(units=5)", "darts(levels=3)", "nasnet(blocks=2)", "regnet(stages=4, bottleneck=2, se=False)")

SPACES: dict[str, SearchSpace] = {
    **{
        name: refs.load(name, search_spaces.BUILTIN, search_spaces.GROUP, "space").object
        for name in (*search_spaces.BUILTIN, *WITH_ARGUMENTS)
    },
    "conditional": Conditional(),
    "rising": Rising(),
}


class Fixed:
    """A denoiser with the same distributions [L, W] whatever is decided; the last row of `tables` is for `BEST`."""

    def __init__(self, *tables: Floats) -> None:
        self.tables = tables
        self.calls = 0
        self.rows = 0

    def log_probabilities(self, tokens: Tokens, slots: Tokens, condition: Tokens | None = None) -> Floats:
        self.calls += 1
        self.rows += len(tokens)
        with numpy.errstate(divide="ignore"):
            found: Floats = numpy.log(self.tables[0 if condition is None else -1][slots])
        return found


def distributions(seed: int) -> Floats:
    """[L, W] of NAS-Bench-201's slots, where token 0 is never there."""
    drawn = generator(seed, "table").dirichlet([2.0] * 5, CELLS.count)
    return numpy.concatenate([numpy.zeros((CELLS.count, 1)), drawn], axis=1)


def frequencies(tokens: Tokens) -> Floats:
    """[L, W]"""
    return numpy.stack([(tokens == token).mean(axis=0) for token in range(CELLS.width)], axis=1)


def farthest(one: Floats, other: Floats) -> float:
    """The largest total variation of a slot."""
    return float(numpy.abs(one - other).sum(axis=1).max() / 2)


def additive(rewards: Floats) -> object:
    """A sum over the decided slots; undecided ones count their mean."""
    padded = numpy.concatenate([rewards, rewards[:, 1:].mean(axis=1, keepdims=True)], axis=1)
    return lambda tokens: padded[numpy.arange(CELLS.count), tokens].sum(axis=1)


# -- exact guidance ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1.0, 3.0])
def test_guided_samples_of_a_uniform_prior_follow_the_softmax_of_an_additive_reward(gamma: float) -> None:
    rewards = numpy.concatenate(
        [numpy.zeros((CELLS.count, 1)), generator(3, "rewards").normal(size=(CELLS.count, 5))], axis=1
    )
    found = ordered(CELLS, 10_000, generator(0, "draw"), guides=[(additive(rewards), gamma)])  # type: ignore[list-item]
    wanted = numpy.zeros_like(rewards)
    wanted[:, 1:] = softmax(gamma * rewards[:, 1:], axis=1)
    assert farthest(frequencies(found.tokens), wanted) < 0.03
    for slot in range(CELLS.count):
        counts = [(found.tokens[:, slot] == token).sum() for token in range(1, 6)]
        assert chisquare(counts, 10_000 * wanted[slot, 1:]).pvalue > 1e-4


def test_no_guidance_is_the_prior() -> None:
    table = distributions(1)
    unguided = ordered(CELLS, 10_000, generator(0, "draw"), denoiser=Fixed(table))
    assert farthest(frequencies(unguided.tokens), table) < 0.03
    rewards = generator(5, "rewards").normal(size=table.shape)
    zero = ordered(CELLS, 500, generator(0), denoiser=Fixed(table), guides=[(additive(rewards), 0.0)])  # type: ignore[list-item]
    assert (zero.tokens == ordered(CELLS, 500, generator(0), denoiser=Fixed(table)).tokens).all()


def test_guidance_and_prior_multiply() -> None:
    table, rewards = distributions(1), numpy.zeros((CELLS.count, CELLS.width))
    rewards[:, 1:] = generator(4, "rewards").normal(size=(CELLS.count, 5))
    guides = [(additive(rewards), 2.0)]
    found = ordered(CELLS, 10_000, generator(0, "draw"), denoiser=Fixed(table), guides=guides)  # type: ignore[arg-type]
    wanted = table * numpy.exp(2 * rewards)
    assert farthest(frequencies(found.tokens), wanted / wanted.sum(axis=1, keepdims=True)) < 0.03


def test_every_sequence_has_its_own_strength() -> None:
    rewards = numpy.zeros((CELLS.count, CELLS.width))
    rewards[:, 1] = 1.0
    strengths = numpy.repeat([0.0, 3.0], 4000)
    found = ordered(CELLS, 8000, generator(0), guides=[(additive(rewards), strengths)]).tokens  # type: ignore[list-item]
    assert abs((found[:4000] == 1).mean() - 0.2) < 0.02
    assert abs((found[4000:] == 1).mean() - numpy.exp(3) / (numpy.exp(3) + 4)) < 0.02


def test_temperature_flattens() -> None:
    table = distributions(2)
    found = ordered(CELLS, 10_000, generator(0), denoiser=Fixed(table), temperature=2.0)
    wanted = numpy.sqrt(table)
    assert farthest(frequencies(found.tokens), wanted / wanted.sum(axis=1, keepdims=True)) < 0.03


# -- calls ------------------------------------------------------------------------------------------------


def test_the_ordered_sampler_calls_the_denoiser_once_per_slot() -> None:
    denoiser = Fixed(distributions(1))
    found = ordered(CELLS, 50, generator(0), denoiser=denoiser)
    assert found.calls == denoiser.calls == CELLS.count
    assert denoiser.rows == 50 * CELLS.count


def test_orders_differ_where_slots_are_free_and_are_uniform() -> None:
    orders = CELLS.walk(6000, generator(0)).orders
    assert (numpy.sort(orders, axis=1) == numpy.arange(6)).all()
    firsts = numpy.bincount(orders[:, 0], minlength=6)
    assert chisquare(firsts).pvalue > 1e-4


def test_tau_leaping_needs_no_more_calls_per_sequence_than_slots() -> None:
    table = distributions(1)
    denoiser = Fixed(table)
    found = tau_leaping(CELLS, 2000, generator(0), denoiser, 400)
    assert found.calls <= CELLS.count
    assert denoiser.rows <= 2000 * CELLS.count**2  # each computation is of all slots
    assert (found.tokens != CELLS.mask).all()
    assert farthest(frequencies(found.tokens), table) < 0.04


def test_classifier_free_guidance_extrapolates() -> None:
    plain, best = distributions(1), distributions(2)
    found = ordered(CELLS, 10_000, generator(0), denoiser=Fixed(plain, best), condition=BEST, scale=1.5)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        wanted = numpy.exp(numpy.log(plain) + 2.5 * (numpy.log(best) - numpy.log(plain)))
    wanted = numpy.nan_to_num(wanted)
    assert farthest(frequencies(found.tokens), wanted / wanted.sum(axis=1, keepdims=True)) < 0.03
    assert found.skipped == 0


def test_where_the_condition_says_nothing_new_the_second_call_is_spared() -> None:
    table = distributions(1)
    denoiser = Fixed(table, table)
    found = ordered(CELLS, 100, generator(0), denoiser=denoiser, condition=BEST, scale=1.5)
    assert found.calls == CELLS.count + 1
    assert found.skipped == 100 * (CELLS.count - 1)
    assert denoiser.rows == 100 * (CELLS.count + 1)
    assert (found.tokens == ordered(CELLS, 100, generator(0), denoiser=Fixed(table)).tokens).all()
    assert SAME == 0.01


class Fading:
    """What the condition says matters less, the more is decided."""

    def __init__(self, plain: Floats, best: Floats) -> None:
        self.plain, self.best = plain, best

    def log_probabilities(self, tokens: Tokens, slots: Tokens, condition: Tokens | None = None) -> Floats:
        share = (tokens == CELLS.mask).mean(axis=1, keepdims=True) ** 3 * (condition is not None)
        with numpy.errstate(divide="ignore"):
            found: Floats = numpy.log((1 - share) * self.plain[slots] + share * self.best[slots])
        return found


def test_spared_calls_leave_the_distribution_as_it_is() -> None:
    denoiser = Fading(distributions(1), distributions(2))
    every, spared = (
        ordered(CELLS, 10_000, generator(seed), denoiser=denoiser, condition=BEST, scale=1.5, skip=skip)
        for seed, skip in ((0, 0.0), (1, SAME))
    )
    assert (every.skipped, every.calls) == (0, 2 * CELLS.count)
    assert spared.skipped > 0.2 * 10_000 * CELLS.count
    assert farthest(frequencies(every.tokens), frequencies(spared.tokens)) < 0.03
    assert farthest(frequencies(every.tokens), distributions(1)) > 0.06  # guidance is seen


def test_a_scale_of_zero_needs_no_second_call() -> None:
    denoiser = Fixed(distributions(1), distributions(2))
    assert ordered(CELLS, 20, generator(0), denoiser=denoiser, condition=BEST).calls == CELLS.count


def test_draws_come_from_the_generator_alone() -> None:
    def drawn() -> Tokens:
        return ordered(CELLS, 40, generator(7), denoiser=Fixed(distributions(1))).tokens

    assert (drawn() == drawn()).all()


# -- legality ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_every_sample_is_legal(name: str) -> None:
    space = SPACES[name]
    slots = Slots(space)
    # A guide that pulls to the first options, whatever the space allows.
    found = ordered(slots, 200, generator(0), guides=[(lambda rows: -rows.sum(axis=1).astype(float), 1.0)])
    archs = slots.decode(found.tokens)
    assert [space.illegal(arch) for arch in archs] == [None] * 200
    assert (slots.encode(archs) == found.tokens).all()


@pytest.mark.parametrize("name", SPACES)
def test_unguided_draws_of_free_and_of_restricted_spaces_are_those_of_the_space(name: str) -> None:
    """Where the order is that of the space, or does not matter, the draws are `moves.sample`'s in distribution."""
    space = SPACES[name]
    slots = Slots(space)
    rng = generator(1)
    reference = slots.encode([moves.sample(space, rng) for _ in range(2000)])
    found = ordered(slots, 2000, generator(0)).tokens
    for slot in range(slots.count):
        one, other = (numpy.bincount(rows[:, slot], minlength=slots.width) / 2000 for rows in (reference, found))
        # The noise of so many draws grows with the root of the options.
        assert numpy.abs(one - other).sum() / 2 < 0.08 * max(1, (slots.width / 16) ** 0.5)


def test_a_condition_is_decided_before_what_hangs_on_it() -> None:
    walk = Slots(Conditional()).walk(500, generator(0))
    places = numpy.argsort(walk.orders, axis=1)
    assert (places[:, 0] < places[:, 2]).all()
    assert (places[:, 2] < places[:, 3]).all()
    assert len({tuple(order) for order in walk.orders.tolist()}) > 2


# -- what is learned --------------------------------------------------------------------------------------


def cells(count: int, seed: int) -> Tokens:
    rng = generator(seed, "cells")
    return CELLS.encode([moves.sample(SPACE, rng) for _ in range(count)])


def test_the_guide_is_the_mean_over_what_is_undecided() -> None:
    rewards = generator(8, "rewards").normal(size=(CELLS.count, CELLS.width))
    tokens = cells(400, 0)
    targets = rewards[numpy.arange(CELLS.count), tokens].sum(axis=1)
    targets = (targets - targets.mean()) / targets.std() + 1.0
    guide = Guide(CELLS, GuideConfig(steps=600), 0)
    guide.fit(tokens, targets)
    undecided = numpy.full((1, CELLS.count), CELLS.mask)
    assert abs(guide.predict(undecided)[0][0] - 1.0) < 0.15
    half = tokens.copy()
    half[:, 3:] = CELLS.mask
    expected = rewards[numpy.arange(3), tokens[:, :3]].sum(axis=1)
    assert spearmanr(guide.predict(half)[0], expected).statistic > 0.9
    unseen = cells(300, 1)
    mean, deviation = guide.predict(unseen)
    assert spearmanr(mean, rewards[numpy.arange(CELLS.count), unseen].sum(axis=1)).statistic > 0.9
    assert (deviation >= 0).all()


def test_a_guide_depends_on_its_seed_and_data_alone() -> None:
    tokens, targets = cells(50, 0), generator(1, "targets").normal(size=50)

    def predicted(seed: int) -> Floats:
        guide = Guide(CELLS, GuideConfig(steps=20), seed)
        guide.fit(tokens, targets)
        return guide.predict(tokens)[0]

    assert (predicted(0) == predicted(0)).all()
    assert (predicted(0) != predicted(1)).any()


@pytest.fixture
def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Property bounds that learn for half as long, which is enough for what is asked of them here."""
    for name, known in (("NUMBER", NUMBER), ("CHANCE", CHANCE)):
        monkeypatch.setattr(f"strategies.diffusion.guide.{name}", known.model_copy(update={"steps": known.steps // 2}))


@pytest.mark.usefixtures("sooner")
@pytest.mark.parametrize("at_most", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_limit_on_parameters_is_met_without_rejection(at_most: bool) -> None:
    rng = generator(2, "examples")
    archs = tuple(moves.sample(SPACE, rng) for _ in range(500))

    def params(rows: Tokens) -> Floats:
        return numpy.array([SPACE.costs(arch, IMAGES, SPACE.Size())["params"] for arch in CELLS.decode(rows)])

    values = params(CELLS.encode(archs))
    limit = float(numpy.quantile(values, 0.3 if at_most else 0.7))
    bound = PropertyBound(CELLS, Wanted(archs, tuple(values.tolist()), limit, at_most), 0)
    found = params(ordered(CELLS, 200, generator(0), guides=[(bound.log_probability, 1.0)]).tokens)
    met = found <= limit if at_most else found >= limit
    assert met.mean() >= 0.9
    unseen = cells(300, 6)  # parameters add up, so what is complete is no matter of chance
    fits = params(unseen) <= limit if at_most else params(unseen) >= limit
    assert numpy.exp(bound.log_probability(unseen)) == pytest.approx(fits.astype(float), abs=1e-3)
    # Bayes' rule, not a pull to the extreme: they are spread as those that meet the limit by chance.
    chance = values[values <= limit] if at_most else values[values >= limit]
    assert abs(found[met].mean() - chance.mean()) < 0.15 * chance.mean()


@pytest.mark.usefixtures("sooner")
def test_a_bound_for_an_undecided_architecture_is_the_share_that_meets_it() -> None:
    tokens = cells(500, 3)
    values = (tokens == 4).sum(axis=1).astype(float)  # 3x3 convolutions
    bound = PropertyBound(CELLS, Wanted(tuple(CELLS.decode(tokens)), tuple(values.tolist()), 2.0, False), 0)
    undecided = numpy.full((1, CELLS.count), CELLS.mask)
    share = 1 - 0.8**6 - 6 * 0.2 * 0.8**5
    assert abs(float(numpy.exp(bound.log_probability(undecided)[0])) - share) < 0.06
    complete = numpy.array([[4, 4, 1, 1, 1, 1], [4, 1, 1, 1, 1, 1]])
    assert numpy.exp(bound.log_probability(complete)) == pytest.approx([1.0, 0.0], abs=0.02)


@pytest.mark.usefixtures("sooner")
def test_a_limit_is_met_where_choices_are_restricted_and_may_be_absent() -> None:
    """What is asked for are beginnings of sequences; most of the last choices are absent."""
    space: Any = SPACES["ae-cnn(units=5)"]
    slots, rng = Slots(space), generator(4, "examples")
    archs = tuple(moves.sample(space, rng) for _ in range(400))

    def units(some: Sequence[Architecture]) -> Floats:
        return numpy.array([float(sum(value == "resnet" for value in arch.values.values())) for arch in some])

    values = units(archs)
    share = (values >= 3).mean()
    bound = PropertyBound(slots, Wanted(archs, tuple(values.tolist()), 3.0, False), 0)
    drawn = slots.decode(ordered(slots, 200, generator(0), guides=[(bound.log_probability, 1.0)]).tokens)
    assert share < 0.35
    assert (units(drawn) >= 3).mean() >= 0.9
    lengths = [numpy.mean([int(arch.values["length"]) for arch in some]) for some in (archs, drawn)]
    met = [arch for arch, value in zip(archs, values, strict=True) if value >= 3]
    assert lengths[1] > lengths[0] + 0.3  # one of three has room in long lists
    assert abs(lengths[1] - numpy.mean([int(arch.values["length"]) for arch in met])) < 0.35


def test_what_cannot_be_there_is_known_before_it_is_decided() -> None:
    slots = Slots(Conditional())
    absence, mask = Absence(slots), slots.mask
    rows = numpy.array([[mask] * 4, [1, mask, mask, mask], [2, mask, mask, mask], [2, 1, 1, mask], [2, 1, 3, mask]])
    known = [[mask] * 4, [1, mask, 0, 0], [2, mask, mask, mask], [2, 1, 1, 0], [2, 1, 3, mask]]
    assert absence.filled(rows).tolist() == known
    orders = numpy.array([[1, 0, 2, 3], [0, 2, 1, 3], [0, 1, 2, 3]])
    complete = numpy.array([[1, 1, 0, 0], [2, 1, 1, 0], [2, 2, 2, 1]])
    assert absence.places(complete, orders).tolist() == [[1, 0, 1, 1], [0, 2, 1, 1], [0, 1, 2, 3]]


def test_first_layers_that_are_looked_up_are_the_product() -> None:
    slots = Slots(SPACES["darts"])
    network = Perceptrons(slots, GuideConfig(), 1, 0)
    assert network.weights[0].shape[1] > WIDE
    tokens = torch.from_numpy(generator(0).integers(slots.width + 1, size=(50, slots.count)))
    product = network(tokens).detach()
    with torch.no_grad():
        assert torch.allclose(network(tokens), product, atol=1e-5)
        own = tokens.expand(network.members, -1, -1).flip(1)
        assert torch.allclose(network(own), product.flip(1), atol=1e-5)


def test_numbers_that_are_not_finite_do_not_lead_astray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NUMBER", "CHANCE"):
        monkeypatch.setattr(f"strategies.diffusion.guide.{name}", GuideConfig(steps=20))
    archs = tuple(CELLS.decode(cells(30, 5)))
    values = (float("nan"), float("inf"), *map(float, range(28)))
    bound = PropertyBound(CELLS, Wanted(archs, values, float("-inf"), True), 0)
    found = ordered(CELLS, 20, generator(0), guides=[(bound.log_probability, 1.0)]).tokens
    assert len(CELLS.decode(found)) == 20
    with pytest.raises(UsageError, match="none of 30 examples is finite"):
        PropertyBound(CELLS, Wanted(archs, (float("nan"),) * 30, 1.0, True), 0)
