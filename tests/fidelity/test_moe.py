"""Mixtures of experts: the formulas of their papers against plain ones, and faults found in other programs."""

from __future__ import annotations

import copy
import itertools
import math
import statistics
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.layers.assigned import Every, Merged, Split
from search_spaces.layers.dispatch import Chosen
from search_spaces.layers.moe import MixtureOfExperts
from search_spaces.layers.rational import Rational
from search_spaces.operators.experts.gelu import Gelu
from search_spaces.operators.experts.kan import Splines
from search_spaces.operators.experts.linear import Linear
from search_spaces.operators.experts.pade import Pade
from search_spaces.operators.experts.rational import Rational as RationalExperts
from search_spaces.operators.routers.balance import squared_variation, switch_loss
from search_spaces.operators.routers.expert_choice import ExpertChoice
from search_spaces.operators.routers.grin import Grin, near_softmax, scaled
from search_spaces.operators.routers.gshard import GShard
from search_spaces.operators.routers.loss_free import LossFree
from search_spaces.operators.routers.noisy_top_k import NoisyTopK, selected
from search_spaces.operators.routers.smear import Smear
from search_spaces.operators.routers.switch import Switch
from search_spaces.operators.routers.task import TaskRouter

FEATURES, EXPERTS = 8, 4


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """With all parameters drawn, those that start at 0 too."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def alone(experts: nn.Module, number: int, x: Tensor) -> Tensor:
    """The answer of one expert to all tokens `[n, t, features]`, by plain layers."""
    up, down = experts.up, experts.down
    hidden = functional.gelu(x @ up.weight[number].t() + up.bias[number])
    return hidden @ down.weight[number].t() + down.bias[number]


# Mixtures


def test_all_experts_chosen_are_the_dense_mixture() -> None:
    layer = drawn(MixtureOfExperts(NoisyTopK(FEATURES, EXPERTS, EXPERTS), Gelu(EXPERTS, FEATURES, 16, FEATURES))).eval()
    x = torch.randn(3, 5, FEATURES)
    shares = (x @ layer.router.gate.weight.t()).softmax(-1)
    wanted = sum(shares[..., e : e + 1] * alone(layer.experts, e, x) for e in range(EXPERTS))
    assert torch.allclose(layer(x), wanted, atol=1e-6)


@pytest.mark.parametrize("active", [1, 2, 3])
def test_chosen_experts_are_a_loop_over_tokens(active: int) -> None:
    layer = drawn(MixtureOfExperts(NoisyTopK(FEATURES, EXPERTS, active), Gelu(EXPERTS, FEATURES, 16, FEATURES))).eval()
    x = torch.randn(2, 6, FEATURES)
    answer, logits = layer(x), x @ layer.router.gate.weight.t()
    for n, t in itertools.product(range(2), range(6)):
        order = logits[n, t].argsort(descending=True)[:active]
        weights = logits[n, t][order].softmax(0)
        wanted = sum(
            w * alone(layer.experts, int(e), x[n : n + 1, t : t + 1]) for w, e in zip(weights, order, strict=True)
        )
        assert torch.allclose(answer[n, t], wanted[0, 0], atol=1e-6)


def test_gradients_of_tokens_and_weights_are_those_of_the_dense_mixture() -> None:
    layer = drawn(MixtureOfExperts(NoisyTopK(FEATURES, EXPERTS, 2), Gelu(EXPERTS, FEATURES, 16, FEATURES))).eval()
    layer.double()
    x = torch.randn(2, 3, FEATURES, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    values, chosen = layer.router.gate(x).topk(2, -1)
    weights = torch.zeros(2, 3, EXPERTS, dtype=x.dtype).scatter(-1, chosen, values.softmax(-1))
    dense = sum(weights[..., e : e + 1] * alone(layer.experts, e, x) for e in range(EXPERTS))
    factor = torch.randn_like(dense)
    parameters = [x, *layer.parameters()]
    found = torch.autograd.grad((layer(x) * factor).sum(), parameters, allow_unused=True)
    wanted = torch.autograd.grad((dense * factor).sum(), parameters, allow_unused=True)
    for a, b in zip(found, wanted, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, atol=1e-10)


def test_second_derivatives_pass_dispatch_and_combination() -> None:
    layer = drawn(MixtureOfExperts(NoisyTopK(FEATURES, EXPERTS, 2), Gelu(EXPERTS, FEATURES, 8, FEATURES))).eval()
    layer.double()
    x = torch.randn(1, 3, FEATURES, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (x,))


@pytest.mark.parametrize("capacity", [0.25, 0.75])
def test_gradients_pass_by_what_is_beyond_the_capacity(capacity: float) -> None:
    router = GShard(FEATURES, EXPERTS, threshold=0)
    layer = drawn(MixtureOfExperts(router, Gelu(EXPERTS, FEATURES, 8, FEATURES), capacity=capacity), 1).double()
    x = torch.randn(2, 4, FEATURES, dtype=torch.float64, requires_grad=True)
    within = router(x).within(capacity)
    assert 0 < float(within.dropped()) < 1
    gates = within.weights * within.kept
    wanted = torch.stack([alone(layer.experts, e, x) * (gates * (within.chosen == e)).sum(-1, True) for e in range(4)])
    assert torch.allclose(layer(x), wanted.sum(0), atol=1e-12)
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_one_expert_is_the_dense_block_bit_for_bit() -> None:
    torch.manual_seed(0)
    layer = MixtureOfExperts(Switch(FEATURES, 1), Gelu(1, FEATURES, 16, FEATURES)).eval()
    block = nn.Sequential(nn.Linear(FEATURES, 16), nn.GELU(), nn.Linear(16, FEATURES))
    for mine, theirs in ((layer.experts.up, block[0]), (layer.experts.down, block[2])):
        theirs.weight.data, theirs.bias.data = mine.weight.data[0].clone(), mine.bias.data[0].clone()
    x = torch.randn(4, 6, FEATURES)
    assert torch.equal(layer(x), block(x.flatten(0, 1)).view_as(x))


def test_shared_experts_are_added() -> None:
    torch.manual_seed(0)
    parts = NoisyTopK(FEATURES, EXPERTS, 2), Gelu(EXPERTS, FEATURES, 16, FEATURES)
    shared = Gelu(1, FEATURES, 16, FEATURES)
    x = torch.randn(2, 3, FEATURES)
    without, whole = MixtureOfExperts(*parts).eval(), MixtureOfExperts(*parts, shared).eval()
    assert torch.allclose(whole(x) - without(x), alone(shared, 0, x), atol=1e-6)


@pytest.mark.parametrize(
    "router", [lambda: Switch(FEATURES, EXPERTS, jitter=0), lambda: LossFree(FEATURES, EXPERTS, 2)]
)
def test_two_halves_of_a_batch_give_its_gradient(router: Any) -> None:
    # Balance losses are not means over samples; what is said of them: f_i P_i of each half, weighted by its samples.
    layer = drawn(MixtureOfExperts(router(), Gelu(EXPERTS, FEATURES, 16, FEATURES)))
    x = torch.randn(4, 6, FEATURES)

    def gradients(*pieces: Tensor) -> list[Tensor]:
        layer.zero_grad()
        for piece in pieces:
            (layer(piece).square().sum() / x.numel()).backward()
        layer.take()
        return [parameter.grad.clone() for parameter in layer.parameters()]

    if isinstance(layer.router, LossFree):
        layer.router.rate = 0.0  # the biases move after every pass
    for a, b in zip(gradients(x), gradients(x[:2], x[2:]), strict=True):
        assert torch.allclose(a, b, atol=1e-7)


# Noisy top-k


def test_noisy_top_k_load_is_what_would_be_chosen() -> None:
    router = drawn(NoisyTopK(FEATURES, EXPERTS, 2))
    x = torch.randn(1, 400, FEATURES)
    clean, deviation = router.gate(x), functional.softplus(router.noise(x))
    loads, counts, rounds = torch.zeros(EXPERTS), torch.zeros(EXPERTS), 400
    for _ in range(rounds):
        noisy = clean + torch.randn_like(clean) * deviation
        loads += selected(clean, noisy, deviation, noisy.topk(3, -1).values, 2).sum((0, 1)) / rounds
        counts += noisy.topk(2, -1).indices.flatten().bincount(minlength=EXPERTS) / rounds
    assert float(loads.sum()) == pytest.approx(2 * 400, rel=0.01)
    assert torch.allclose(loads, counts, rtol=0.05)


def test_noisy_top_k_starts_balanced_and_without_noise_in_evaluation() -> None:
    torch.manual_seed(0)
    router, tokens = NoisyTopK(FEATURES, EXPERTS, 2), 4000
    x = torch.randn(1, tokens, FEATURES)
    loads = router(x).loads()
    p = 2 / EXPERTS
    assert ((loads - tokens * p).abs() < 3 * math.sqrt(tokens * p * (1 - p))).all()
    router.eval()
    assert torch.equal(router(x).chosen, router(x).chosen)
    assert router(x).terms == {}


def test_variation_of_equal_loads_is_zero() -> None:
    assert float(squared_variation(torch.full((8,), 3.0))) == 0
    assert float(squared_variation(torch.tensor([1.0, 3.0]))) == pytest.approx(0.25)


# Switch, GShard


def test_switch_loss_is_one_at_balance_and_more_for_a_skewed_router() -> None:
    first = torch.arange(EXPERTS).repeat(8)
    uniform = torch.full((32, EXPERTS), 1 / EXPERTS)
    assert float(switch_loss(first, uniform)) == pytest.approx(1)
    skewed = torch.tensor([0.7, 0.1, 0.1, 0.1]).expand(32, -1)
    assert float(switch_loss(torch.zeros(32, dtype=torch.long), skewed)) == pytest.approx(EXPERTS * 0.7)


@pytest.mark.parametrize("kind", [Switch, GShard, Grin])
def test_balance_losses_change_with_the_routing_and_their_gradient_reaches_the_router(kind: Any) -> None:
    # Constant balance losses and such without a gradient were found in widely used programs.
    router = drawn(kind(FEATURES, EXPERTS)).double()
    x = torch.randn(1, 64, FEATURES, dtype=torch.float64)

    def loss() -> Tensor:
        torch.manual_seed(0)
        term: Tensor = router(x).terms["balance_loss"]
        return term

    (gradient,) = torch.autograd.grad(loss(), router.gate.weight)
    step, first = 1e-6, gradient.abs().argmax()
    with torch.no_grad():
        flat = router.gate.weight.view(-1)
        flat[first] += step
        above = loss()
        flat[first] -= 2 * step
        below = loss()
    assert float((above - below) / (2 * step)) == pytest.approx(float(gradient.view(-1)[first]), rel=1e-4)
    with torch.no_grad():
        router.gate.weight.zero_()
        router.gate.weight[0] = x.mean((0, 1)) * 100
    assert float(loss()) > 0.01


def test_an_expert_never_computes_more_than_its_capacity_and_what_is_beyond_passes_by() -> None:
    torch.manual_seed(0)
    router = Switch(FEATURES, EXPERTS, jitter=0)
    layer = MixtureOfExperts(router, Gelu(EXPERTS, FEATURES, 16, FEATURES), capacity=1.0)
    x = torch.randn(1, 40, FEATURES)
    routing = router(x)
    within = routing.within(1.0)
    assert int(routing.loads().max()) > 10 >= int(within.loads().max())
    seen = [0] * EXPERTS
    for token, number in enumerate(routing.chosen[0, :, 0].tolist()):  # those that come first have the places
        assert bool(within.kept[0, token, 0]) == (seen[number] < 10)
        seen[number] += 1
    answer = layer(x)
    assert answer[~within.kept[..., 0]].abs().max() == 0
    assert answer[within.kept[..., 0]].abs().amax(-1).min() > 0
    assert float(layer.take()[1]["dropped_share"]) == pytest.approx(float(1 - within.kept.float().mean()))
    assert layer.eval()(x).abs().amax(-1).min() > 0  # in evaluation nobody is turned away


def test_first_choices_come_before_second_ones() -> None:
    chosen = torch.tensor([[[0, 1], [0, 1], [1, 0], [2, 0]]])
    kept = Chosen(chosen, torch.ones(1, 4, 2), torch.full((1, 4, 3), 1 / 3)).within(0.75).kept  # two places each
    assert kept.tolist() == [[[True, True], [True, False], [True, False], [True, False]]]


def test_gshard_keeps_the_second_expert_by_its_weight() -> None:
    router = drawn(GShard(FEATURES, EXPERTS))
    x = torch.randn(1, 1, FEATURES).expand(1, 20_000, FEATURES)
    routing = router(x)
    assert torch.allclose(routing.weights.sum(-1), torch.ones(1, 20_000))
    second = float(routing.weights[0, 0, 1])
    assert float(routing.kept[..., 1].float().mean()) == pytest.approx(min(1, second / 0.2), abs=0.02)
    assert routing.kept[..., 0].all()
    assert router.eval()(x).kept is None


# GRIN


def test_grin_gradient_is_exact_for_a_cubic_loss() -> None:
    """All draws of an expert and of a factor are enumerated: the expected gradient is `sum_e p_e Q_e (onehot_e - p)`,
    with Q_e = L(p_e) - L(0), and L'(p_e) p_e for the largest logit, which always has the factor 1."""
    logits = torch.tensor([0.3, 0.25, 0.28, -2.0], dtype=torch.float64, requires_grad=True)
    p = near_softmax(logits, 0.1)
    assert float(p[3]) == 0  # too far from the largest
    coefficients = torch.randn(EXPERTS, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(expert: int, at: Tensor) -> Tensor:
        return sum(c * at**power for power, c in enumerate(coefficients[expert]))

    largest, expected = int(logits.argmax()), torch.zeros(EXPERTS, dtype=torch.float64)
    wanted = torch.zeros(EXPERTS, dtype=torch.float64)
    for expert in range(3):
        factors = ((1.0, 1.0),) if expert == largest else ((0.25, 1.0), (0.75, 1 / 3))
        for probability, factor in factors:
            value = scaled(near_softmax(logits, 0.1)[expert], torch.tensor(factor, dtype=torch.float64))
            assert float(value) == pytest.approx(float(p[expert]) * factor)
            (gradient,) = torch.autograd.grad(loss(expert, value), logits)
            expected += float(p[expert]) * probability * gradient
        at = p[expert].detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(expert, at), at)
        full = loss(expert, at) - loss(expert, torch.zeros_like(at))
        q = float(slope * at) if expert == largest else float(full)
        onehot = functional.one_hot(torch.tensor(expert), EXPERTS).double()
        wanted += float(p[expert]) * q * (onehot - p.detach())
    assert torch.allclose(expected, wanted, atol=1e-10)


