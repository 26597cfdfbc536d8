"""Optimal brain apoptosis: homogeneity, finite differences, the Taylor series, the published sweeps; others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import numpy
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

from compressors.compressor import Subject
from compressors.groups.groups import Group, Groups, Slice, Unit
from compressors.importance.alone import agreement, loss_changes
from compressors.importance.bn_scale import BnScale
from compressors.importance.magnitude import Magnitude
from compressors.importance.norms import cheap_norms
from compressors.importance.oba import Oba, elements
from compressors.importance.obd import Obd
from compressors.importance.passes import Loss, differentiable, gradients, hessian_product
from compressors.importance.random import Random
from compressors.importance.score import MADE, READ, Members
from compressors.importance.taylor import Taylor
from nas_core.batch import Batch
from nas_core.errors import TrialError, UsageError
from nas_core.task import Task
from tests.compressors.hand_made import Images, Net, groups, subject

WIDTHS = (5, 7, 6, 3)
Criterion = Callable[[Tensor, Tensor], Tensor]


def total(output: Tensor, target: Tensor) -> Tensor:
    """The sum of all outputs: a loss that is linear in them."""
    return output.sum()


class Points:
    """One batch of eight points, float64."""

    task = Task(kind="tabular-classification", input_shape=(WIDTHS[0],), outputs=WIDTHS[-1])

    def __init__(self, criterion: Criterion) -> None:
        self._criterion = criterion

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        x = torch.randn(8, WIDTHS[0], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        yield Batch((x,), torch.arange(8) % WIDTHS[-1])

    def targets(self, part: str) -> Tensor:
        return torch.arange(8) % WIDTHS[-1]

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return self._criterion(output, batch.target)

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {}


def layers(activation: type[nn.Module], bias: bool = False) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        linear = [nn.Linear(*widths, bias=bias) for widths in pairwise(WIDTHS)]
    return nn.Sequential(linear[0], activation(), linear[1], activation(), linear[2]).double()


def problem(network: nn.Module, criterion: Criterion) -> tuple[Loss, Batch]:
    data = Points(criterion)
    return Loss(network, Subject(data.task, data, torch.device("cpu"), 0)), next(data.batches("train", 0, 0))


def test_homogeneity_of_a_network_without_biases() -> None:
    """Per layer sum theta g = f and sum theta (H theta) = (L - 1) f, for L = 3 layers and f the loss."""
    network = layers(nn.ReLU)
    loss, batch = problem(network, total)
    with differentiable(network) as parameters:
        f = float(loss(batch).detach())
        first = gradients(loss(batch), parameters)
        second = elements(loss, batch, parameters)
        assert len(parameters) == 3
        for name, theta in parameters.items():
            assert float((theta * first[name]).sum().detach()) == pytest.approx(f, rel=1e-12)
            assert float(second[name].sum()) == pytest.approx(2 * f, rel=1e-12)


@pytest.mark.parametrize("activation", [nn.SiLU, nn.GELU])
def test_the_product_with_the_hessian_is_the_difference_of_gradients(activation: type[nn.Module]) -> None:
    network = layers(activation, bias=True)
    loss, batch = problem(network, functional.cross_entropy)
    step = 1e-5
    with differentiable(network) as parameters:
        theta = {name: one.detach().clone() for name, one in parameters.items()}
        product = hessian_product(loss(batch), parameters, theta)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                for name, one in parameters.items():
                    one.copy_(theta[name] * (1 + sign * step))
            ends.append(gradients(loss(batch), parameters))
    for name, found in product.items():
        difference = (ends[0][name] - ends[1][name]) / (2 * step)
        assert float((found - difference).norm() / found.norm()) < 1e-5


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(8, 3), (4, 3, 5, 2)])
def test_cheap_normalisations_are_those_of_torch(shape: tuple[int, ...], training: bool, affine: bool) -> None:
    def drawn(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    def derivatives() -> list[Tensor]:
        """The output, its first derivatives, and those of their inner product with directions."""
        read = [x, *norm.parameters()]
        output = norm(x)
        first = torch.autograd.grad((output * slopes).sin().sum(), read, create_graph=True)
        product = sum((one * way).sum() for one, way in zip(first, ways, strict=False))
        return [output, *first, *torch.autograd.grad(product, read)]

    generator = torch.Generator().manual_seed(0)
    norm = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(3, affine=affine).double().train(training)
    x, slopes = drawn(*shape).requires_grad_(), drawn(*shape)
    ways = [drawn(*shape), drawn(3), drawn(3)]
    with torch.no_grad():
        for one in (*norm.parameters(), norm.running_mean, norm.running_var):
            one.copy_(drawn(3).abs() + 0.5)
    state = {name: one.clone() for name, one in norm.state_dict().items()}
    wanted = derivatives()
    norm.load_state_dict(state)
    with cheap_norms():
        found = derivatives()
        assert ("_Forward" in str(found[0].grad_fn)) is not training
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_the_second_order_term_leaves_a_rest_of_third_order() -> None:
    network = layers(nn.SiLU, bias=True)
    loss, batch = problem(network, functional.cross_entropy)
    with differentiable(network) as parameters:
        theta = {name: one.detach().clone() for name, one in parameters.items()}
        whole = loss(batch).detach()
        first = sum((theta[name] * one).sum() for name, one in gradients(loss(batch), parameters).items())
        second = sum(one.sum() for one in elements(loss, batch, parameters).values())
        rests = []
        for step in (1e-2, 1e-3):
            with torch.no_grad():
                for name, one in parameters.items():
                    one.copy_(theta[name] * (1 - step))
                change = loss(batch) - whole
            rests.append(abs(float(change - (-step * first + step**2 / 2 * second))))
            assert rests[-1] < 0.1 * abs(float(step**2 / 2 * second))
    assert rests[0] / rests[1] == pytest.approx(1000, rel=0.2)


def sweeps(network: nn.Sequential, criterion: Criterion, batch: Batch) -> dict[str, Tensor]:
    """The published algorithm for layers in series, from its description: with the slope of the loss in the outputs
    of every layer held fixed, a sweep upward gives each layer the contributions of those above, one downward those of
    all below; weights are perturbed by themselves."""
    x, target = batch.inputs[0], batch.target
    weights = [one.weight for one in network if isinstance(one, nn.Linear)]
    inputs, outputs, hidden = [], [], x
    for number, weight in enumerate(weights):
        inputs.append(hidden)
        outputs.append(hidden @ weight.T)
        hidden = outputs[-1].relu() if number < len(weights) - 1 else outputs[-1]
    slopes = torch.autograd.grad(criterion(hidden, target), outputs, retain_graph=True)
    found = [torch.zeros_like(weight) for weight in weights]
    for m in range(1, len(weights)):
        above = inputs[m] @ weights[m].detach().T
        reached = torch.autograd.grad((slopes[m] * above).sum(), weights[:m], retain_graph=True)
        for below in range(m):
            found[below] += weights[below].detach() * reached[below]
    moved = torch.zeros_like(x)
    for m, weight in enumerate(weights):
        found[m] += weight.detach() * (slopes[m].T @ moved)
        moved = inputs[m].detach() @ weight.detach().T + moved @ weight.detach().T
        moved = moved * (outputs[m] > 0)
    return {f"{2 * number}.weight": one for number, one in enumerate(found)}


@pytest.mark.parametrize("criterion", [total, functional.cross_entropy])
def test_series_is_the_published_algorithm(criterion: Criterion) -> None:
    network = layers(nn.ReLU)
    loss, batch = problem(network, criterion)
    wanted = sweeps(network, criterion, batch)
    with differentiable(network) as parameters:
        found = elements(loss, batch, parameters, series=True)
        exact = elements(loss, batch, parameters)
    for name, one in wanted.items():
        torch.testing.assert_close(found[name], one, rtol=1e-12, atol=1e-14)
        if criterion is total:  # the loss has no curvature of its own
            assert torch.equal(found[name], exact[name])
        else:
            assert not torch.allclose(found[name], exact[name], rtol=1e-3)


def trained() -> Net:
    network, data = Net(), subject().data
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    for epoch in range(6):
        for batch in data.batches("train", epoch, 0):
            optimizer.zero_grad()
            data.loss(network(*batch.inputs), batch).backward()
            optimizer.step()
    return network.eval()


def test_the_ranking_of_oba_is_not_that_of_taylor() -> None:
    network = trained()
    oba, taylor = (
        numpy.concatenate([*score(network, groups(), subject(), 0).values()])
        for score in (Oba(Oba.Config()), Taylor(Taylor.Config(of="weights", mean="absolutes")))
    )
    assert spearmanr(oba, taylor)[0] < 0.99
    assert (oba >= 0).all()
    assert (taylor >= 0).all()


class Alone(Images):
    """The same batch, always, and no other."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self._batch = batch

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        yield self._batch


