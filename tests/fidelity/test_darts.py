"""DARTS: the closed form of the toy, finite differences against exact derivatives, steps, resumption."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas_core.batch import Batch
from nas_core.errors import UsageError
from nas_core.evaluation import Objective
from nas_core.one_shot import Compute, OneShot
from nas_core.relax import Mix
from nas_core.strategy import Setting
from search_spaces.nasbench201.space import OPERATIONS, NasBench201, Size
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.bilevel import Descent, hypergradient, pairs, same_draws, untouched
from strategies.one_shot.darts import Darts, entropy
from training import checkpoint
from training.data import load
from training.data.loading import Loading
from training.data.split import Split

SPACE = NasBench201()
SETTING = Setting(SPACE, 0, (Objective("val_accuracy", "max"),))


@pytest.fixture(scope="module")
def data() -> Any:
    return load("digits", Split(limit=120)).bind("cpu", Loading(batch_size=32, channels_last=True))


def started(data: Any, **config: Any) -> Darts:
    """A strategy on a supernet of 4 channels and one cell per stage."""

    def make() -> Supernet:
        with torch.random.fork_rng([]):
            torch.manual_seed(1)
            return Supernet(SPACE, data.task, Size(channels=4, cells=1))

    darts = Darts(SETTING, Darts.Config(**{"epochs": 4, "alpha_std": 0.3, **config}))
    with torch.random.fork_rng([]):
        torch.manual_seed(2)
        darts.start(make, data, Compute())
    return darts


def step(darts: Any, epoch: int) -> Any:
    with torch.random.fork_rng([]):
        torch.manual_seed(epoch)
        return darts.step(epoch)


# The toy: L_train = w^2 - 2wa + a^2, L_val = aw - 2a + 1, so that w' = w - 2 xi (w - a) and the exact gradient is
# w' - 2 + 2 xi a.


def toy(weight: float, alpha: float, rate: float) -> float:
    w, a = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (weight, alpha))
    train = lambda: (w**2 - 2 * w * a + a**2).sum()  # noqa: E731
    valid = lambda: (a * w - 2 * a + 1).sum()  # noqa: E731
    ((gradient,), _) = hypergradient([w], [a], train, valid, Descent(rate))
    assert w.item() == weight
    return float(gradient)


def test_toy_gradient_by_both_orders() -> None:
    assert toy(-2, 2, 0.1) == pytest.approx(-2.8, abs=1e-9)
    assert toy(-2, 2, 0.0) == pytest.approx(-4.0, abs=1e-12)


@pytest.mark.parametrize(("rate", "end"), [(0.5, 1.0), (0.0, 2.0), (0.1, 2 / 1.2)])
def test_toy_converges_to_where_the_paper_says(rate: float, end: float) -> None:
    w, a = -2.0, 2.0
    for _ in range(200):
        a -= 0.2 * toy(w, a, rate)
        w -= 0.2 * 2 * (w - a)
    assert (w, a) == pytest.approx((end, end), abs=1e-6)


class Perceptron:
    """Two layers in float64, the hidden one a mix of tanh, sigmoid and the identity; every weight a leaf."""

    def __init__(self) -> None:
        draws = torch.Generator().manual_seed(5)

        def leaf(*shape: int) -> Tensor:
            return (0.5 * torch.randn(*shape, generator=draws, dtype=torch.float64)).requires_grad_()

        self.weights = [leaf(5, 8), leaf(8), leaf(8, 1)]
        self.alphas = [leaf(3), leaf(8)]
        self.buffers = [leaf(*weight.shape).detach() for weight in self.weights]
        self.halves = [(leaf(20, 5).detach(), leaf(20, 1).detach()) for _ in range(2)]

    def loss(self, half: int, weights: list[Tensor] | None = None) -> Tensor:
        first, bias, second = self.weights if weights is None else weights
        x, y = self.halves[half]
        hidden = x @ first + bias
        mix = self.alphas[0].softmax(0)
        mixed = (mix[0] * hidden.tanh() + mix[1] * hidden.sigmoid() + mix[2] * hidden) * self.alphas[1].sigmoid()
        return ((mixed @ second - y) ** 2).mean()

    def exact(self, descent: Descent) -> list[Tensor]:
        """By differentiating through the step."""
        slopes = torch.autograd.grad(self.loss(0), self.weights, create_graph=True)
        buffers = descent.buffers or [torch.zeros_like(weight) for weight in self.weights]
        ahead = [
            weight - descent.rate * (descent.momentum * buffer + slope + descent.weight_decay * weight)
            for weight, slope, buffer in zip(self.weights, slopes, buffers, strict=True)
        ]
        return list(torch.autograd.grad(self.loss(1, ahead), self.alphas))


def error(found: list[Tensor], exact: list[Tensor]) -> float:
    apart = torch.cat([(x - y).flatten() for x, y in zip(found, exact, strict=True)]).norm()
    return float(apart / torch.cat([y.flatten() for y in exact]).norm())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_finite_difference_is_the_exact_derivative(momentum: float) -> None:
    net = Perceptron()
    before = [weight.detach().clone() for weight in net.weights]
    descent = Descent(0.1, momentum, 3e-2, net.buffers if momentum else ())
    found, loss = hypergradient(net.weights, net.alphas, lambda: net.loss(0), lambda: net.loss(1), descent)
    assert error(found, net.exact(descent)) < 1e-3
    # Each term is large enough here for its absence to be seen.
    near = list(torch.autograd.grad(net.loss(1), net.alphas))
    assert error(near, net.exact(descent)) > 0.05
    assert error(found, net.exact(Descent(0.1, 0.0, 3e-2))) > 0.05 or not momentum
    assert all(torch.equal(weight, old) for weight, old in zip(net.weights, before, strict=True))
    assert all(tensor.grad is None for tensor in (*net.weights, *net.alphas))
    assert loss != net.loss(1)  # one step ahead


def test_the_quotient_is_by_twice_the_shift() -> None:
    """The implicit term alone, against a product with the exact mixed derivative."""
    net, rate = Perceptron(), 0.1
    found, _ = hypergradient(net.weights, net.alphas, lambda: net.loss(0), lambda: net.loss(1), Descent(rate))
    slopes = torch.autograd.grad(net.loss(0), net.weights)
    with torch.no_grad():
        ahead = [weight - rate * slope for weight, slope in zip(net.weights, slopes, strict=True)]
    ahead = [weight.requires_grad_() for weight in ahead]
    both = torch.autograd.grad(net.loss(1, ahead), [*net.alphas, *ahead])
    direct, direction = both[:2], both[2:]
    slopes = torch.autograd.grad(net.loss(0), net.weights, create_graph=True)
    exact = torch.autograd.grad(slopes, net.alphas, direction)
    implicit = [(near - whole) / rate for near, whole in zip(direct, found, strict=True)]
    assert error(implicit, list(exact)) < 1e-3


def test_weights_come_back_after_a_failure() -> None:
    net = Perceptron()
    before = [weight.detach().clone() for weight in net.weights]

    def fails() -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        hypergradient(net.weights, net.alphas, lambda: net.loss(0), fails, Descent(0.1))
    assert all(torch.equal(weight, old) for weight, old in zip(net.weights, before, strict=True))


def test_dropout_is_the_same_on_both_sides_of_the_difference() -> None:
    weight = torch.ones(50, dtype=torch.float64, requires_grad=True)
    alpha = torch.ones(50, dtype=torch.float64, requires_grad=True)

    def loss(weight: Tensor) -> Tensor:
        with same_draws(7, torch.device("cpu")):
            return (nn.functional.dropout(weight) * alpha).sum() ** 2

    state = torch.get_rng_state()
    (slope,) = torch.autograd.grad(loss(weight), weight, create_graph=True)
    (exact,) = torch.autograd.grad(loss(weight - 1e-3 * slope), alpha)
    (found,), _ = hypergradient([weight], [alpha], lambda: loss(weight), lambda: loss(weight), Descent(1e-3))
    assert 0 < int((exact == 0).sum()) < 50  # those that are dropped in every pass
    assert torch.allclose(found, exact, rtol=1e-6)
    assert torch.equal(torch.get_rng_state(), state)


def test_pairs_start_the_shorter_part_over() -> None:
    def part(*numbers: int) -> Callable[[], Iterator[Batch]]:
        return lambda: iter([Batch((), torch.tensor(number)) for number in numbers])

    def numbers(one: Any, other: Any) -> list[tuple[int, int]]:
        return [(int(a.target), int(b.target)) for a, b in pairs(one, other)]

    assert numbers(part(1, 2), part(3, 4)) == [(1, 3), (2, 4)]
    assert numbers(part(1, 2, 3, 4, 5), part(6, 7)) == [(1, 6), (2, 7), (3, 6), (4, 7), (5, 6)]
    assert numbers(part(1), part(2, 3, 4)) == [(1, 2), (1, 3), (1, 4)]
    with pytest.raises(UsageError, match="no batch"):
        numbers(part(1), part())


def test_buffers_are_untouched() -> None:
    norm = nn.BatchNorm2d(3)
    with untouched(norm):
        norm(torch.randn(4, 3, 2, 2))
        assert norm.num_batches_tracked == 1
    assert norm.num_batches_tracked == 0
    assert torch.equal(norm.running_mean, torch.zeros(3))


def test_one_hot_alphas_are_the_single_network(data: Any) -> None:
    darts = started(data)
    step(darts, 0)
    arch = SPACE.from_text("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|")
    with torch.no_grad():
        for name, vector in darts.alphas.vectors.items():
            vector.copy_(50 * torch.tensor([float(arch.values[name] == option) for option in OPERATIONS]))
    darts.supernet.eval()
    batch = next(data.batches("valid", 0, 0))
    with torch.no_grad():
        whole, alone = darts.supernet(batch.inputs, darts.relaxed()), darts.supernet.extract(arch)(*batch.inputs)
    assert torch.allclose(whole, alone, atol=1e-5)
    assert darts.result() == [arch]
    assert entropy(darts.alphas.softmax()) == pytest.approx(0, abs=1e-6)


def test_second_order_on_a_supernet_is_the_exact_derivative(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the momentum of an epoch behind it, through normalisation by the batch, and not clipped.

    On a smooth network: a difference over rectifiers also holds the jumps of the gradient between its two sides, which
    a derivative at one point knows nothing of.
    """
    monkeypatch.setattr(nn.functional, "relu", nn.functional.softplus)
    darts = started(data, order=2, grad_clip=1e-3, lr=0.1, weight_decay=1e-2)
    step(darts, 0)
    train, valid = (next(data.batches(part, 1, 0)) for part in ("weights", "alphas"))
    state = copy.deepcopy(darts.supernet.state_dict())
    found, loss = darts.hypergradient(train, valid, 0.1)
    assert all(torch.equal(value, state[name]) for name, value in darts.supernet.state_dict().items())

    net = copy.deepcopy(darts.supernet).double().to(memory_format=torch.contiguous_format)
    vectors = {name: vector.detach().double().requires_grad_() for name, vector in darts.alphas.vectors.items()}
    weights = dict(net.named_parameters())

    def loss_of(batch: Batch, weights: dict[str, Tensor]) -> Tensor:
        mix = Mix(darts.relaxed().active, {name: vector.softmax(0) for name, vector in vectors.items()})
        output = functional_call(net, weights, ([x.double().contiguous() for x in batch.inputs], mix))
        return nn.functional.cross_entropy(output, batch.target)

    slopes = torch.autograd.grad(loss_of(train, weights), list(weights.values()), create_graph=True)
    buffers = [darts.weights.optimizer.state[weight]["momentum_buffer"] for weight in darts.supernet.parameters()]
    ahead = {
        name: weight - 0.1 * (0.9 * buffer + slope + 1e-2 * weight)
        for (name, weight), slope, buffer in zip(weights.items(), slopes, buffers, strict=True)
    }
    exact_loss = loss_of(valid, ahead)
    exact = torch.autograd.grad(exact_loss, list(vectors.values()))
    assert float(loss) == pytest.approx(exact_loss.item(), rel=1e-4)
    assert error(found, list(exact)) < 0.02
    first = torch.autograd.grad(loss_of(valid, weights), list(vectors.values()))
    assert error(list(first), list(exact)) > 0.2