def test_grin_draws_in_training_alone_and_never_scales_the_largest() -> None:
    router = drawn(Grin(FEATURES, EXPERTS, 2, jitter=1.0))
    x = torch.randn(1, 500, FEATURES)
    logits = router.gate(x)
    largest, p = logits.argmax(-1), near_softmax(logits, 1.0)
    torch.manual_seed(0)
    routing = router(x)
    first = routing.chosen[..., 0]
    ratio = routing.weights[..., 0] / p.gather(-1, first.unsqueeze(-1))[..., 0]
    assert torch.allclose(ratio[first == largest], torch.ones(int((first == largest).sum())))
    others = ratio[first != largest]
    assert float((others < 0.5).float().mean()) == pytest.approx(0.75, abs=0.1)
    assert not (routing.chosen[..., 0] == routing.chosen[..., 1]).any()
    router.eval()
    again = router(x)
    assert torch.equal(again.chosen[..., 0], largest)
    assert torch.equal(again.weights, router(x).weights)


# SMEAR, expert choice, loss-free, task


def test_merged_linear_experts_are_the_mixture_and_merged_mlps_are_not() -> None:
    torch.manual_seed(0)
    x, shares = torch.randn(3, 5, FEATURES), torch.randn(3, EXPERTS).softmax(-1)
    for kind, same in ((Linear, True), (Gelu, False)):
        experts = kind(EXPERTS, FEATURES, 16, FEATURES)
        every = experts(x.flatten(0, 1), Every()).unflatten(1, (3, 5))
        mixture = torch.einsum("ento,ne->nto", every, shares)
        assert torch.allclose(experts(x, Merged(shares)), mixture, atol=1e-6) == same


