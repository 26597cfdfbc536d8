"""The labelled pass: equal to plain autograd of each thing computed alone, and it leaves everything as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.batch import Batch
from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, Task
from predictors import double_backward
from predictors.forward_pass import NODES, ForwardPass, LabelledPass, total, weights
from predictors.function_hooks import activations
from predictors.need import Need

TASK = Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 6, 6), outputs=4)
NODE_TASK = Task(kind=NODE_CLASSIFICATION, input_shape=(5,), outputs=3)
EVERYTHING = Need.GRADIENTS | Need.CURVATURE | Need.CHANNELS | Need.CODES | Need.JACOBIAN


class Network(nn.Module):
    """Convolutions with batch normalisation, one used twice, a branch that leads nowhere, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.again = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        self.plain = nn.BatchNorm2d(4, affine=False)
        self.unused = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.elu(self.norm(self.first(x)))
        hidden = functional.gelu(self.plain(self.again(functional.silu(self.again(hidden)))))
        self.unused(hidden.mean((2, 3)))
        return self.head(self.drop(hidden).mean((2, 3)))


def loss(output: Tensor, batch: Batch) -> Tensor:
    if batch.index is not None:
        return functional.cross_entropy(output[batch.index], batch.target[batch.index])
    return functional.cross_entropy(output, batch.target)


def images(count: int = 6, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 3, 6, 6, generator=generator, dtype=torch.float64)
    return Batch((inputs,), torch.arange(count) % 4)


def forward(build: Callable[[], nn.Module], needs: Need, batch: Batch | None = None, seed: int = 0) -> ForwardPass:
    """A forward pass in float64."""
    return ForwardPass(lambda: build().double(), batch or images(), loss, TASK, needs=needs, seed=seed)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[name], other[name], atol=1e-12) for name in one)


def test_gradients_and_curvature_are_those_of_autograd() -> None:
    found = forward(Network, EVERYTHING)
    model = found.copy()
    named = weights(model)
    assert set(named) == {"first.weight", "again.weight", "unused.weight", "head.weight"}
    first = torch.autograd.grad(
        loss(model(*found.batch.inputs), found.batch), list(named.values()), create_graph=True, materialize_grads=True
    )
    assert same(found.passed.gradients, dict(zip(named, first, strict=True)))
    product = sum((gradient.detach() * gradient).sum() for gradient in first)
    second = torch.autograd.grad(product, list(named.values()), materialize_grads=True)
    expected = {name: (weight * product).sum() for (name, weight), product in zip(named.items(), second, strict=True)}
    assert same(found.passed.curvature, {name: value.detach() for name, value in expected.items()})
    assert all(abs(expected[name]) > 1e-6 for name in ("first.weight", "again.weight", "head.weight"))
    assert not found.passed.gradients["unused.weight"].any()


class Tied(nn.Module):
    """A weight that two layers and a product share, a transposed convolution, and a layer that works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 3, 2)
        self.conv = nn.Conv2d(3, 4, 3)
        self.tied = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.elu(self.conv(self.up(x)), inplace=True).mean((2, 3))
        output = torch.tanh(self.tied(torch.sigmoid(self.tied(hidden)))) @ self.tied.weight
        return output * self.conv.weight.square().mean((1, 2, 3))


class Shapes(nn.Module):
    """Convolutions of every kind, with a stride, a dilation, groups, a named padding, one image at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.named = nn.Conv2d(3, 4, 3, padding="same")
        self.strided = nn.Conv2d(4, 6, 3, stride=(2, 1), padding=1, groups=2)
        self.line = nn.Conv1d(6, 4, 3, dilation=2)
        self.solid = nn.Conv3d(1, 2, 2, bias=False)
        self.single = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.elu(self.strided(torch.tanh(self.named(x))))
        flat = torch.tanh(self.line(hidden.flatten(2)))
        solid = torch.sigmoid(self.solid(hidden.unsqueeze(1))).mean((1, 2, 3, 4))
        single = torch.stack([self.single(image.unsqueeze(-1)) for image in flat])
        return single.square().mean((2, 3)) * solid[:, None]


