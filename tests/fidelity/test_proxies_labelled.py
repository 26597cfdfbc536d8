"""Proxies of the labelled pass, ZiCo and the tangent kernel: closed forms, invariances, networks that are dead."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.batch import Batch
from nas_core.errors import UsageError
from nas_core.task import IMAGE_CLASSIFICATION, Task
from predictors.forward_pass import ForwardPass, weights
from predictors.need import Need
from predictors.proxy import Proxy, Unscorable
from predictors.scoring import Networks, proxy
from predictors.zero_cost.ntk_condition import kernel
from search_spaces.nasbench201.space import NasBench201
from search_spaces.nasbench_graph.space import GraphSize, NasBenchGraph
from training.data import load
from training.data.split import Split

TASK = Task(kind=IMAGE_CLASSIFICATION, input_shape=(8,), outputs=3)
LABELLED = ("grad_norm", "snip", "fisher", "grasp", "naswot", "jacob_cov", "l2_norm")
ALL = (*LABELLED, "params", "macs", "zico", "ntk_condition")


def cross_entropy(output: Tensor, batch: Batch) -> Tensor:
    return functional.cross_entropy(output, batch.target)


def squares(output: Tensor, batch: Batch) -> Tensor:
    return 0.5 * (output - batch.target).square().sum(1).mean()


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def score(
    name: str,
    model: nn.Module,
    inputs: Tensor,
    loss: Callable[[Tensor, Batch], Tensor] = cross_entropy,
    target: Tensor | None = None,
) -> float:
    """The score of one network with its weights as they are."""
    _, found = proxy(name)
    target = torch.arange(len(inputs)) % 3 if target is None else target
    forward = ForwardPass(lambda: model, Batch((inputs,), target), loss, TASK, needs=found.needs)
    (value,) = found.score(forward).values()
    return value


def chain(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers without biases in float64, with an activation between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [activation()] if layers else []
        layers.append(nn.Linear(before, after, bias=False))
    torch.manual_seed(0)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return nn.Sequential(*layers).double()


def test_gradients_of_a_linear_model() -> None:
    """L = mean |W x - y|^2 / 2: dL/dW = mean (W x - y) x'."""
    x, y, model = numbers(6, 8), numbers(6, 3, seed=1), chain(8, 3)
    weight = model[0].weight.detach()
    gradient = (x @ weight.T - y).T @ x / 6
    assert score("grad_norm", model, x, squares, y) == pytest.approx(gradient.norm().item())
    assert score("snip", model, x, squares, y) == pytest.approx((weight * gradient).abs().sum().item())
    assert score("l2_norm", model, x) == pytest.approx(weight.norm().item())


def test_grad_norm_and_l2_norm_add_norms_of_layers() -> None:
    x, model = numbers(6, 8), chain(8, 5, 3)
    cross_entropy(model(x), Batch((x,), torch.arange(6) % 3)).backward()
    norms = [layer.weight.grad.norm().item() for layer in (model[0], model[2])]
    assert score("grad_norm", model, x) == pytest.approx(sum(norms))
    assert sum(norms) > 1.1 * math.hypot(*norms)
    sizes = [layer.weight.norm().item() for layer in (model[0], model[2])]
    assert score("l2_norm", model, x) == pytest.approx(sum(sizes))


def test_snip_is_the_gradient_of_a_mask() -> None:
    """Lee et al., equation 3: the derivative of the loss with respect to connections c = 1 in f(c * theta)."""
    x, model = numbers(6, 8), chain(8, 5, 3)
    masks = [torch.ones_like(layer.weight, requires_grad=True) for layer in (model[0], model[2])]
    hidden = functional.relu(x @ (masks[0] * model[0].weight.detach()).T)
    output = hidden @ (masks[1] * model[2].weight.detach()).T
    cross_entropy(output, Batch((x,), torch.arange(6) % 3)).backward()
    expected = sum(mask.grad.abs().sum().item() for mask in masks if mask.grad is not None)
    assert score("snip", model, x) == pytest.approx(expected)


def test_euler_identity_of_saliencies() -> None:
    """Without biases and normalisation theta * dL/dtheta sums to the same in every layer."""
    x, model = numbers(6, 8), chain(8, 7, 5, 4, 3)
    forward = ForwardPass(lambda: model, Batch((x,), torch.arange(6) % 3), cross_entropy, TASK, needs=Need.GRADIENTS)
    named = weights(forward.model)
    sums = [(named[name] * gradient).sum().item() for name, gradient in forward.passed.gradients.items()]
    assert len(sums) == 4
    assert sums == pytest.approx([sums[0]] * 4)
    assert abs(sums[0]) > 1e-4


