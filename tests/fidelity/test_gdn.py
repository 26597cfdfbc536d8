"""Generalised divisive normalisation: figures by hand, positivity, its inverse, and as a layer of hosts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.batch import Batch
from nas_core.task import image_task
from nas_core.traits import HasNoDecay
from predictors.forward_pass import ForwardPass
from predictors.zero_cost.gradsign import GradSign
from search_spaces.hosts.network import HostSize, host_network, known_hosts
from search_spaces.layers.gdn import BETA_MIN, GDN, IGDN, LowerBound, stored, used
from search_spaces.layers.known import LAYERS
from training.optimizer import parameter_groups
from training.tasks import example_tasks

X = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
BETA = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
GAMMA = torch.tensor([[0.1, 0.2, 0.3], [0.0, 0.4, 0.1], [0.5, 0.0, 0.2]], dtype=torch.float64)
ALPHAS = torch.tensor([[2.0, 1.5, 1.0], [1.0, 2.0, 3.0], [1.2, 2.0, 0.7]], dtype=torch.float64)
EPSILONS = torch.tensor([0.5, 0.8, 0.3], dtype=torch.float64)


def with_values(made: GDN, beta: Tensor = BETA, gamma: Tensor = GAMMA) -> GDN:
    with torch.no_grad():
        made.double().root_beta.copy_(stored(beta))
        made.root_gamma.copy_(stored(gamma))
    return made


@pytest.fixture
def maps() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(8, 32, 6, 6, dtype=torch.float64) * 2 + 1


def by_hand(x: Tensor, beta: Tensor, gamma: Tensor, alpha: Tensor, epsilon: Tensor) -> list[float]:
    return [
        float(x[i] / (beta[i] + sum(gamma[i, j] * abs(x[j]) ** alpha[i, j] for j in range(3))) ** epsilon[i])
        for i in range(3)
    ]


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (GDN(3), (0.4663, -1.1547, 1.4467)),
        (GDN(3, 1.0, 1.0), (0.4167, -1.25, 0.9677)),
        (IGDN(3), (2.1448, -3.4641, 6.2209)),
        (IGDN(3, 1.0, 1.0), (2.4, -3.2, 9.3)),
        (GDN(3, ALPHAS, EPSILONS), (0.6243, -0.5702, 2.1727)),
    ],
)
def test_figures(made: GDN, wanted: Sequence[float]) -> None:
    y = with_values(made)(X[None])[0].detach()
    assert y.tolist() == pytest.approx(wanted, abs=6e-5)
    if not isinstance(made, IGDN):
        alpha, epsilon = (torch.as_tensor(value, dtype=torch.float64) for value in (made.alpha, made.epsilon))
        hand = by_hand(X, BETA, GAMMA, alpha.expand(3, 3), epsilon.expand(3))
        assert y.tolist() == pytest.approx(hand, rel=1e-9)


@pytest.mark.parametrize(
    ("exponents", "plus", "figures"),
    [
        ((2.0, 0.5), 0.0, (0.67430, 2.95294)),
        ((1.0, 1.0), 0.0, (0.72675, 4.52151)),
        ((2.0, 0.5), 0.01, (0.49544, 2.65810)),
        ((1.0, 1.0), 0.01, (0.50304, 3.46762)),
    ],
)
def test_initial_values_on_maps(
    maps: Tensor, exponents: tuple[float, float], plus: float, figures: tuple[float, float]
) -> None:
    made = GDN(32, *exponents).double()
    torch.testing.assert_close(made.beta.detach(), torch.ones(32, dtype=torch.float64))
    torch.testing.assert_close(made.gamma.detach(), 0.1 * torch.eye(32, dtype=torch.float64), rtol=1e-6, atol=1e-10)
    with_values(made, made.beta.detach(), 0.1 * torch.eye(32, dtype=torch.float64) + plus)
    y = made(maps).detach()
    assert (float(y.mean()), float(y.max())) == pytest.approx(figures, abs=1e-5)
    last = made(maps.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, y)
    torch.testing.assert_close(made(maps[:, :, 0, 0]), y[:, :, 0, 0])


def test_without_gamma_it_is_the_identity() -> None:
    x = torch.randn(2, 4, 3)
    torch.testing.assert_close(GDN(4, gamma=0.0)(x), x)


@pytest.mark.parametrize("exponents", [(2.0, 0.5), (1.0, 1.0), (ALPHAS, EPSILONS)])
def test_gradients(exponents: tuple[float, float] | tuple[Tensor, Tensor]) -> None:
    """By x and by what is trained."""
    made = with_values(GDN(3, *exponents))
    x = torch.randn(2, 3, 2, dtype=torch.float64).requires_grad_()
    names = [name for name, _ in made.named_parameters()]

    def computed(x: Tensor, *values: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(made, dict(zip(names, values, strict=True)), (x,))
        return y

    # Off the bound, where the gradient is not that of a maximum.
    values = [(p.detach() + 0.1).requires_grad_() for p in made.parameters()]
    assert torch.autograd.gradcheck(computed, (x, *values))


def test_the_bound_lets_descent_raise_what_is_below() -> None:
    x = torch.tensor([0.5, 0.5, 1.0, 1.0, 2.0], requires_grad=True)
    y = LowerBound.apply(x, 1.0)
    assert y.tolist() == [1, 1, 1, 1, 2]
    (found,) = torch.autograd.grad(y, x, torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]))
    assert found.tolist() == [0, -1, 1, -1, 1]


def test_beta_and_gamma_stay_positive() -> None:
    """Whatever a step did to what is trained."""
    made = GDN(4)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.linspace(-3, 0, parameter.numel()).reshape(parameter.shape))
    assert float(made.beta.detach().min()) >= BETA_MIN * (1 - 1e-4)
    assert float(made.gamma.detach().min()) >= 0
    assert made(torch.randn(5, 4)).isfinite().all()
    values = torch.tensor([1e-3, 0.1, 1.0, 7.0], dtype=torch.float64)
    torch.testing.assert_close(used(stored(values), 0.0), values, rtol=1e-9, atol=0)


@pytest.mark.parametrize("plus", [0.0, 0.01])
@pytest.mark.parametrize("exponents", [(2.0, 0.5), (1.0, 1.0), (1.5, 0.5)])
def test_the_inverse(maps: Tensor, exponents: tuple[float, float], plus: float) -> None:
    """Exact where alpha epsilon is 1, by steps elsewhere."""
    made = GDN(32, *exponents)
    with_values(made, gamma=0.1 * torch.eye(32, dtype=torch.float64) + plus, beta=made.beta.detach().double())
    found = made.inverse(made(maps))
    torch.testing.assert_close(found, maps, rtol=0, atol=1e-9 if exponents[0] * exponents[1] == 1 else 1e-4)
    made.float()
    torch.testing.assert_close(made.inverse(made(maps.float())), maps.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("exponents", [(2.0, 0.5), (1.0, 1.0), (2.0, 1.0)])
def test_what_is_no_output_has_no_inverse(exponents: tuple[float, float]) -> None:
    """With gamma .1 on the diagonal no output reaches sqrt(10), 10, or sqrt(10) / 2."""
    made, limit = GDN(2, *exponents), {(2.0, 0.5): 3.1623, (1.0, 1.0): 10.0, (2.0, 1.0): 1.5812}[exponents]
    made.inverse(torch.tensor([[0.98 * limit, -0.1]]))
    with pytest.raises(ValueError, match=r"no output|no input"):
        made.inverse(torch.tensor([[1.02 * limit, 0.1]]))


def test_pooled_activity_makes_scale_mixtures_normal() -> None:
    """Kurtosis 8.3 becomes 3.2, and squares of channels are no more correlated."""
    torch.manual_seed(0)
    x = torch.randn(50_000, 16) * torch.exp(0.5 * torch.randn(50_000, 1))
    made = GDN(16)
    with torch.no_grad():
        made.root_gamma.copy_(stored(torch.full((16, 16), 1 / 16)))
        y = made(x)
    for values, kurtosis, correlation in ((x, 8.3, 0.24), (y, 3.2, 0.03)):
        centred = values - values.mean(0)
        assert float((centred**4).mean() / (centred**2).mean() ** 2) == pytest.approx(kurtosis, rel=0.08)
        squares = torch.corrcoef((centred**2).t())
        assert float(squares[0, 1:].mean()) == pytest.approx(correlation, abs=0.03)


def test_nothing_of_it_decays() -> None:
    made = nn.Sequential(nn.Linear(3, 3), GDN(3))
    assert isinstance(made[1], HasNoDecay)
    decaying, others = parameter_groups(made)
    assert others["weight_decay"] == 0
    assert {id(each) for each in others["params"]} == {id(each) for each in made[1].parameters()}
    assert len(decaying["params"]) == 2


def test_under_autocast_it_is_computed_in_its_own_type() -> None:
    made, x = GDN(8), torch.randn(4, 8, 3, 3) * 300
    with torch.autocast("cpu", torch.float16):
        y = made(x.half())
    assert y.dtype == torch.float16
    torch.testing.assert_close(y, made(x.half().float()).half())


# -- in hosts ------------------------------------------------------------------------------------------------------

PLACES = {names[0]: task for task in example_tasks() if (names := known_hosts(task))}


@pytest.mark.parametrize("layer", ["gdn", "gdn1"])
@pytest.mark.parametrize("host", PLACES)
def test_hosts_learn_with_it(host: str, layer: str) -> None:
    task = PLACES[host]
    known, inputs = LAYERS[layer], tuple(example_tasks()[task])
    torch.manual_seed(0)
    network = host_network(HostSize(host=host), task, known.made, known.batch)
    layers = [module for module in network.modules() if isinstance(module, GDN)]
    assert layers
    target = torch.randn(len(network(*inputs)), task.outputs, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(10):
        loss = functional.mse_loss(network(*inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-3:]) < losses[0]
    assert all(float(made.root_beta.grad.abs().max()) > 0 for made in layers if made.root_beta.grad is not None)
    network.eval()
    program = torch.export.export(network, inputs).module()
    torch.testing.assert_close(program(*inputs), network(*inputs))


def test_gradsign_computes_its_samples_together() -> None:
    """By vmap, which needs a rule for the bound."""
    task = image_task((3, 8, 8), 5)
    known = LAYERS["gdn"]
    batch = Batch((torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)),), torch.arange(6) % 5)
    forward = ForwardPass(
        partial(host_network, HostSize(width=4), task, known.made, known.batch),
        batch,
        lambda output, part: functional.cross_entropy(output, part.target),
        task,
    )
    assert GradSign(GradSign.Config()).score(forward)["gradsign"] > 0
