"""GDAS: the sampler, what gets a gradient, the schedule, and the order of the steps."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from nas_core.batch import Batch
from nas_core.errors import TrialError, UsageError
from nas_core.evaluation import Constraint, Objective
from nas_core.one_shot import Compute
from nas_core.relax import Mix
from nas_core.strategy import Setting
from search_spaces.nasbench201.space import EDGES, OPERATIONS, NasBench201, Size
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.gdas import Gdas, draw, hard_mix
from training.data import load
from training.data.loading import Loading
from training.data.split import Split

SPACE = NasBench201()
NONE, SKIP = OPERATIONS.index("none"), OPERATIONS.index("skip_connect")
DATA = load("digits", Split(limit=160))


def make() -> Supernet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Supernet(SPACE, DATA.task, Size(channels=2, cells=1))


def started(**config: Any) -> Gdas:
    strategy = Gdas(Setting(SPACE, 3, (Objective("accuracy", "max"),)), Gdas.Config(**{"epochs": 2, **config}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        strategy.start(make, DATA.bind("cpu", Loading(batch_size=32)), Compute())
    return strategy


def test_the_sampler_follows_softmax_and_its_value_is_one_hot() -> None:
    """The Gumbel maximum has the frequencies of softmax(alpha), at any temperature."""
    alpha = torch.tensor([0.0, 1.0, -1.0], requires_grad=True)
    counts: Counter[int] = Counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for turn in range(4000):
            hard, drawn = draw({"g": alpha}, tau=(10.0, 0.1)[turn % 2])
            counts[drawn["g"]] += 1
            onehot = torch.eye(3)[drawn["g"]]
            assert torch.allclose(hard["g"].detach(), onehot, atol=1e-6)
            assert hard["g"].detach()[onehot == 0].eq(0).all()
    expected = alpha.detach().softmax(0) * 4000
    deviation = (expected * (1 - expected / 4000)).sqrt()
    seen = torch.tensor([float(counts[index]) for index in range(3)])
    assert ((seen - expected).abs() < 4 * deviation).all()


def test_the_gradient_is_that_of_the_soft_sample() -> None:
    """The derivative of sum(v h) is that of sum(v p) with the same noise."""
    alpha, values, tau = (
        torch.tensor([0.3, -0.2, 0.9, 0.0], requires_grad=True),
        torch.tensor([1.0, 5.0, -2.0, 3.0]),
        0.7,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        hard, _ = draw({"g": alpha}, tau)
        torch.manual_seed(5)
        noise = -torch.log(torch.empty(4).exponential_())
    soft = ((torch.log_softmax(alpha, 0) + noise) / tau).softmax(0)
    (found,) = torch.autograd.grad((values * hard["g"]).sum(), alpha)
    (wanted,) = torch.autograd.grad((values * soft).sum(), alpha)
    assert torch.allclose(found, wanted)
    assert found.abs().min() > 1e-3


def test_infinite_noise_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def exponential(tensor: Tensor) -> Tensor:
        calls.append(None)
        return tensor.fill_(0.0) if len(calls) == 1 else tensor.fill_(1.0)  # -log 0 is infinite

    monkeypatch.setattr(torch.Tensor, "exponential_", exponential)
    hard, drawn = draw({"g": torch.tensor([0.0, 2.0])}, 1.0)
    assert len(calls) == 2
    assert drawn == {"g": 1}
    assert torch.isfinite(hard["g"]).all()


def test_logits_that_are_not_finite_end_the_search() -> None:
    with pytest.raises(TrialError, match=r"nan-loss.*not finite"):
        draw({"g": torch.tensor([float("nan"), 0.0])}, 1.0)


def test_only_the_drawn_run_and_the_others_enter_as_scalars() -> None:
    mix = hard_mix({"g": torch.tensor([0.0, 1.0, 0.0]), "h": torch.tensor([1.0, 0.0])}, {"g": 1, "h": 0})
    assert mix.active == {"g": (1,), "h": (0,)}
    assert mix.scalars == {"g": (0, 2), "h": (1,)}


def test_every_entry_gets_the_published_gradient() -> None:
    """As published: an edge adds h[i] o_i(x) + sum of the other h[j]; the entries of candidates that are not run have
    the gradient of the sum over the map they are added to, also where none was drawn."""
    supernet = make().double()
    batch = next(DATA.bind("cpu", Loading(batch_size=8)).batches("train", 0, 0))
    # No convolution reads node 1, whose value is zero: differences across the kink of its ReLU would mean nothing.
    drawn = dict(zip(EDGES, (NONE, 3, 4, 2, SKIP, SKIP), strict=True))
    hard = {name: torch.eye(5, dtype=torch.float64)[index].requires_grad_() for name, index in drawn.items()}
    output = supernet([batch.inputs[0].double()], hard_mix(hard, drawn))
    loss = torch.nn.functional.cross_entropy(output, batch.target)
    found = torch.autograd.grad(loss, list(hard.values()))
    for name, gradient in zip(hard, found, strict=True):
        others = [float(gradient[index]) for index in range(5) if index != drawn[name]]
        assert max(others) == min(others) != 0, name
    step = 1e-5
    for name, gradient in zip(hard, found, strict=True):
        for position in {0, drawn[name], 4}:
            sides = []
            for sign in (1, -1):
                moved = {**hard, name: hard[name].detach().clone()}
                moved[name][position] += sign * step
                with torch.no_grad():
                    moved_output = supernet([batch.inputs[0].double()], hard_mix(moved, drawn))
                sides.append(float(torch.nn.functional.cross_entropy(moved_output, batch.target)))
            slope = (sides[0] - sides[1]) / (2 * step)
            wanted = 0.0 if position == drawn[name] == NONE else slope  # none adds nothing, times anything
            assert float(gradient[position]) == pytest.approx(wanted, rel=1e-3, abs=1e-7), (name, position)


def test_the_scalars_do_not_change_the_output() -> None:
    supernet = make().eval()
    batch = next(DATA.bind("cpu", Loading(batch_size=8)).batches("train", 0, 0))
    alphas = {name: torch.zeros(5) for name in EDGES}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for seed in range(5):
            torch.manual_seed(seed)
            hard, drawn = draw(alphas, 0.5)
            mixed = supernet(batch.inputs, hard_mix(hard, drawn))
            alone = supernet(batch.inputs, Mix({name: (index,) for name, index in drawn.items()}))
            assert torch.allclose(mixed, alone, atol=1e-5)


def test_the_temperature_falls_linearly_over_the_epochs() -> None:
    strategy = started(epochs=5)
    assert [strategy.temperature(epoch) for epoch in range(5)] == pytest.approx([10.0, 7.525, 5.05, 2.575, 0.1])
    assert started(epochs=1).temperature(0) == 10.0


def test_the_defaults_are_those_of_the_benchmark() -> None:
    config = Gdas.Config()
    assert (config.epochs, config.lr, config.lr_end, config.weight_decay, config.nesterov) == (
        250,
        0.025,
        0.001,
        5e-4,
        True,
    )
    assert (config.alpha_lr, config.alpha_beta1, config.alpha_beta2, config.alpha_weight_decay) == (
        3e-4,
        0.5,
        0.999,
        1e-3,
    )
    assert (config.tau, config.tau_end) == (10.0, 0.1)


def test_weights_step_first_then_the_alphas_with_draws_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = started()
    data = strategy.data
    first = {part: next(data.batches(part, 0, 3)).target for part in ("weights", "alphas")}
    events: list[tuple[str, Mix, Tensor]] = []
    original = strategy.weights.loss

    def loss(batch: Batch, mix: Mix) -> Tensor:
        events.append(("alphas" if mix.weights else "weights", mix, batch.target))
        return original(batch, mix)

    monkeypatch.setattr(strategy.weights, "loss", loss)
    before = {name: vector.detach().clone() for name, vector in strategy.alphas.vectors.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        strategy.step(0)
    assert [event[0] for event in events] == ["weights", "alphas"] * (len(events) // 2)
    assert torch.equal(events[0][2], first["weights"])
    assert torch.equal(events[1][2], first["alphas"])
    assert any(one[1].active != other[1].active for one, other in zip(events[::2], events[1::2], strict=True))
    assert all(not torch.equal(before[name], vector) for name, vector in strategy.alphas.vectors.items())


def test_the_result_is_the_strongest_by_softmax() -> None:
    strategy = started()
    with torch.no_grad():
        for position, vector in enumerate(strategy.alphas):
            vector.copy_(torch.eye(5)[position % 5])
    (arch,) = strategy.result()
    assert list(arch.values.values()) == [OPERATIONS[position % 5] for position in range(6)]


def test_constraints_are_refused() -> None:
    setting = Setting(SPACE, 0, (Objective("accuracy", "max"),), (Constraint("params", "<=", 1e5),))
    with pytest.raises(UsageError, match="'gdas' does not know constraints"):
        Gdas(setting, Gdas.Config())