def test_rescaling_of_neurons() -> None:
    """Multiplying a layer by c and dividing the next by c is the same function: snip is unchanged, norms are not."""
    x, plain, scaled = numbers(6, 8), chain(8, 5, 3), chain(8, 5, 3)
    with torch.no_grad():
        scaled[0].weight.mul_(4.0)
        scaled[2].weight.div_(4.0)
    for name in ("snip", "naswot", "jacob_cov", "zico"):
        assert score(name, scaled, x) == pytest.approx(score(name, plain, x)), name
    for name in ("grad_norm", "l2_norm"):
        assert score(name, scaled, x) != pytest.approx(score(name, plain, x), rel=0.1), name


@pytest.mark.parametrize(
    ("name", "factor"), [("grad_norm", 8.0), ("snip", 8.0), ("grasp", 64.0), ("fisher", 64.0), ("zico", 1.0)]
)
def test_scaling_of_the_loss(name: str, factor: float) -> None:
    x, model = numbers(6, 8), chain(8, 5, 3)
    scaled = score(name, model, x, lambda output, batch: 8.0 * cross_entropy(output, batch))
    assert scaled == pytest.approx(factor * score(name, model, x))


def test_grasp_of_a_quadratic() -> None:
    """L = theta' A theta / 2: g = A theta and H = A, the score is -theta' A^2 theta."""
    half, model = numbers(8, 8), chain(8, 1)
    matrix = half @ half.T
    weight = model[0].weight.detach().flatten()
    found = score("grasp", model, torch.eye(8).double(), lambda output, _: 0.5 * (output.T @ matrix @ output).sum())
    assert found == pytest.approx(-(weight @ matrix @ matrix @ weight).item())
    assert found < 0


def test_grasp_of_a_linear_loss_is_zero() -> None:
    assert score("grasp", chain(8, 3), numbers(6, 8), lambda output, _: output.mean()) == pytest.approx(0, abs=1e-12)


def test_fisher_counts_a_channel_once_per_weight() -> None:
    x, y, model = numbers(6, 8), numbers(6, 3, seed=1), chain(8, 3)
    output = x @ model[0].weight.detach().T
    by_channel = 0.5 * (output * (output - y) / 6).square().mean(0)
    assert score("fisher", model, x, squares, y) == pytest.approx(8 * by_channel.sum().item())


def test_fisher_sums_over_positions_before_it_squares() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 2).double()
    model = nn.Sequential(conv, nn.AvgPool2d(2), nn.Flatten())
    x, y = numbers(5, 2, 3, 3), numbers(5, 3, seed=1)
    output = conv(x).detach()
    gradient = (output.mean((2, 3)) - y)[:, :, None, None] / 4 / 5
    by_channel = 0.5 * (output * gradient).sum((2, 3)).square().mean(0)
    assert score("fisher", model, x, squares, y) == pytest.approx(2 * 2 * 2 * by_channel.sum().item())


class Codes(nn.Module):
    """Gives the inputs to an activation as they are."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x)


def codes(rows: Sequence[Sequence[int]]) -> float:
    return score("naswot", Codes(), torch.tensor(rows).double())


def test_naswot_of_known_codes() -> None:
    """K_ij is the number of units in which codes agree; here log det of [[3, 1], [1, 3]] and its like."""
    assert codes([[1, 1, 0], [1, 0, 1]]) == pytest.approx(math.log(3 * 3 - 1 * 1))
    assert codes([[1, 0], [0, 1]]) == pytest.approx(math.log(4))
    opposite = [[1, 1, 0, 0], [0, 0, 1, 1]]
    assert codes(opposite) == pytest.approx(math.log(16))
    # b b' alone has the diagonal 2, not 4 units: log 4.
    on = torch.tensor(opposite).double()
    assert torch.logdet(on @ on.T).item() == pytest.approx(math.log(4))


def test_naswot_of_disjoint_codes() -> None:
    """One unit per sample: K has M = n on the diagonal and M - 2 elsewhere."""
    n = 5
    matrix = torch.full((n, n), n - 2.0).fill_diagonal_(n)
    assert codes(torch.eye(n).int().tolist()) == pytest.approx(torch.logdet(matrix).item())


def test_naswot_of_equal_codes_is_the_worst() -> None:
    assert codes([[1, 1, 0], [1, 1, 0]]) == -math.inf
    rows = (numbers(64, 300) > 0).int()
    assert math.isfinite(codes(rows.tolist()))
    rows[17] = rows[40]
    assert codes(rows.tolist()) == -math.inf


@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh])
def test_naswot_sees_every_activation(activation: type[nn.Module]) -> None:
    x = numbers(6, 8)
    expected = score("naswot", chain(8, 40, 3), x)
    assert math.isfinite(expected)
    assert score("naswot", chain(8, 40, 3, activation=activation), x) == expected


def test_naswot_without_activation() -> None:
    with pytest.raises(Unscorable, match="no elementwise activation"):
        score("naswot", chain(8, 3), numbers(6, 8))


class Energy(nn.Module):
    """The derivative of the output with respect to the input is the input."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x.square()