@pytest.mark.parametrize("network", [Tied, Shapes])
def test_curvature_of_every_use_of_a_weight(network: type[nn.Module]) -> None:
    found = forward(network, EVERYTHING)
    model = found.copy()
    named = weights(model)
    first = torch.autograd.grad(loss(model(*found.batch.inputs), found.batch), list(named.values()), create_graph=True)
    assert same(found.passed.gradients, dict(zip(named, [gradient.detach() for gradient in first], strict=True)))
    product = sum((gradient.detach() * gradient).sum() for gradient in first)
    second = torch.autograd.grad(product, list(named.values()))
    expected = {
        name: (weight * each).sum().detach() for (name, weight), each in zip(named.items(), second, strict=True)
    }
    assert same(found.passed.curvature, expected)


def test_channels_are_those_of_hooks() -> None:
    found = forward(Network, EVERYTHING)
    model = found.copy()
    outputs: list[tuple[str, Tensor]] = []

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            output.retain_grad()
            outputs.append((f"{name}.weight", output))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(keep(name))
    loss(model(*found.batch.inputs), found.batch).backward()
    expected: dict[str, Tensor] = {}
    for name, output in outputs:
        gradient = torch.zeros_like(output) if output.grad is None else output.grad
        by_sample = (output * gradient).flatten(2).sum(2) if output.dim() == 4 else output * gradient
        expected[name] = expected.get(name, 0) + 0.5 * by_sample.square().mean(0).detach()
    assert len(outputs) == 5
    assert same(found.passed.channels, expected)


def test_the_jacobian_is_that_of_the_summed_outputs() -> None:
    found = forward(Network, EVERYTHING)
    (x,) = (value.clone().requires_grad_() for value in found.batch.inputs)
    found.copy()(x).sum().backward()
    assert found.passed.jacobian is not None
    assert x.grad is not None
    assert torch.allclose(found.passed.jacobian, x.grad.flatten(1), atol=1e-14)
    assert not found.batch.inputs[0].requires_grad


def test_codes_count_units_that_agree() -> None:
    found = forward(Network, EVERYTHING)
    seen = activations(found.copy(), found.batch.inputs)
    on = torch.cat([x.flatten(1) > 0 for x in seen], 1)
    assert len(seen) == 3
    assert found.passed.units == on.shape[1] == 3 * 4 * 36
    agree = (on[:, None] == on[None, :]).sum(2).double()
    assert found.passed.codes is not None
    assert torch.equal(found.passed.codes, agree)


def test_shared_needs_equal_each_alone() -> None:
    together = forward(Network, EVERYTHING).passed
    for need in (Need.GRADIENTS, Need.CURVATURE, Need.CHANNELS, Need.CODES, Need.JACOBIAN):
        alone = forward(Network, need).passed
        assert torch.allclose(alone.output, together.output)
        for name in ("gradients", "curvature", "channels"):
            values = getattr(alone, name)
            assert not values or same(values, getattr(together, name))
        for name in ("codes", "jacobian"):
            value = getattr(alone, name)
            assert value is None or torch.allclose(value, getattr(together, name), atol=1e-14)
    assert not forward(Network, Need.CODES).passed.gradients
    assert forward(Network, Need.CURVATURE).passed.gradients


