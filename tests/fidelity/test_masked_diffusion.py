"""The denoiser of masked diffusion and its training: closed-form losses, no time, what is learned, exact resumption."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas_core import moves
from nas_core.choice import Choice, Value, When
from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from search_spaces.ae_cnn.space import AeCnn
from search_spaces.nasbench201.space import NasBench201
from search_spaces.regnet.space import RegNet
from strategies.diffusion import prior as priors
from strategies.diffusion.config import CLASSES, DenoiserConfig
from strategies.diffusion.denoiser import Denoiser
from strategies.diffusion.prior import (
    arrays,
    k_dce,
    lambda_dce,
    load,
    prior,
    quantile_classes,
    steps_for,
    training_of,
)
from strategies.diffusion.sampler import BEST, ordered
from strategies.diffusion.slots import Slots
from studies.store import snapshots

SMALL = DenoiserConfig(layers=2, width=32, heads=2, hidden=64, samples=300, batch=64)
CELLS = Slots(NasBench201())

Loss = Callable[[Denoiser, Tensor, torch.Generator], Tensor]


def product(*sizes: int) -> Slots:
    """Slots that are free of one another."""

    class Product(SearchSpace):
        name = "product"
        choices = tuple(Choice(f"choice{slot}", tuple(range(size))) for slot, size in enumerate(sizes))

    return Slots(Product())


class Coupled(SearchSpace):
    """The second choice is at most the first; the third is there where the first is 2."""

    name = "coupled"
    choices = (
        Choice("first", (0, 1, 2)),
        Choice("second", (0, 1, 2)),
        Choice("third", ("a", "b"), when=(When("first", (2,)),)),
    )

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        if choice.name == "second":
            return tuple(option for option in choice.options if int(option) <= int(prefix["first"]))
        return choice.options


class Watched(Denoiser):
    """Records what it is shown."""

    def __init__(self, slots: Slots) -> None:
        super().__init__(slots, SMALL, 0)
        self.shown: list[Tensor] = []

    def states(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        self.shown.append(tokens)
        return super().states(tokens, condition)


def some(slots: Slots, count: int, seed: int = 0) -> NDArray[numpy.int64]:
    rng = generator(seed, "archs")
    return slots.encode([moves.sample(slots.space, rng) for _ in range(count)])


def random_network(slots: Slots, seed: int = 0, config: DenoiserConfig = SMALL) -> Denoiser:
    """Not uniform, without training."""
    denoiser = Denoiser(slots, config, seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
    return denoiser


def masked_somewhere(slots: Slots, count: int, seed: int = 0) -> NDArray[numpy.int64]:
    tokens = some(slots, count, seed)
    tokens[generator(seed, "masks").random(tokens.shape) < 0.5] = slots.mask
    return tokens


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(numpy.array_equal(one[name], other[name]) for name in one)


# -- the losses -------------------------------------------------------------------------------------------------------


def test_the_loss_of_a_uniform_network_is_the_logarithm_of_the_product_for_every_k() -> None:
    denoiser = Watched(CELLS)
    seen = set()
    for seed in range(80):
        loss = k_dce(denoiser, torch.from_numpy(some(CELLS, 1, seed)), torch.Generator().manual_seed(seed))
        assert loss.item() == pytest.approx(6 * math.log(5), abs=1e-5)
        seen.add(int((denoiser.shown[-1] == CELLS.mask).sum()))
    assert seen == set(range(1, 7))
    assert 6 * math.log(5) == pytest.approx(9.6566, abs=5e-5)


def test_k_masks_exactly_k_uniform_slots() -> None:
    denoiser = Watched(product(3, 3, 3, 3))
    k_dce(denoiser, torch.from_numpy(some(denoiser.slots, 8_000)), torch.Generator().manual_seed(0))
    masked = denoiser.shown[0] == denoiser.slots.mask
    counts = masked.sum(1)
    assert torch.bincount(counts, minlength=5)[0] == 0
    for k in range(1, 5):
        of_k = masked[counts == k].double()
        assert len(of_k) == pytest.approx(2_000, abs=5 * math.sqrt(2_000 * 0.75))
        assert of_k.mean(0).numpy() == pytest.approx(k / 4, abs=5 * 0.5 / math.sqrt(len(of_k)))


def test_slots_of_different_sizes_add_their_logarithms_in_expectation() -> None:
    slots = product(2, 3, 7)
    tokens = torch.from_numpy(some(slots, 200)).repeat(100, 1)
    loss = k_dce(Denoiser(slots, SMALL, 0), tokens, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(math.log(2 * 3 * 7), abs=0.05)


def test_the_lambda_loss_of_a_uniform_network_is_the_same_in_expectation() -> None:
    tokens = torch.from_numpy(some(CELLS, 100)).repeat(200, 1)
    with torch.no_grad():
        loss = lambda_dce(Denoiser(CELLS, SMALL, 0), tokens, torch.Generator().manual_seed(1))
    assert loss.item() == pytest.approx(6 * math.log(5), abs=0.35)


@pytest.mark.parametrize("loss", [k_dce, lambda_dce])
def test_both_losses_are_the_mean_over_orders_of_the_log_likelihood(loss: Loss) -> None:
    """For any network: sum over k of (1 / L) (L / k) times the mean over masks of k slots, computed in full."""
    slots = product(3, 4, 5)
    denoiser, one = random_network(slots), torch.tensor([[3, 1, 5]])
    expected = 0.0
    with torch.no_grad():
        for k in range(1, 4):
            masks = list(itertools.combinations(range(3), k))
            for mask in masks:
                shown = one.clone()
                shown[0, list(mask)] = slots.mask
                found = denoiser(shown)[0]
                expected -= sum(float(found[slot, one[0, slot]]) for slot in mask) / (k * len(masks))
        many = float(loss(denoiser, one.repeat(60_000, 1), torch.Generator().manual_seed(0)))
    assert abs(expected - math.log(60)) > 0.5  # far from uniform
    assert many == pytest.approx(expected, rel=0.02)


def test_weights_of_sequences_weigh_their_losses() -> None:
    denoiser, tokens = random_network(CELLS), torch.from_numpy(some(CELLS, 3))

    def loss(weights: Tensor | None) -> float:
        return k_dce(denoiser, tokens, torch.Generator().manual_seed(5), None, weights).item()

    each = [loss(one) for one in torch.eye(3)]
    assert loss(None) == pytest.approx(sum(each) / 3, rel=1e-5)
    assert loss(torch.tensor([1.0, 0.0, 3.0])) == pytest.approx((each[0] + 3 * each[2]) / 4, rel=1e-5)


# -- the network ------------------------------------------------------------------------------------------------------


def test_a_masked_sequence_has_one_output_whatever_else_is_computed_and_when() -> None:
    denoiser, tokens = random_network(CELLS), masked_somewhere(CELLS, 40)
    with torch.no_grad():
        together = denoiser(torch.from_numpy(tokens))
        alone = torch.cat([denoiser(torch.from_numpy(tokens[row : row + 1])) for row in range(40)])
        again = denoiser(torch.from_numpy(tokens))
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-4)
    assert torch.equal(again, together)


def test_one_slot_of_each_sequence_is_what_the_whole_output_says_of_it() -> None:
    denoiser, tokens = random_network(CELLS), masked_somewhere(CELLS, 60)
    rng = generator(0)
    slots, classes = rng.integers(0, 6, 60), rng.integers(0, CLASSES + 1, 60)
    for condition in (None, classes):
        with torch.no_grad():
            whole = denoiser(torch.from_numpy(tokens), None if condition is None else torch.from_numpy(condition))
        found = denoiser.log_probabilities(tokens, slots, condition)
        wanted = whole.numpy()[numpy.arange(60), slots]
        assert numpy.array_equal(numpy.isfinite(found), CELLS.support[slots])
        assert found[CELLS.support[slots]] == pytest.approx(wanted[CELLS.support[slots]], abs=1e-4)
    none = denoiser.log_probabilities(tokens, slots)
    assert numpy.array_equal(none, denoiser.log_probabilities(tokens, slots, numpy.zeros(60, dtype=numpy.int64)))
    assert not numpy.allclose(numpy.exp(none), numpy.exp(found), atol=1e-3)


@pytest.mark.parametrize("space", [Coupled(), RegNet(), AeCnn()], ids=lambda space: space.name)
def test_every_slot_has_a_distribution_over_its_own_tokens(space: SearchSpace) -> None:
    slots = Slots(space)
    with torch.no_grad():
        found = random_network(slots)(torch.from_numpy(masked_somewhere(slots, 5))).exp().numpy()
    assert (found[:, ~slots.support] == 0).all()
    assert (found[:, slots.support] > 0).all()
    assert found.sum(axis=2) == pytest.approx(1, abs=1e-5)


def test_values_of_one_kind_share_their_embeddings() -> None:
    class Kinds(SearchSpace):
        name = "kinds"
        choices = (Choice("a", ("x", "y"), kind="op"), Choice("b", ("y", "z"), kind="op"), Choice("c", ("x", "y")))

    denoiser = Denoiser(Slots(Kinds()), SMALL, 0)
    assert len(denoiser.output) == 1 + 3 + 2  # absence, the values of the kind, those of the choice without
    with torch.no_grad():
        denoiser.output[denoiser.ids[0, 2], 0] = 5.0  # "y"
        found = denoiser(torch.full((1, 3), denoiser.slots.mask))[0].exp()
    uniform = [float(found[slot, token]) == pytest.approx(0.5, abs=1e-4) for slot, token in ((0, 2), (1, 1), (2, 2))]
    assert uniform == [False, False, True]


def test_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = arrays(Denoiser(CELLS, SMALL, 3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert equal(first, arrays(Denoiser(CELLS, SMALL, 3)))
    assert not equal(first, arrays(Denoiser(CELLS, SMALL, 4)))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(UsageError, match="width 30 is not a multiple of heads 4"):
        validate(DenoiserConfig, {"width": 30}, "generator")


# -- what is learned --------------------------------------------------------------------------------------------------


def test_equal_slots_are_learned_equal() -> None:
    slots = product(5, 5)
    first = generator(0, "values").integers(1, 6, 1_000)
    denoiser = Denoiser(slots, DenoiserConfig(), 0)
    training_of(denoiser, numpy.stack([first, first], axis=1), 300, 0).advance()
    values = numpy.arange(1, 6)
    for known, asked in ((0, 1), (1, 0)):
        tokens = numpy.full((5, 2), slots.mask)
        tokens[:, known] = values
        found = denoiser.log_probabilities(tokens, numpy.full(5, asked))
        assert (numpy.exp(found[numpy.arange(5), values]) > 0.95).all()
    drawn = ordered(slots, 2_000, generator(1), denoiser=denoiser).tokens
    assert (drawn[:, 0] == drawn[:, 1]).mean() > 0.95
    assert numpy.bincount(drawn[:, 0], minlength=6)[1:] / 2_000 == pytest.approx(0.2, abs=0.08)


def test_a_condition_shifts_what_is_drawn_to_its_quarter() -> None:
    slots = product(3, 3, 3, 3)
    tokens = some(slots, 400)
    values = (tokens == 3).sum(axis=1).astype(float)
    denoiser = Denoiser(slots, SMALL, 0)
    training_of(
        denoiser, tokens, 250, 0, condition=quantile_classes(values + 0.1 * generator(0).standard_normal(400))
    ).advance()

    def mean(condition: int | None, scale: float = 0.0) -> float:
        drawn = ordered(slots, 1_000, generator(2), denoiser=denoiser, condition=condition, scale=scale)
        return float((drawn.tokens == 3).sum(axis=1).mean())

    worst, none, best = mean(1), mean(None), mean(BEST)
    assert worst < 0.7 < none - 0.2
    assert none == pytest.approx(values.mean(), abs=0.25)  # 15% are learned without a condition
    assert best > none + 0.7
    assert mean(BEST, 1.5) > best


def test_sequences_are_drawn_by_their_weights() -> None:
    slots = product(4, 4)
    tokens = some(slots, 200)
    weights = numpy.where((tokens == 2).any(axis=1), 0.0, numpy.where(tokens[:, 0] == 1, 3.0, 1.0))
    denoiser = Denoiser(slots, SMALL, 0)
    training_of(denoiser, tokens, 250, 0, weights=weights).advance()
    drawn = ordered(slots, 1_000, generator(0), denoiser=denoiser).tokens
    assert (drawn == 2).any(axis=1).mean() < 0.04
    wanted = weights[tokens[:, 0] == 1].sum() / weights.sum()
    assert (drawn[:, 0] == 1).mean() == pytest.approx(wanted, abs=0.08)


def test_quarters_are_those_of_the_ranking() -> None:
    assert quantile_classes(numpy.array([8.0, 1, 2, 7, 3, 6, 4, 5])).tolist() == [4, 1, 1, 4, 2, 3, 2, 3]
    assert quantile_classes(numpy.array([0.0, 9, 9, 9, 9])).tolist() == [1, 4, 4, 4, 4]
    assert quantile_classes(numpy.array([0.3])).tolist() == [CLASSES]


# -- the prior of a space ---------------------------------------------------------------------------------------------


def test_what_a_space_allows_is_learned() -> None:
    slots = Slots(Coupled())
    denoiser = prior(slots, SMALL.model_copy(update={"steps": 400}), {})
    assert denoiser is not None
    found = numpy.exp(
        denoiser.log_probabilities(
            numpy.array([[slots.mask] * 3, [1, slots.mask, slots.mask], [2, 1, slots.mask], [3, 3, slots.mask]]),
            numpy.array([0, 1, 2, 2]),
        )
    )
    assert found[0, 1:] == pytest.approx(1 / 3, abs=0.1)
    assert found[1, 1] > 0.9  # nothing else is allowed
    assert found[2, 0] > 0.9  # absent
    assert found[3, 0] < 0.1
    assert found[3, 1:3] == pytest.approx(0.5, abs=0.15)


def test_free_slots_need_no_prior() -> None:
    assert prior(CELLS, SMALL, {}) is None


def test_steps_grow_with_the_slots() -> None:
    assert [steps_for(slots) for slots in (5, 30, 60, 97)] == [200, 600, 1_200, 1_500]


class Killed(Exception):
    """The process ends here."""


class Stored(MutableMapping[str, Mapping[str, Any]]):
    """Keeps what can be stored; the process is killed when it writes more often than `writes` times."""

    def __init__(self, writes: int | None = None) -> None:
        self.writes: list[int] = []
        self.left = writes
        self._packed: dict[str, tuple[str, bytes]] = {}

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = snapshots.unpack(*self._packed[key])
        return found

    def __setitem__(self, key: str, value: Mapping[str, Any]) -> None:
        if self.left is not None and len(self.writes) >= self.left:
            raise Killed
        self.writes.append(int(value["step"]))
        self._packed[key] = snapshots.pack(value)

    def __delitem__(self, key: str) -> None:
        del self._packed[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def test_a_killed_training_goes_on_and_ends_bit_for_bit_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    often = 10
    monkeypatch.setattr("strategies.diffusion.prior.CHECKPOINT", often)
    slots, config = Slots(Coupled()), SMALL.model_copy(update={"steps": 4 * often})
    whole, killed = Stored(), Stored(2)
    never = prior(slots, config, whole)
    assert whole.writes == [often, 2 * often, 3 * often, 4 * often]
    with pytest.raises(Killed):
        prior(slots, config, killed)
    assert killed.writes == whole.writes[:2]
    killed.left = None
    torch.manual_seed(99)
    resumed = prior(slots, config, killed)
    assert killed.writes == whole.writes
    assert never is not None
    assert resumed is not None
    assert equal(arrays(resumed), arrays(never))


def test_a_prior_is_trained_once_per_space_and_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    slots, config = Slots(Coupled()), SMALL.model_copy(update={"steps": 20})
    kept = Stored()
    made = prior(slots, config, kept)
    again = prior(slots, SMALL.model_copy(update={"steps": 20}), Stored())  # elsewhere, the same comes out
    monkeypatch.setattr(priors, "training_of", None)
    found = prior(Slots(Coupled()), config, kept)
    assert made is not None
    assert found is not None
    assert again is not None
    assert equal(arrays(found), arrays(made))
    assert equal(arrays(again), arrays(made))
    with pytest.raises(TypeError):  # another configuration is trained anew
        prior(slots, SMALL.model_copy(update={"steps": 21}), kept)


def test_training_depends_on_its_arguments_alone() -> None:
    tokens, classes = some(CELLS, 50), quantile_classes(numpy.arange(50.0))

    def trained(seed: int, threads: int) -> dict[str, Any]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            torch.manual_seed(threads)
            state = torch.get_rng_state()
            denoiser = Denoiser(CELLS, SMALL, 0)
            training_of(denoiser, tokens, 15, seed, condition=classes, weights=numpy.arange(50.0)).advance()
            assert torch.equal(torch.get_rng_state(), state)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        return dict(arrays(denoiser))

    first = trained(0, 1)
    assert equal(first, trained(0, 2))
    assert not equal(first, trained(1, 1))


def test_a_state_is_a_copy_and_can_be_taken_before_the_first_step() -> None:
    denoiser, tokens = Denoiser(CELLS, SMALL, 0), some(CELLS, 50)
    training = training_of(denoiser, tokens, 10, 0)
    begun = training.state_dict()
    training.advance(10)
    first = arrays(denoiser)
    assert not equal(begun["parameters"], first)
    other = Denoiser(CELLS, SMALL, 7)
    training = training_of(other, tokens, 10, 0)
    training.load_state_dict(begun)
    training.advance(10)
    assert equal(arrays(other), first)


def test_weights_survive_as_arrays() -> None:
    denoiser, other = random_network(CELLS), Denoiser(CELLS, SMALL, 9)
    text, blob = snapshots.pack(arrays(denoiser))
    load(other, snapshots.unpack(text, blob))
    assert equal(arrays(other), arrays(denoiser))