def test_jacobians_without_correlation() -> None:
    """C = I has n eigenvalues 1; the rows are those of a Hadamard matrix without the constant one."""
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(3):
        hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)])
    found = score("jacob_cov", Energy(), hadamard[1:])
    assert found == pytest.approx(-7 * (math.log(1 + 1e-5) + 1 / (1 + 1e-5)))
    assert found > score("jacob_cov", Energy(), numbers(7, 8))


def test_jacobians_that_are_equal_or_constant() -> None:
    two = score("jacob_cov", Energy(), numbers(1, 8).repeat(2, 1))
    assert two == pytest.approx(-(math.log(2 + 1e-5) + 1 / (2 + 1e-5) + math.log(1e-5) + 1e5), rel=1e-3)
    constant = numbers(3, 8)
    constant[1] = 0.1
    assert score("jacob_cov", Energy(), constant) == -math.inf
    with pytest.raises(Unscorable, match="one sample"):
        score("jacob_cov", Energy(), numbers(1, 8))


def test_kernel_of_a_linear_model() -> None:
    """f = W x, outputs summed: the kernel is C X X', whatever W is."""
    x, model = numbers(6, 8), chain(8, 3)
    forward = ForwardPass(lambda: model, Batch((x,), torch.arange(6) % 3), cross_entropy, TASK)
    assert torch.allclose(kernel(forward, model), 3 * x @ x.T)
    assert score("ntk_condition", model, x) == pytest.approx(-math.log(torch.linalg.cond(x @ x.T).item()))


def test_kernel_is_that_of_gradients_one_by_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)
    ).double()
    x = numbers(20, 1, 4, 4)
    forward = ForwardPass(lambda: model, Batch((x,), torch.arange(20) % 3), cross_entropy, TASK)
    found = kernel(forward, forward.copy())
    rows = []
    for output in forward.copy()(x):
        model = forward.copy()
        output = model(x)[len(rows)].sum()
        gradients = torch.autograd.grad(output, [v for n, v in model.named_parameters() if n.endswith("weight")])
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    jacobian = torch.stack(rows)
    assert jacobian.shape == (20, 27 + 3 + 36)
    assert torch.allclose(found, jacobian @ jacobian.T)


def test_ntk_condition_draws_its_own_weights_and_takes_few_samples() -> None:
    x, model = numbers(40, 8), chain(8, 50, 3)
    once = score("ntk_condition", model, x)
    with torch.no_grad():
        model[0].weight.mul_(3.0)
    assert score("ntk_condition", model, x) == once
    assert score("ntk_condition", model, x[:32]) == once
    assert score("ntk_condition(samples=16)", model, x) == score("ntk_condition", model, x[:16]) != once
    assert score("ntk_condition(repeats=3)", model, x) != once
    assert score("ntk_condition", model, x[:1].repeat(4, 1)) < -20
    with pytest.raises(Unscorable, match="one sample"):
        score("ntk_condition", model, x[:1])


def zico_by_hand(model: nn.Sequential, x: Tensor) -> float:
    found = 0.0
    for layer in (model[0], model[2]):
        gradients = []
        for half in (slice(0, 3), slice(3, 6)):
            loss = cross_entropy(model(x[half]), Batch((x[half],), (torch.arange(6) % 3)[half]))
            gradients.append(torch.autograd.grad(loss, layer.weight)[0].flatten().tolist())
        terms = []
        for pair in zip(*gradients, strict=True):
            mean = sum(pair) / 2
            deviation = math.sqrt(sum((value - mean) ** 2 for value in pair) / 2)
            if deviation > 0:
                terms.append((abs(pair[0]) + abs(pair[1])) / 2 / deviation)
        found += math.log(sum(terms)) if sum(terms) else 0.0
    return found


