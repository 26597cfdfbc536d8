"""The NAS-Bench-201 supernet against plain layers: each candidate by itself, maps multiplied by their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.relax import Mix
from nas_core.task import IMAGE_CLASSIFICATION, Task
from search_spaces.layers.features import blend
from search_spaces.nasbench201.network import CellNetwork
from search_spaces.nasbench201.space import EDGES, OPERATIONS, NasBench201, Size
from search_spaces.operators.conv.mean import box_sum
from search_spaces.operators.conv.operation import scaled_norm
from search_spaces.supernet.supernet import Supernet

CHANNELS, CLASSES = 3, 4
TASK = Task(kind=IMAGE_CLASSIFICATION, input_shape=(2, 9, 6), outputs=CLASSES)
ALL = tuple(range(len(OPERATIONS)))
NONE, SKIP, CONV1, CONV3, POOL = ALL
LAYOUTS = (torch.contiguous_format, torch.channels_last)


class PlainCell(nn.Module):
    """Every edge is the sum over `mix.active` of weight * operation, plus the weights of `mix.scalars`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = Mix({})
        self.edges = nn.ModuleList(nn.ModuleList(self.operations(channels)) for _ in EDGES)

    @staticmethod
    def operations(channels: int) -> list[nn.Module]:
        def convolution(kernel: int) -> nn.Module:
            layer = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
            return nn.Sequential(nn.ReLU(), layer, nn.BatchNorm2d(channels, affine=False))

        pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        return [nn.Identity(), nn.Identity(), convolution(1), convolution(3), pool]

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x, torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)]
        for (name, (source, target)), operations in zip(EDGES.items(), self.edges, strict=True):
            weights = self.mix.weights[name]
            for position in self.mix.active[name]:
                value = torch.zeros_like(x) if position == NONE else operations[position](nodes[source])
                nodes[target] = nodes[target] + weights[position] * value
            for position in self.mix.scalars.get(name, ()):
                nodes[target] = nodes[target] + weights[position]
        return nodes[3]


