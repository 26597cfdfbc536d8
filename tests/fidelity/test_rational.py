"""Rational activations: fits, gradients, versions, closure under the residual."""

from __future__ import annotations

from itertools import pairwise, product

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.batch import Batch
from nas_core.task import image_task
from nas_core.traits import HasNoDecay
from predictors.forward_pass import ForwardPass
from search_spaces.layers.rational import FUNCTIONS, LEAST, NOISE, VERSIONS, Rational, Version, with_residual
from training.optimizer import parameter_groups

GRID = torch.linspace(-3, 3, 1001, dtype=torch.float64)


def by_hand(version: Version, numerator: list[float], denominator: list[float], x: float) -> float:
    above = sum(a * x**j for j, a in enumerate(numerator))
    if version == "A":
        return above / (1 + sum(abs(b * x**k) for k, b in enumerate(denominator, 1)))
    if version == "C":
        return above / (LEAST + abs(sum(b * x**k for k, b in enumerate(denominator))))
    return above / (1 + abs(sum(b * x**k for k, b in enumerate(denominator, 1))))


def disturbed(degrees: tuple[int, int], version: Version, seed: int = 0) -> Rational:
    """In evaluation mode, with random coefficients."""
    made = Rational(degrees, version).double().eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("degrees", [(5, 4), (3, 2), (1, 1), (4, 5)])
def test_the_formula(degrees: tuple[int, int], version: Version) -> None:
    made = disturbed(degrees, version)
    assert made.numerator.shape == (degrees[0] + 1,)
    assert made.denominator.shape == (degrees[1] + (version == "C"),)
    x = torch.linspace(-2.5, 2.5, 21, dtype=torch.float64)
    wanted = [by_hand(version, made.numerator.tolist(), made.denominator.tolist(), float(each)) for each in x]
    torch.testing.assert_close(made(x).tolist(), wanted)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_fit_of_leaky_relu(version: Version) -> None:
    """Below .05 everywhere on [-3, 3], with the usual degrees."""
    made = Rational(version=version).double().eval()
    wanted = functional.leaky_relu(GRID)
    assert float((made(GRID) - wanted).detach().abs().max()) < 0.05


@pytest.mark.parametrize(
    ("degrees", "version"),
    [
        *product([(5, 4)], VERSIONS),
        ((7, 6), "A"),
        *(pytest.param((7, 6), version, marks=pytest.mark.matrix) for version in VERSIONS[1:]),
    ],
)
def test_other_fits(degrees: tuple[int, int], version: Version) -> None:
    for start, function in FUNCTIONS.items():
        made = Rational(degrees, version, start).double().eval()
        error = made(GRID).detach().numpy() - function(GRID.numpy())
        assert float(numpy.abs(error).max()) < 0.05, start