def test_second_order_draws_the_same_in_every_pass(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And others in the next step."""
    darts = started(data, order=2)
    train, valid = (next(data.batches(part, 0, 0)) for part in ("weights", "alphas"))
    loss, draws = darts.weights.loss, []

    def drawing(batch: Batch, mix: Mix) -> Tensor:
        draws.append(float(torch.rand(())))
        return loss(batch, mix)

    monkeypatch.setattr(darts.weights, "loss", drawing)
    for _ in range(2):
        darts.hypergradient(train, valid, 0.1)
    assert len(draws) == 8
    assert len(set(draws[:4])) == len(set(draws[4:])) == 1
    assert draws[0] != draws[4]


@pytest.mark.parametrize("bilevel", [True, False])
def test_an_epoch_is_the_loop_of_the_paper(data: Any, bilevel: bool) -> None:
    """Against a loop that runs every candidate with torch's optimisers and takes all gradients."""
    config = {"bilevel": bilevel, "alpha_lr": 0.01, "grad_clip": 0.5}
    darts, other = started(data, **config), started(data, **config)
    progress = step(darts, 0)

    net = other.supernet.to(memory_format=torch.contiguous_format).train()
    vectors = list(other.alphas)
    sgd = torch.optim.SGD(net.parameters(), 0.025, 0.9, weight_decay=3e-4)
    adam = torch.optim.Adam(vectors, 0.01, (0.5, 0.999), weight_decay=1e-3)

    def backward(batch: Batch) -> None:
        sgd.zero_grad()
        adam.zero_grad()
        nn.functional.cross_entropy(net(batch.inputs, other.relaxed()), batch.target).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)

    parts = ("weights", "alphas") if bilevel else ("train", "train")
    for train, valid in zip(*(data.batches(part, 0, 0) for part in parts), strict=True):
        if bilevel:
            backward(valid)
            adam.step()
        backward(train)
        sgd.step()
        if not bilevel:
            adam.step()
    for (name, found), expected in zip(darts.supernet.named_parameters(), net.parameters(), strict=True):
        assert torch.allclose(found, expected, atol=2e-4), name
    for found, expected in zip(darts.alphas, vectors, strict=True):
        assert torch.allclose(found, expected, atol=2e-4)
    assert ("alpha_loss" in progress.metrics) == bilevel