def test_smear_reaches_all_experts_and_normalises_what_dropout_leaves() -> None:
    layer = MixtureOfExperts(Smear(FEATURES, EXPERTS, dropout=0.5), Gelu(EXPERTS, FEATURES, 16, FEATURES))
    torch.manual_seed(0)
    x = torch.randn(64, 5, FEATURES)
    shares = layer.router(x).shares
    assert torch.allclose(shares.sum(-1), torch.ones(64))
    assert float((shares == 0).float().mean()) == pytest.approx(0.5, abs=0.1)
    layer(x).sum().backward()
    assert all(float(gradient.abs().sum()) > 0 for gradient in layer.experts.up.weight.grad)


def test_expert_choice_gives_every_expert_as_many_tokens_of_a_sample() -> None:
    router = drawn(ExpertChoice(FEATURES, EXPERTS, 2))
    layer = MixtureOfExperts(router, Gelu(EXPERTS, FEATURES, 16, FEATURES)).eval()
    x = torch.randn(2, 6, FEATURES)
    shares = router.gate(x).softmax(-1)
    wanted = torch.zeros_like(x)
    for n, e in itertools.product(range(2), range(EXPERTS)):
        for t in shares[n, :, e].topk(3).indices:
            wanted[n, t] += shares[n, t, e] * alone(layer.experts, e, x[n : n + 1, t : t + 1])[0, 0]
    assert torch.allclose(layer(x), wanted, atol=1e-5)