@pytest.mark.parametrize("version", VERSIONS)
def test_gradients(version: Version) -> None:
    """By x and the coefficients, in training mode where nothing is random."""
    made = disturbed((5, 4), version, 1).train(version != "D")
    x = torch.linspace(-2.2, 2.1, 8, dtype=torch.float64).requires_grad_()
    names = [name for name, _ in made.named_parameters()]

    def computed(x: Tensor, *values: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(made, dict(zip(names, values, strict=True)), (x,))
        return y

    assert torch.autograd.gradcheck(computed, (x, *(p.detach().requires_grad_() for p in made.parameters())))


@pytest.mark.parametrize("version", VERSIONS)
def test_there_are_no_poles(version: Version) -> None:
    for seed in range(20):
        made = disturbed((5, 4), version, seed)
        y = made(torch.linspace(-20, 20, 4001, dtype=torch.float64))
        bound = sum(abs(a) * 20.0**j for j, a in enumerate(made.numerator.tolist())) / (LEAST if version == "C" else 1)
        assert y.isfinite().all()
        assert float(y.detach().abs().max()) <= bound


def test_noise_is_in_training_alone() -> None:
    """Of version D: other values each time, within a tenth of each coefficient; in evaluation those of B."""
    made = disturbed((5, 4), "D")
    plain = Rational((5, 4), "B").double()
    plain.load_state_dict(made.state_dict())
    assert torch.equal(made(GRID), plain(GRID))
    made.train()
    first, second = made(GRID), made(GRID)
    assert not torch.equal(first, second)
    made.denominator.requires_grad_(False).zero_()
    with torch.no_grad():
        made.numerator.zero_()
        made.numerator[0] = 2.0
        drawn = torch.stack([made(GRID[:1])[0] for _ in range(200)])
    assert float(drawn.min()) >= 2 * (1 - NOISE)
    assert float(drawn.max()) <= 2 * (1 + NOISE)
    assert float(drawn.max() - drawn.min()) > 0.3
    for version in ("A", "B", "C"):
        other = disturbed((5, 4), version).train()
        assert torch.equal(other(GRID), other(GRID))


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_closure_under_the_residual(side: float) -> None:
    """x + R(x) is a rational function of the same degrees, as an identity of polynomials: of version A on either side
    of zero, where its denominator is one polynomial."""
    made = disturbed((5, 4), "A", 2)
    numerator = made.numerator.tolist()
    denominator = [1.0, *(abs(b) * side**k for k, b in enumerate(made.denominator.tolist(), 1))]
    above = with_residual(numerator, denominator)
    assert len(above) == len(numerator) == 6
    polynomial = numpy.polynomial.Polynomial
    # P2 Q = (P + x Q) Q, coefficient by coefficient.
    wanted = (polynomial(numerator) + polynomial([0, 1]) * polynomial(denominator)) * polynomial(denominator)
    numpy.testing.assert_allclose((polynomial(above) * polynomial(denominator)).coef, wanted.coef, rtol=1e-12)
    x = side * torch.linspace(0, 3, 50, dtype=torch.float64)
    closed = polynomial(above)(x.numpy()) / polynomial(denominator)(x.numpy())
    numpy.testing.assert_allclose((x + made(x)).detach().numpy(), closed, rtol=1e-9, atol=1e-9)


def test_no_closure_where_the_denominator_has_the_degree() -> None:
    with pytest.raises(ValueError, match="degree of P must be above that of Q"):
        with_residual([1.0, 2.0, 3.0], [1.0, 0.5, 0.5])


def test_coefficients_do_not_decay_and_may_be_shared() -> None:
    """One function in every layer is one set of coefficients, which all of them move."""
    one = Rational()
    network = nn.Sequential(nn.Linear(4, 4), one, nn.Linear(4, 4), one)
    assert isinstance(one, HasNoDecay)
    decaying, others = parameter_groups(network)
    assert others["weight_decay"] == 0
    assert sorted(map(len, others["params"])) == [4, 6]
    assert len(decaying["params"]) == 4
    network(torch.randn(8, 4)).square().sum().backward()
    gradient = one.numerator.grad
    assert gradient is not None
    assert (gradient != 0).all()


def test_output_has_the_type_and_the_layout_of_the_input() -> None:
    made, x = Rational(), torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last)
    assert made(x).is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        y = made(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, made(x.bfloat16().float()).bfloat16())


@pytest.mark.parametrize(
    ("degrees", "version", "start"),
    [((0, 4), "A", "relu"), ((5, 0), "B", "relu"), ((5, 4), "E", "relu"), ((5, 4), "A", "rel")],
)
def test_what_is_no_rational_function(degrees: tuple[int, int], version: Version, start: str) -> None:
    with pytest.raises(ValueError, match="no rational function of degrees"):
        Rational(degrees, version, start)


def test_fits_are_the_same_for_every_size() -> None:
    """Higher degrees are no worse."""
    errors = []
    for degrees in ((3, 2), (5, 4), (7, 6)):
        made = Rational(degrees, "B", "relu").double().eval()
        errors.append(float((made(GRID) - GRID.relu()).detach().square().mean()))
    assert all(later < earlier for earlier, later in pairwise(errors))


def test_proxies_see_no_noise() -> None:
    task = image_task((3, 8, 8), 5)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), Rational(version="D"))
    batch = Batch((torch.randn(4, 3, 8, 8),), torch.arange(4))
    forward = ForwardPass(lambda: network, batch, lambda y, part: functional.cross_entropy(y, part.target), task)
    assert forward.model.training
    assert torch.equal(forward.run(forward.model), forward.run(forward.model))