@pytest.mark.parametrize("config", [{}, {"order": 2}, {"bilevel": False}], ids=["first", "second", "single-level"])
def test_resumed_is_uninterrupted(data: Any, config: dict[str, Any], tmp_path: Path) -> None:
    whole = started(data, **config)
    assert isinstance(whole, OneShot)
    step(whole, 0)
    tensors, plain = checkpoint.pack(whole.state_dict())
    checkpoint.save(tmp_path, checkpoint.Checkpoint(1, tensors, plain))
    progress = step(whole, 1)

    stored = checkpoint.load(tmp_path)
    assert stored is not None
    resumed = started(data, **config)
    resumed.load_state_dict(checkpoint.unpack(stored.tensors, stored.state))
    assert step(resumed, 1) == progress
    again = resumed.supernet.state_dict()
    for name, value in whole.supernet.state_dict().items():
        assert torch.equal(again[name], value), name
    for one, other in zip(whole.alphas, resumed.alphas, strict=True):
        assert torch.equal(one, other)
    assert resumed.result() == whole.result() == [progress.arch]


def test_weights_alone_warm_up(data: Any) -> None:
    darts = started(data, warm_up_epochs=1)
    before = [vector.detach().clone() for vector in darts.alphas]
    progress = step(darts, 0)
    assert all(torch.equal(vector, old) for vector, old in zip(darts.alphas, before, strict=True))
    assert set(progress.metrics) == {"train_loss", "entropy"}
    progress = step(darts, 1)
    assert all(not torch.equal(vector, old) for vector, old in zip(darts.alphas, before, strict=True))
    assert set(progress.metrics) == {"train_loss", "alpha_loss", "entropy"}