def test_loss_free_biases_go_against_the_load_and_do_not_weigh() -> None:
    router = drawn(LossFree(FEATURES, EXPERTS, 2, rate=0.01))
    x = torch.randn(1, 200, FEATURES)
    routing = router(x)
    loads = routing.chosen.flatten().bincount(minlength=EXPERTS).float()
    assert torch.allclose(router.bias, 0.01 * (loads.mean() - loads).sign())
    router.bias += torch.tensor([10.0, 0, 0, 0])
    router.eval()
    moved = router(x)
    assert (moved.chosen == 0).any(-1).all()
    scores = router.gate(x).sigmoid().gather(-1, moved.chosen)
    assert torch.allclose(moved.weights, scores / scores.sum(-1, keepdim=True))


def test_tokens_of_a_task_have_the_experts_of_its_embedding() -> None:
    router = drawn(TaskRouter(FEATURES, EXPERTS, 2, tasks=3))
    x = torch.randn(3, 5, FEATURES)
    routing = router(x, torch.tensor([0, 1, 0]))
    assert torch.equal(routing.chosen[0], routing.chosen[2])
    assert (routing.chosen == routing.chosen[:, :1]).all()
    shares = (router.embedding.weight[1] @ router.gate.weight.t()).softmax(-1).topk(2)
    assert torch.equal(routing.chosen[1, 0], shares.indices)
    assert torch.allclose(routing.weights[1, 0], shares.values / shares.values.sum())