def networks(training: bool = True, cells: int = 1) -> tuple[Supernet, CellNetwork]:
    """The supernet and a plain network with its weights, statistics as training could leave them, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        supernet = Supernet(NasBench201(), TASK, Size(channels=CHANNELS, cells=cells)).double()
        for module in supernet.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
    plain = CellNetwork(PlainCell, 2, CLASSES, CHANNELS, cells).double()
    for source, target in zip(supernet.network.state_dict().values(), plain.state_dict().values(), strict=True):
        target.copy_(source)
    return supernet.train(training), plain.train(training)


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(5, *TASK.input_shape, generator=generator, dtype=torch.float64).to(dtype)
    return images, torch.randint(CLASSES, (5,), generator=generator)


def logits() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {name: torch.randn(len(ALL), generator=generator, dtype=torch.float64, requires_grad=True) for name in EDGES}


def soft(alphas: Mapping[str, Tensor]) -> Mix:
    return Mix(dict.fromkeys(EDGES, ALL), {name: alpha.softmax(0) for name, alpha in alphas.items()})


def one_hot(alphas: Mapping[str, Tensor], choices: Sequence[int]) -> Mix:
    """Every candidate is run, one counts; its weight has a gradient all the same."""
    chosen = dict(zip(EDGES, choices, strict=True))
    return Mix(dict.fromkeys(EDGES, ALL), {name: hard(alphas[name], chosen[name]) for name in EDGES})


def some(alphas: Mapping[str, Tensor], active: Sequence[tuple[int, ...]]) -> Mix:
    return Mix(dict(zip(EDGES, active, strict=True)), {name: alpha.softmax(0) for name, alpha in alphas.items()})


def scalars(alphas: Mapping[str, Tensor], choices: Sequence[int]) -> Mix:
    """One candidate is run, the others enter as their weights (here not zero, so that they count)."""
    active = {name: (choice,) for name, choice in zip(EDGES, choices, strict=True)}
    rest = {name: tuple(set(ALL) - set(positions)) for name, positions in active.items()}
    return Mix(active, {name: alpha.softmax(0) for name, alpha in alphas.items()}, rest)


def hard(alpha: Tensor, choice: int) -> Tensor:
    """One-hot, with the gradient of the softmax."""
    soft = alpha.softmax(0)
    return functional.one_hot(torch.tensor(choice), len(ALL)) - soft.detach() + soft


MIXES = {
    "soft": soft,
    "one-hot": lambda alphas: one_hot(alphas, (CONV3, SKIP, CONV1, POOL, CONV3, SKIP)),
    "one-hot with nothing": lambda alphas: one_hot(alphas, (NONE, POOL, CONV1, NONE, CONV3, CONV3)),
    "some": lambda alphas: some(alphas, ((CONV1, CONV3), (SKIP, POOL), (NONE, CONV3), (CONV3,), (NONE,), (POOL, NONE))),
    "empty nodes": lambda alphas: some(alphas, ((NONE,), (NONE,), (CONV3, POOL), (NONE, SKIP), (CONV1,), (CONV3,))),
    "scalars": lambda alphas: scalars(alphas, (CONV3, SKIP, NONE, POOL, CONV1, NONE)),
    "scalars alone": lambda alphas: scalars(alphas, (NONE, NONE, NONE, SKIP, NONE, POOL)),
}


def passes(supernet: Supernet, plain: CellNetwork, mix: Mix, layout: torch.memory_format) -> tuple[Tensor, Tensor]:
    """The outputs of both; the mix is the same, so that both backward passes reach the same alphas."""
    images, _ = batch()
    for module in plain.modules():
        if isinstance(module, PlainCell):
            module.mix = mix
    supernet.to(memory_format=layout)
    return supernet([images.contiguous(memory_format=layout)], mix), plain(images)


@pytest.mark.parametrize("layout", LAYOUTS, ids=("default", "channels_last"))
@pytest.mark.parametrize("training", [True, False], ids=("train", "eval"))
@pytest.mark.parametrize("name", MIXES)
def test_outputs_and_all_gradients(name: str, training: bool, layout: torch.memory_format) -> None:
    supernet, plain = networks(training)
    alphas = logits()
    ours, theirs = passes(supernet, plain, MIXES[name](alphas), layout)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    _, target = batch()
    mine, expected = (
        torch.autograd.grad(
            functional.cross_entropy(output, target),
            [*alphas.values(), *network.parameters()],
            retain_graph=True,
            allow_unused=True,
        )
        for output, network in ((ours, supernet), (theirs, plain))
    )
    zeros = [torch.zeros_like(tensor) for tensor in (*alphas.values(), *plain.parameters())]
    for one, other, zero in zip(mine, expected, zeros, strict=True):
        torch.testing.assert_close(zero if one is None else one, zero if other is None else other, rtol=1e-9, atol=1e-9)
    assert any(gradient is not None and gradient.abs().max() > 1e-3 for gradient in mine[: len(EDGES)])


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [False, True])
def test_a_scaled_normalisation_is_the_weight_times_it(affine: bool, momentum: float | None) -> None:
    torch.manual_seed(0)
    plain, scaled = (nn.BatchNorm2d(CHANNELS, affine=affine, momentum=momentum) for _ in range(2))
    if affine:
        for parameter in plain.parameters():
            nn.init.normal_(parameter)
    scaled.load_state_dict(plain.state_dict())
    weight = torch.tensor(0.3)
    for training in (True, True, False):
        plain.train(training)
        scaled.train(training)
        x = torch.randn(4, CHANNELS, 5, 5)
        torch.testing.assert_close(scaled_norm(scaled, x, weight), weight * plain(x))
    torch.testing.assert_close(dict(scaled.named_buffers()), dict(plain.named_buffers()))


def test_statistics_are_counted_as_by_plain_layers() -> None:
    supernet, plain = networks(cells=2)
    passes(supernet, plain, soft(logits()), torch.channels_last)
    for (name, one), other in zip(supernet.network.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, msg=name)


def test_frozen_weights_change_no_gradient_of_the_alphas() -> None:
    supernet, plain = networks()
    _, target = batch()
    alphas = logits()
    _, theirs = passes(supernet, plain, soft(alphas), torch.contiguous_format)
    expected = torch.autograd.grad(functional.cross_entropy(theirs, target), alphas.values())
    supernet.requires_grad_(False)
    ours, _ = passes(supernet, plain, soft(alphas), torch.channels_last)
    functional.cross_entropy(ours, target).backward()
    for alpha, gradient in zip(alphas.values(), expected, strict=True):
        torch.testing.assert_close(alpha.grad, gradient, rtol=1e-9, atol=1e-9)
    assert all(weight.grad is None for weight in supernet.parameters())


def test_second_derivatives() -> None:
    """The alphas' Hessian times a vector, as the guard of DARTS takes it."""
    supernet, plain = networks()
    _, target = batch()
    alphas = logits()
    found = []
    for output in passes(supernet, plain, soft(alphas), torch.channels_last):
        loss = functional.cross_entropy(output, target)
        slopes = torch.autograd.grad(loss, alphas.values(), create_graph=True)
        product = sum((slope * slope.detach()).sum() for slope in slopes)
        found.append(torch.cat(torch.autograd.grad(product, alphas.values(), retain_graph=True)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-10)
    assert found[1].abs().max() > 1e-4


def test_float32_in_channels_last_keeps_the_outputs() -> None:
    supernet, plain = networks()
    mix = Mix(dict.fromkeys(EDGES, ALL), {name: alpha.detach().softmax(0) for name, alpha in logits().items()})
    _, theirs = passes(supernet, plain, mix, torch.channels_last)
    mix = Mix(mix.active, {name: weights.float() for name, weights in mix.weights.items()})
    ours = supernet.float()([batch(torch.float32)[0].contiguous(memory_format=torch.channels_last)], mix)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MIXES)