def test_everything_is_left_as_found() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = forward(Network, EVERYTHING)
    state = {name: value.clone() for name, value in found.model.state_dict().items()}
    _ = found.passed
    found.gradients(found.halves()[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert state.keys() == found.model.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in found.model.state_dict().items())
    assert all(parameter.grad is None for parameter in found.model.parameters())
    assert all(module.training for module in found.model.modules())
    assert torch.is_grad_enabled()


def test_the_pass_does_not_depend_on_who_computes_it() -> None:
    with torch.no_grad():
        quiet = forward(Network, EVERYTHING).passed
    assert same(quiet.curvature, forward(Network, EVERYTHING).passed.curvature)


def test_the_seed_gives_the_weights() -> None:
    one, other, third = (forward(Network, Need.GRADIENTS, seed=seed) for seed in (3, 3, 4))
    assert same(dict(weights(one.model)), dict(weights(other.model)))
    assert not same(dict(weights(one.model)), dict(weights(third.model)))


class Body(nn.Module):
    """A convolution without normalisation, then an activation."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.activation = activation
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.conv(x))
        return self.head(hidden.mean((2, 3)))


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU(), nn.ReLU(inplace=True), functional.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_,
        nn.GELU(), functional.gelu, nn.SiLU(inplace=True), nn.ELU(), nn.LeakyReLU(0.1, True), nn.Softplus(), nn.Tanh(),
        nn.Hardswish(inplace=True), torch.sigmoid, nn.Mish(), nn.ReLU6(True), nn.PReLU(dtype=torch.float64), nn.RReLU(),
    ],
    ids=lambda activation: getattr(activation, "__name__", None) or str(activation),
)  # fmt: skip
def test_every_activation_is_seen(activation: Callable[[Tensor], Tensor]) -> None:
    found = forward(lambda: Body(activation), Need.CODES).passed
    reference = forward(lambda: Body(functional.relu), Need.CODES).passed
    assert found.units == reference.units == 4 * 16
    assert found.codes is not None
    assert reference.codes is not None
    assert torch.equal(found.codes, reference.codes)


@pytest.mark.parametrize("overwrite", [functional.elu, lambda x, inplace: x.mul_(3.0) if inplace else 3.0 * x])
def test_channels_are_those_before_an_overwrite(overwrite: Callable[..., Tensor]) -> None:
    found = [
        forward(lambda inplace=inplace: Body(lambda x: overwrite(x, inplace=inplace)), Need.CHANNELS).passed.channels
        for inplace in (False, True)
    ]
    assert same(*found)


def test_dropout_is_off() -> None:
    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat = nn.Flatten()
            self.inner = nn.Dropout(0.5)
            self.dropout = 0.5
            self.head = nn.Linear(108, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(functional.dropout(self.inner(self.flat(x)), self.dropout, self.training))

    found = forward(Drops, Need.GRADIENTS)
    model = found.copy()
    assert torch.equal(found.run(model), found.run(model))
    assert torch.equal(found.passed.output, model.head(found.batch.inputs[0].flatten(1)).detach())


def test_random_activations_depend_on_the_seed_alone() -> None:
    torch.manual_seed(0)
    one = forward(lambda: Body(nn.RReLU()), Need.GRADIENTS).passed
    torch.manual_seed(1)
    assert same(one.gradients, forward(lambda: Body(nn.RReLU()), Need.GRADIENTS).passed.gradients)


def test_linear_layers_on_tokens_have_their_channels_last() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(36, 5)
            self.head = nn.Linear(5, 4)
            self.norm = nn.LayerNorm((3, 5))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(functional.gelu(self.embed(x.flatten(2)))).mean(1))

    found = forward(Tokens, Need.CHANNELS)
    assert set(weights(found.model)) == {"embed.weight", "head.weight"}
    model = found.copy()
    hidden = model.embed(found.batch.inputs[0].flatten(2)).detach().requires_grad_()
    loss(model.head(model.norm(functional.gelu(hidden)).mean(1)), found.batch).backward()
    expected = 0.5 * (hidden * hidden.grad).sum(1).square().mean(0)
    assert expected.shape == (5,)
    assert torch.allclose(found.passed.channels["embed.weight"], expected.detach())


def test_attention_has_a_curvature() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(36, 6)
            self.head = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            heads = self.embed(x.flatten(2)).unsqueeze(1)
            return self.head(functional.scaled_dot_product_attention(heads, heads, heads).mean((1, 2)))

    assert forward(Attends, Need.CURVATURE).passed.curvature["embed.weight"] != 0


class Constant(nn.Module):
    """Answers the same to everything."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 4, dtype=x.dtype)


class WithoutWeights(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x).mean((2, 3))


def test_a_constant_network_has_zeros() -> None:
    found = forward(Constant, EVERYTHING).passed
    assert found.jacobian is not None
    assert not found.jacobian.any()
    assert not found.gradients["layer.weight"].any()
    assert not found.curvature["layer.weight"].any()
    assert found.units == 0


def test_a_network_without_weights_has_no_gradients() -> None:
    inputs = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    found = forward(WithoutWeights, EVERYTHING, Batch((inputs,), torch.arange(4) % 3)).passed
    assert (found.gradients, found.curvature, found.channels) == ({}, {}, {})
    assert found.units == 3 * 36


def test_gradients_of_a_part_are_those_of_autograd() -> None:
    found = forward(Network, Need.NOTHING)
    first, second = found.halves()
    assert torch.equal(torch.cat([first.inputs[0], second.inputs[0]]), found.batch.inputs[0])
    assert torch.equal(torch.cat([first.target, second.target]), found.batch.target)
    model = found.copy()
    loss(model(*second.inputs), second).backward()
    expected = {name: weight.grad for name, weight in weights(model).items() if weight.grad is not None}
    gradients = found.gradients(second)
    assert not gradients.pop("unused.weight").any()
    assert same(gradients, expected)


def test_halves_leave_the_odd_sample_out() -> None:
    first, second = forward(Network, Need.NOTHING, images(7)).halves()
    assert len(first.target) == len(second.target) == 3
    with pytest.raises(ValueError, match="1 sample"):
        forward(Network, Need.NOTHING, images(1)).halves()


class Spread(nn.Module):
    """Every node adds its neighbour's features to its own."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        hidden = functional.relu(self.hidden(x))
        return self.head(hidden.index_add(0, edges[1], hidden[edges[0]]))


def graph(nodes: int, index: Tensor, needs: Need = EVERYTHING) -> ForwardPass:
    features = torch.randn(nodes, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    edges = torch.stack([torch.arange(nodes), (torch.arange(nodes) + 1) % nodes])
    batch = Batch((features, edges), torch.arange(nodes) % 3, index)
    return ForwardPass(lambda: Spread().double(), batch, loss, NODE_TASK, needs=needs)


def test_samples_of_a_graph_are_the_nodes_of_its_index() -> None:
    index = torch.tensor([1, 4, 6, 7])
    found = graph(9, index)
    passed: LabelledPass = found.passed
    assert passed.output.shape == (4, 3)
    assert passed.units == 8
    x = found.batch.inputs[0].clone().requires_grad_()
    model = found.copy()
    output = model(x, found.batch.inputs[1])
    output[index].sum().backward()
    assert x.grad is not None
    assert passed.jacobian is not None
    assert torch.allclose(passed.jacobian, x.grad[index])
    assert passed.codes is not None
    on = model.hidden(x)[index] > 0
    assert torch.equal(passed.codes, (on[:, None] == on[None, :]).sum(2).double())
    first, second = found.halves()
    assert first.index is not None
    assert second.index is not None
    assert (first.index.tolist(), second.index.tolist()) == ([1, 4], [6, 7])
    assert first.inputs[0] is found.batch.inputs[0]


def test_of_a_large_graph_some_nodes_are_drawn() -> None:
    found, again = (graph(3 * NODES, torch.arange(0, 3 * NODES, 2), Need.NOTHING) for _ in range(2))
    assert found.batch.index is not None
    assert again.batch.index is not None
    chosen = found.batch.index.tolist()
    assert len(set(chosen)) == found.samples == NODES
    assert chosen == sorted(chosen) == again.batch.index.tolist()
    assert max(chosen) > 2 * NODES
    assert not any(node % 2 for node in chosen)
    assert graph(NODES, torch.arange(NODES), Need.NOTHING).samples == NODES


@pytest.mark.parametrize("shape", [(5, 3, 4, 4), (6, 3), (4, 3, 5)])
def test_batch_normalisation_has_its_second_derivative(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    weight, bias = torch.rand(2, 3, generator=generator, dtype=torch.float64) + 0.5
    for affine in ((weight, bias), (None, None)):
        assert torch.autograd.gradgradcheck(
            lambda x, a=affine: double_backward.batch_norm(x, None, None, *a, training=True), x
        )


def test_batch_normalisation_is_torch_s() -> None:
    x = torch.randn(5, 3, 4, 4)
    ours, theirs = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    expected = theirs(x)
    given = (ours.running_mean, ours.running_var, ours.weight, ours.bias)
    assert torch.equal(double_backward.batch_norm(x, *given, training=True), expected)
    assert ours.running_var is not None
    assert theirs.running_var is not None
    assert torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(double_backward.batch_norm(x, *given), copy.deepcopy(theirs).eval()(x))


def test_what_is_not_finite_is_the_worst() -> None:
    assert total([torch.tensor([1.0, 2.0]), torch.tensor([0.5])]) == 3.5
    assert total([torch.tensor([float("inf")])]) == float("-inf")
    assert total([torch.tensor([float("nan")])]) == float("-inf")
    assert total([torch.tensor([float("inf")]), torch.tensor([float("-inf")])]) == float("-inf")