def test_a_gate_is_what_switches_a_unit_off() -> None:
    """The sum of theta g over what reads a channel is the derivative by a factor behind its activation; on the side
    that makes it scale and shift of the normalisation give the same, and the convolution's rows count once more."""
    network, about = Net().eval(), subject()
    loss = Loss(network, about)
    batch = next(about.data.batches("train", 0, 0))
    gate = torch.ones(6, requires_grad=True)
    hidden = functional.relu(network.bn1(network.conv1(batch.inputs[0]))) * gate[:, None, None]
    output = network.head(functional.relu(network.conv2(hidden)).flatten(1))
    (wanted,) = torch.autograd.grad(about.data.loss(output, batch), [gate])
    with differentiable(network) as parameters:
        found = {name: parameters[name].detach() * one for name, one in gradients(loss(batch), parameters).items()}
    read = Members(network, groups(), READ).sums(found)["conv1"]
    made = Members(network, groups()).sums(found)["conv1"]
    assert read.shape == (1, 6)
    assert made.shape == (3, 6)
    torch.testing.assert_close(read.sum(0).float(), wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(made[1:].sum(0).float(), wanted, rtol=1e-4, atol=1e-6)
    changes = {"squares": wanted.square(), "absolutes": wanted.abs(), "change": 16 / 2 * wanted.square() - wanted}
    for mean, change in changes.items():
        alone = Subject(about.data.task, Alone(batch), about.device, 0)
        score = Taylor(Taylor.Config(mean=mean))(network, groups(), alone, 0)["conv1"]
        numpy.testing.assert_allclose(score, change.numpy(), rtol=1e-3, atol=1e-8)


def test_members_are_summed_with_their_signs() -> None:
    network = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
    units = tuple(
        Unit(
            (Slice("0.weight", 0, rows), Slice("0.bias", 0, rows)),
            (Slice("1.weight", 1, rows), Slice("statistics", 0, rows)),
        )
        for rows in ((0, 2), (1, 3))
    )
    both = Groups((Group("0", units, True),), (), 0.0)
    elements = {
        "0.weight": torch.tensor([[1.0, -2.0], [3.0, 4.0], [5.0, 6.0], [-7.0, 8.0]]),
        "0.bias": torch.tensor([1.0, 2.0, 3.0, 4.0]),
        "1.weight": torch.tensor([[1.0, 10.0, 100.0, -1000.0]]),
    }
    made = Members(network, both).sums(elements)["0"]
    assert made.tolist() == [[10.0, 8.0], [4.0, 6.0]]
    assert made.dtype == torch.float64
    assert Members(network, both, weights=True).sums(elements)["0"].tolist() == [[10.0, 8.0]]
    assert Members(network, both, READ).sums(elements)["0"].tolist() == [[101.0, -990.0]]
    assert Members(network, both, MADE + READ).tensors == ["0.weight", "0.bias", "1.weight"]


def test_the_diagonal_of_a_quadratic_loss() -> None:
    """Of a linear map with squared loss and orthogonal inputs H is diagonal: Hutchinson's estimate is exact."""
    x = torch.tensor([[2.0, 0.0], [0.0, 3.0]], dtype=torch.float64)

    class Squares(Points):
        task = Task(kind="tabular-classification", input_shape=(2,), outputs=2)

        def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
            yield Batch((x,), torch.zeros(2, dtype=torch.long))

    data = Squares(lambda output, target: 0.5 * output.square().sum())
    network = nn.Linear(2, 2, bias=False).double()
    units = tuple(Unit((), (Slice("weight", 1, (one,)),)) for one in range(2))
    rows = tuple(Unit((Slice("weight", 0, (one,)),), ()) for one in range(2))
    both = Groups((Group("columns", units, True), Group("rows", rows, True)), (), 0.0)
    about = Subject(data.task, data, torch.device("cpu"), 0)
    found = Obd(Obd.Config())(network, both, about, 0)
    weight = network.weight.detach()
    wanted = 0.5 * (weight.square() * torch.tensor([4.0, 9.0], dtype=torch.float64)).sum(1)
    numpy.testing.assert_allclose(found["rows"], wanted.numpy(), rtol=1e-12)
    assert found["columns"].tolist() == [0.0, 0.0]  # nothing makes them
    fisher = Obd(Obd.Config(hessian="fisher"))(network, both, about, 0)
    output = x @ weight.T
    gradient = output.T @ x
    numpy.testing.assert_allclose(fisher["rows"], (weight * gradient).square().sum(1).numpy(), rtol=1e-12)


@pytest.mark.parametrize("norm", [1, 2])
def test_magnitude_is_a_norm_of_the_rows(norm: int) -> None:
    network = Net()
    found = Magnitude(Magnitude.Config(norm=norm))(network, groups(), subject(), 0)
    wanted = network.conv1.weight.detach().flatten(1).norm(norm, dim=1)
    numpy.testing.assert_allclose(found["conv1"], wanted.numpy(), rtol=1e-6)


def test_scales_of_normalisations_alone() -> None:
    network = Net()
    with torch.no_grad():
        network.bn1.weight[0] *= -1
    found = BnScale(BnScale.Config())(network, groups(), subject(), 0)
    assert list(found) == ["conv1"]
    numpy.testing.assert_allclose(found["conv1"], network.bn1.weight.detach().abs().numpy())
    network.bn1 = nn.BatchNorm2d(6, affine=False)
    with pytest.raises(UsageError, match="magnitude"):
        BnScale(BnScale.Config())(network, groups(), subject(), 0)


SCORES = (Magnitude, Taylor, Obd, Oba, BnScale, Random)


@pytest.mark.parametrize("kind", SCORES)
def test_scores_come_from_the_seed_and_leave_the_network_as_it_is(kind: type[Taylor]) -> None:
    network = Net().train()
    network.conv1.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.get_rng_state()
    score = kind(kind.Config())
    first, again, other, later = (
        score(network, groups(), subject(seed=seed), round) for seed, round in ((0, 0), (0, 0), (1, 0), (0, 1))
    )
    for name, values in first.items():
        assert values.dtype == numpy.float64
        assert len(values) == {"conv1": 6, "conv2": 4}[name]
        assert numpy.isfinite(values).all()
        assert numpy.array_equal(values, again[name])
    if kind is Random:
        assert all(not numpy.array_equal(first[name], one[name]) for one in (other, later) for name in first)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert network.training
    assert not network.conv1.weight.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_few_batches_are_drawn_from_seed_and_round() -> None:
    network = trained()
    few = Taylor(Taylor.Config(batches=1))
    found = [few(network, groups(), subject(seed=seed), round)["conv1"] for seed, round in ((0, 0), (1, 0), (0, 1))]
    assert not numpy.allclose(found[0], found[1])
    assert not numpy.allclose(found[0], found[2])


def test_a_loss_that_is_no_number_is_refused() -> None:
    network = Net()
    with torch.no_grad():
        network.head.weight[0, 0] = float("nan")
    with pytest.raises(TrialError, match="nan"):
        Oba(Oba.Config())(network, groups(), subject(), 0)


def test_changes_of_single_units_are_those_of_their_removal() -> None:
    network, about = trained(), subject()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    batches = list(about.data.batches("valid", 0, 0))
    found = loss_changes(network, groups(), about, batches)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    images, target = (torch.cat(parts) for parts in zip(*((one.inputs[0], one.target) for one in batches), strict=True))
    with torch.no_grad():
        whole = functional.cross_entropy(network(images), target)
        hidden = functional.relu(network.bn1(network.conv1(images)))
        hidden[:, 2] = 0
        other = network.head(functional.relu(network.conv2(hidden)).flatten(1))
    wanted = float(functional.cross_entropy(other, target) - whole)
    assert found["conv1"][2] == pytest.approx(wanted, rel=1e-4, abs=1e-7)
    together, within = agreement(found, found)
    assert together == pytest.approx(1)
    assert set(within) == {"conv1", "conv2"}
    assert agreement({"conv2": -found["conv2"]}, found)[0] == pytest.approx(-1)