def test_bf16_keeps_maps_in_bf16_and_the_outputs_near(name: str) -> None:
    supernet, plain = networks()
    alphas = {name: alpha.detach().float() for name, alpha in logits().items()}
    mix = MIXES[name](alphas)
    _, theirs = passes(supernet, plain, MIXES[name](logits()), torch.channels_last)
    supernet.float()
    seen = []
    for cell in supernet.network.body:
        cell.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        ours = supernet([batch(torch.float32)[0].contiguous(memory_format=torch.channels_last)], mix)
    assert set(seen) == {torch.bfloat16}
    assert (ours.double() - theirs).detach().abs().max() < 0.1 * theirs.detach().abs().max()


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 2), (2, 5), (7, 6)])
@pytest.mark.parametrize("layout", LAYOUTS, ids=("default", "channels_last"))
def test_box_sum_is_nine_averages(shape: tuple[int, int], layout: torch.memory_format) -> None:
    x = torch.randn(3, 4, *shape, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    one, other = box_sum(x) / 9, functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(one, other)
    upstream = torch.randn_like(other)
    torch.testing.assert_close(*(torch.autograd.grad(value, x, upstream)[0] for value in (one, other)))
    # In bf16 nothing is lost but by rounding results: whole numbers stay whole.
    whole = torch.randint(-3, 4, (2, 4, *shape)).bfloat16()
    assert torch.equal(box_sum(whole).double(), box_sum(whole.double()).bfloat16().double()), (
        "counts must be exact in bf16"
    )


def test_a_sum_changes_none_of_its_terms() -> None:
    terms = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(5)]
    weights = [None, torch.tensor(0.3, requires_grad=True), None, torch.tensor(-2.0, requires_grad=True), None]
    kept = [term.detach().clone() for term in terms]
    for start in range(5):
        pairs = list(zip(weights[start:], terms[start:], strict=True))
        expected = sum(term if weight is None else weight * term for weight, term in pairs)
        torch.testing.assert_close(blend(pairs), expected)
        assert all(torch.equal(term, old) for term, old in zip(terms, kept, strict=True))
    assert blend([]) is None
    assert blend([(None, terms[0])]) is terms[0]