# Kinds of experts


def test_splines_sum_to_one_on_the_grid_and_are_scipys() -> None:
    from scipy.interpolate import BSpline

    splines = Splines(5).double()
    x = torch.linspace(-0.999, 0.999, 101, dtype=torch.float64)
    values = splines(x.unsqueeze(1))
    assert torch.allclose(values.sum(1), torch.ones(101, dtype=torch.float64), atol=1e-9)
    for number in range(splines.bases):
        wanted = BSpline(splines.knots.double().numpy(), numpy.eye(splines.bases)[number], 3)(x.numpy())
        assert torch.allclose(values[:, number], torch.from_numpy(wanted), atol=1e-6)


def test_pade_neurons_start_linear_and_have_no_pole() -> None:
    torch.manual_seed(0)
    plain = Pade(1, FEATURES, 16, FEATURES, numerator=1, smooth=False)
    x = torch.randn(6, FEATURES)
    inner = x @ plain.above[0].weight[0].t() + plain.above[0].bias[0]
    assert torch.allclose(plain(x, Every())[0], inner @ plain.down.weight[0].t() + plain.down.bias[0], atol=1e-6)
    wild = drawn(Pade(1, FEATURES, 16, FEATURES))
    with torch.no_grad():
        wild.below[0].weight *= 100
    far = torch.linspace(-3, 3, 10_001).unsqueeze(1).expand(-1, FEATURES)
    assert torch.isfinite(wild(far, Every())).all()


def test_rational_experts_bend_by_coefficients_of_their_own() -> None:
    experts = RationalExperts(EXPERTS, FEATURES, 16, FEATURES)
    x = torch.randn(6, FEATURES)
    start = alone(experts, 0, x)  # by GELU, which the functions are fitted to on [-3, 3]
    assert torch.allclose(experts(x, Every())[0], start, atol=0.1)
    plain = Rational(start="gelu")
    wild = drawn(experts)
    for number, counts in enumerate(([6, 0, 0, 0], [0, 6, 0, 0])):
        plain.numerator.data, plain.denominator.data = wild.numerator.data[number], wild.denominator.data[number]
        inner = plain(x @ wild.up.weight[number].t() + wild.up.bias[number])
        wanted = inner @ wild.down.weight[number].t() + wild.down.bias[number]
        assert torch.allclose(wild(x, Split(counts)), wanted, atol=1e-4, rtol=1e-4)
    assert {id(one) for one in wild.no_decay()} == {id(wild.numerator), id(wild.denominator)}