def test_the_architecture_step_leaves_weights_alone(data: Any) -> None:
    """With a rate that moves nothing, only the architecture is trained."""
    darts = started(data, lr=1e-30, lr_end=0, momentum=0, weight_decay=0, alpha_lr=0.1)
    before = [weight.detach().clone() for weight in darts.supernet.parameters()]
    progress = step(darts, 0)
    assert all(torch.allclose(x, y, 0, 1e-20) for x, y in zip(darts.supernet.parameters(), before, strict=True))
    assert progress.metrics["entropy"] < math.log(5) - 0.01


def test_entropy_is_in_nats() -> None:
    weights = {"a": torch.tensor([0.5, 0.5, 0.0, 0.0]), "b": torch.full((5,), 0.2)}
    assert entropy(weights) == pytest.approx((math.log(2) + math.log(5)) / 2)


def test_bad_settings(data: Any) -> None:
    with pytest.raises(ValueError, match="order 2"):
        Darts.Config(order=2, bilevel=False)
    with pytest.raises(ValueError, match="warm_up_epochs 5"):
        Darts.Config(epochs=5, warm_up_epochs=5)
    with pytest.raises(UsageError, match="float32"):
        Darts(SETTING, Darts.Config(order=2)).start(lambda: None, data, Compute("cpu", "bf16"))

    class Plain:
        name = "plain"

    with pytest.raises(UsageError, match="'plain' is not relaxable"):
        Darts(Setting(Plain(), 0, ()), Darts.Config())  # type: ignore[arg-type]
