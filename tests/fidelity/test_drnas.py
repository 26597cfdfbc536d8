"""DrNAS: the distribution and its gradient, the regularisers, what is derived."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Beta, Dirichlet, kl_divergence
from torch.nn import functional

from nas_core.batch import Batch
from nas_core.evaluation import Objective
from nas_core.one_shot import Compute
from nas_core.relax import Mix
from nas_core.strategy import Setting
from search_spaces.nasbench201.space import OPERATIONS, NasBench201, Size
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.drnas import DrNas, concentration, flat_divergence, sample
from training.data import load
from training.data.loading import Loading
from training.data.split import Split

SPACE = NasBench201()
DATA = load("digits", Split(limit=160))


def make() -> Supernet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Supernet(SPACE, DATA.task, Size(channels=2, cells=1))


def started(**config: Any) -> DrNas:
    strategy = DrNas(Setting(SPACE, 3, (Objective("accuracy", "max"),)), DrNas.Config(**{"epochs": 2, **config}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        strategy.start(make, DATA.bind("cpu", Loading(batch_size=32)), Compute())
    return strategy


def test_concentrations_are_elu_plus_one() -> None:
    alpha = torch.linspace(-5, 5, 101, dtype=torch.float64, requires_grad=True)
    assert torch.allclose(concentration(alpha), functional.elu(alpha) + 1)
    (found,) = torch.autograd.grad(concentration(alpha).sum(), alpha)
    (wanted,) = torch.autograd.grad(functional.elu(alpha).sum(), alpha)
    assert torch.allclose(found, wanted)
    tiny = torch.tensor([-40.0], requires_grad=True)  # float32 loses exp(-40) beside 1
    assert concentration(tiny).item() > 0
    assert functional.elu(tiny).item() + 1 == 0


def test_the_pathwise_gradient_of_two_candidates_is_that_of_the_beta_distribution() -> None:
    """With theta = F^-1(u; a, b), d theta / d a = -(dF / da) / f(theta): of Beta(a, 1) is F = theta^a, so that
    d theta / d a = -theta log(theta) / a exactly, for every draw."""
    beta = torch.tensor([2.5, 1.0], dtype=torch.float64, requires_grad=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(50):
            theta = sample(beta)
            assert theta.sum().item() == pytest.approx(1)
            (found,) = torch.autograd.grad(theta[0], beta)
            first = theta[0].detach()
            assert found[0].item() == pytest.approx(float(-first * first.log() / 2.5), rel=1e-3)


def test_the_mean_pathwise_gradient_is_that_of_the_mean() -> None:
    """E[theta] = beta / sum(beta), so the mean gradient of v . theta is the gradient of v . beta / sum(beta)."""
    beta = torch.tensor([0.7, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    values = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gradients = []
        for _ in range(3000):
            gradients.append(torch.autograd.grad(values @ sample(beta), beta)[0])
    drawn = torch.stack(gradients)
    (wanted,) = torch.autograd.grad(values @ (beta / beta.sum()), beta)
    error = drawn.std(0) / len(drawn) ** 0.5
    assert ((drawn.mean(0) - wanted).abs() < 4 * error).all()
    assert (error < 0.1 * wanted.abs().max()).all()


def test_the_gradient_reaches_square_functions_too() -> None:
    """E[theta_0^2] of Beta(a, b) is a (a + 1) / ((a + b) (a + b + 1)); its derivative in a, b against the draws."""
    beta = torch.tensor([1.5, 1.2], dtype=torch.float64, requires_grad=True)
    whole = beta.sum()
    (wanted,) = torch.autograd.grad(beta[0] * (beta[0] + 1) / (whole * (whole + 1)), beta)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        drawn = torch.stack([torch.autograd.grad(sample(beta)[0].square(), beta)[0] for _ in range(3000)])
    assert ((drawn.mean(0) - wanted).abs() < 4 * drawn.std(0) / len(drawn) ** 0.5).all()


def test_the_divergence_is_torch_s_and_zero_at_the_anchor() -> None:
    for beta in (torch.tensor([0.2, 1.0, 3.0, 0.9]), torch.tensor([1.5, 1.5]), torch.full((9,), 0.05)):
        beta = beta.double().requires_grad_()
        wanted = kl_divergence(Dirichlet(beta), Dirichlet(torch.ones_like(beta)))
        assert flat_divergence(beta).item() == pytest.approx(wanted.item(), rel=1e-6)
        one, other = (torch.autograd.grad(value, beta)[0] for value in (flat_divergence(beta), wanted))
        assert torch.allclose(one, other)
    two = torch.tensor([2.0, 3.0], dtype=torch.float64)
    flat = torch.ones((), dtype=torch.float64)
    assert flat_divergence(two).item() == pytest.approx(kl_divergence(Beta(*two), Beta(flat, flat)).item())
    assert flat_divergence(torch.ones(5)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", ["kl", "l2"])
def test_the_regulariser_pulls_towards_the_flat_distribution(kind: str) -> None:
    strategy = started(regulariser=kind, regulariser_scale=0.01)
    with torch.no_grad():
        for vector in strategy.alphas:
            vector.copy_(torch.tensor([1.0, -1.0, 0.0, 2.0, -0.5]))
    vector = next(iter(strategy.alphas))
    value = strategy.regularisation()
    value.backward()
    assert vector.grad is not None
    if kind == "kl":
        beta = functional.elu(vector.detach()) + 1
        wanted = kl_divergence(Dirichlet(beta), Dirichlet(torch.ones(5)))
        assert value.item() == pytest.approx(6 * 0.01 * wanted.item(), rel=1e-5)
        assert (vector.grad.sign() == vector.detach().sign())[[0, 1, 3, 4]].all()
    else:
        assert torch.allclose(vector.grad, 0.01 * vector.detach())  # as weight decay of the same size


def test_the_mean_is_what_is_reported_relaxed_and_derived() -> None:
    strategy = started()
    with torch.no_grad():
        for position, vector in enumerate(strategy.alphas):
            vector.copy_(2 * torch.eye(5)[position % 5] - 1)
    mix = strategy.relaxed()
    name, vector = next(iter(strategy.alphas.vectors.items()))
    beta = functional.elu(vector.detach()) + 1
    mean = Dirichlet(beta).mean
    assert torch.allclose(mix.weights[name], mean)
    assert mix.active[name] == tuple(range(5))
    (gradient,) = torch.autograd.grad(mix.weights[name][0], vector)
    assert gradient.abs().max() > 0
    (arch,) = strategy.result()
    assert list(arch.values.values()) == [OPERATIONS[position % 5] for position in range(6)]


def test_the_alphas_step_first_and_every_pass_is_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = started()
    first = {part: next(strategy.data.batches(part, 0, 3)).target for part in ("weights", "alphas")}
    events: list[tuple[str, dict[str, Tensor], Tensor]] = []
    original = strategy.weights.loss

    def loss(batch: Batch, mix: Mix) -> Tensor:
        learns = any(weight.requires_grad for weight in mix.weights.values())
        events.append(
            ("alphas" if learns else "weights", {n: w.detach() for n, w in mix.weights.items()}, batch.target)
        )
        return original(batch, mix)

    monkeypatch.setattr(strategy.weights, "loss", loss)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        progress = strategy.step(0)
    assert [event[0] for event in events] == ["alphas", "weights"] * (len(events) // 2)
    assert torch.equal(events[0][2], first["alphas"])
    assert torch.equal(events[1][2], first["weights"])
    name = next(iter(events[0][1]))
    drawn = torch.stack([event[1][name] for event in events])
    assert len(drawn.unique(dim=0)) == len(events)
    assert torch.allclose(drawn.sum(1), torch.ones(len(events)))
    assert set(progress.metrics) == {"train_loss", "alpha_loss"}