def test_smooth_pade_is_its_formula() -> None:
    wild = drawn(Pade(1, FEATURES, 16, FEATURES, numerator=2))
    x = torch.randn(6, FEATURES)
    a0, a1, a2, b1 = wild.above[0].bias[0], wild.above[0].weight[0], wild.above[1].weight[0], wild.below[0].weight[0]
    p1, q0, q1 = a0 + x @ a1.t(), torch.ones(()), 1 + x @ b1.t()
    p2 = p1 + x.square() @ a2.t()
    inner = (q1 * p2 + q0 * p1) / (q1.square() + q0.square())
    assert torch.allclose(wild(x, Every())[0], inner @ wild.down.weight[0].t() + wild.down.bias[0], atol=1e-5)


# What they are for: regimes that one small network cannot tell apart (card, section 4)


def regimes(seed: int, rows: int, features: int = 16, number: int = 16) -> tuple[Tensor, Tensor]:
    """x = prototype + N(0, 1), y = w_r x + relu(a_r x) with w, a ~ N(0, 1) / 4, standardised."""
    torch.manual_seed(seed)
    prototypes, w, a = (torch.randn(number, features) * scale for scale in (1.5, 0.25, 0.25))
    regime = torch.randint(number, (rows,))
    x = prototypes[regime] + torch.randn(rows, features)
    y = (w[regime] * x).sum(1) + (a[regime] * x).sum(1).relu()
    return x, ((y - y.mean()) / y.std()).unsqueeze(1)


class Regression(nn.Module):
    """A stem, one block with a residual, a head."""

    def __init__(self, block: nn.Module, width: int = 32) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Linear(16, width), block, nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).unsqueeze(1)
        return self.head((h + self.block(h)).squeeze(1))


class Dense(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.experts = Gelu(1, 32, hidden, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.experts(x.flatten(0, 1), Every()).view_as(x)


def trained(block: Any, seed: int, rows: int, epochs: int) -> tuple[float, float]:
    """The test error, and the largest over the smallest load of an expert on the test rows."""
    x, y = regimes(seed, rows + 2000)
    torch.manual_seed(seed)
    network = Regression(block())
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(rows).split(128):
            loss = functional.mse_loss(network(x[batch]), y[batch])
            if isinstance(network.block, MixtureOfExperts):
                loss = loss + sum(network.block.take()[0].values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        error = float(functional.mse_loss(network(x[rows:]), y[rows:]))
    loads = network.block.loads if isinstance(network.block, MixtureOfExperts) else torch.ones(1)
    return error, float(loads.max() / loads.min().clamp_min(0.5))


def noisy(importance: float = 0.1, load: float = 0.1) -> nn.Module:
    return MixtureOfExperts(NoisyTopK(32, 8, 2, importance, load), Gelu(8, 32, 8, 32))


def smear() -> nn.Module:
    return MixtureOfExperts(Smear(32, 8), Gelu(8, 32, 16, 32))


def means(seeds: int, rows: int, epochs: int) -> dict[str, float]:
    ways = {"dense": lambda: Dense(16), "dense, total": lambda: Dense(128), "noisy": noisy, "smear": smear}
    return {name: sum(trained(way, s, rows, epochs)[0] for s in range(seeds)) / seeds for name, way in ways.items()}


def test_experts_tell_regimes_apart_where_a_dense_block_does_not() -> None:
    found = means(1, 3000, 12)
    assert found["noisy"] < found["dense"]
    assert found["smear"] < found["dense"]


@pytest.mark.slow
def test_experts_beat_dense_blocks_of_equal_active_and_equal_total_parameters() -> None:
    found = means(3, 6000, 40)
    for name in ("noisy", "smear"):
        assert found[name] <= 0.8 * found["dense"], found
        assert found[name] < found["dense, total"], found


@pytest.mark.slow
def test_balance_losses_balance() -> None:
    def median(way: Any) -> float:
        return statistics.median(trained(way, seed, 6000, 11)[1] for seed in range(4))

    assert median(noisy) < 2
    assert median(lambda: noisy(0.0, 0.0)) > 3


def test_a_layer_is_copied_in_the_middle_of_a_training() -> None:
    layer = noisy()
    layer(torch.randn(4, 1, 32)).sum().backward()
    layer(torch.randn(4, 1, 32))  # terms with gradients are held
    copied = copy.deepcopy(layer)
    assert copied.take() == ({}, {})
    assert layer.take()[0]