def test_zico_of_two_halves() -> None:
    x, model = numbers(6, 8), chain(8, 5, 3)
    assert score("zico", model, x) == pytest.approx(zico_by_hand(model, x))
    assert score("zico", model, torch.cat([x, numbers(1, 8, seed=1)])) == score("zico", model, x)


def test_zico_of_equal_halves_is_zero() -> None:
    half = numbers(3, 8)
    assert score("zico", chain(8, 5, 3), half.repeat(2, 1)) == 0.0
    with pytest.raises(Unscorable, match="one sample"):
        score("zico", chain(8, 5, 3), half[:1])


class Nothing(nn.Module):
    """No weight at all."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3]


@pytest.mark.parametrize("name", ["grad_norm", "snip", "grasp", "fisher", "l2_norm", "zico", "naswot"])
def test_networks_without_anything_to_measure(name: str) -> None:
    with pytest.raises(Unscorable):
        score(name, Nothing(), numbers(6, 8))
    assert score("params", Nothing(), numbers(6, 8)) == 0


@pytest.mark.parametrize("name", ["grad_norm", "snip", "fisher", "grasp", "jacob_cov", "zico", "l2_norm"])
def test_numbers_that_overflow_are_the_worst(name: str) -> None:
    model = chain(8, 5, 3)
    with torch.no_grad():
        model[0].weight.mul_(1e300)
        model[2].weight.mul_(1e300)
    assert score(name, model, numbers(6, 8)) in ((-math.inf,) if name != "l2_norm" else (-math.inf, pytest.approx(0)))


@pytest.fixture(scope="module")
def cells() -> Networks:
    space = NasBench201()
    return Networks(space, space.Size(channels=4, cells=1), load("digits", Split()), batch=16)


def scores(networks: Networks, text: str, names: Sequence[str] = ALL) -> tuple[dict[str, float], dict[str, str]]:
    space: Any = networks.space
    (found,) = networks.score([space.from_text(text)], names)
    return dict(found.values), dict(found.reasons)


LIVE = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|"
DEAD = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def test_a_live_cell(cells: Networks) -> None:
    together, reasons = scores(cells, LIVE)
    assert reasons == {}
    assert all(math.isfinite(value) for value in together.values())
    space: Any = cells.space
    costs = space.costs(space.from_text(LIVE), cells.task, cells.size)
    assert (together["params"], together["macs"]) == (costs["params"], costs["macs"])
    for name in ALL:
        alone, _ = scores(cells, LIVE, [name])
        assert alone[name] == pytest.approx(together[name], rel=1e-3), name
        assert scores(cells, LIVE, [name])[0] == alone, name


def test_a_dead_cell_has_the_documented_worst(cells: Networks) -> None:
    found, reasons = scores(cells, DEAD)
    for name in ("grad_norm", "snip", "zico"):
        assert found[name] == 0.0, name
    for name in ("grasp", "naswot", "jacob_cov", "ntk_condition"):
        assert found[name] == -math.inf, name
    assert set(reasons) == {"grasp"}
    assert found["fisher"] < scores(cells, LIVE)[0]["fisher"]


@pytest.fixture(scope="module")
def nodes() -> Networks:
    return Networks(NasBenchGraph(), GraphSize.preset("search", hidden=8), load("karate", Split()))


@pytest.mark.parametrize("text", ["0012:gat,gcn,gin,cheb", "0111:sage,arma,graph,fc", "0123:gcn,skip,gat,gin"])
def test_graph_networks(nodes: Networks, text: str) -> None:
    names = [name for name in ALL if name != "fisher"]
    found, reasons = scores(nodes, text, names)
    assert reasons == {}
    assert all(math.isfinite(value) for name, value in found.items() if name != "naswot"), found
    for name in names:
        assert scores(nodes, text, [name])[0][name] == pytest.approx(found[name], rel=1e-3), name
    space: Any = nodes.space
    costs = space.costs(space.from_text(text), nodes.task, nodes.size)
    assert found["params"] == costs["params"]
    assert found["macs"] == costs["macs"]


def test_fisher_is_for_images(nodes: Networks) -> None:
    with pytest.raises(UsageError, match="fisher"):
        scores(nodes, "0012:gat,gcn,gin,cheb", ["fisher"])


@pytest.mark.parametrize("name", ALL)
def test_each_has_the_contract_of_a_proxy(name: str) -> None:
    full, found = proxy(name)
    assert full == name
    assert found.components == (name,)
    assert isinstance(found.needs, Need)
    checked: Proxy = found
    assert (checked.needs == Need.NOTHING) == (name in {"l2_norm", "params", "macs", "zico", "ntk_condition"})
