"""The learning-rate range test: the divergence point of a quadratic, its suggestions, and that it leaves no trace."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas_core.batch import Batch
from nas_core.errors import TrialError, UsageError
from nas_core.task import Task
from training.data import load
from training.data.loading import Loading
from training.data.split import Split
from training.fit import Training
from training.range_test import RangeTest, range_test
from training.recipe import Recipe, recipe

CPU = torch.device("cpu")
DESCENT = Recipe(epochs=1, momentum=0, weight_decay=0, batch_size=1, precision="float32")


class Point(nn.Module):
    """A single number, which is the output."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([start]))

    def forward(self, x: Tensor) -> Tensor:
        return self.theta * x


class Quadratic:
    """The loss is curvature * theta^2 / 2; one batch per epoch."""

    task = Task(kind="node-classification", input_shape=(1,), outputs=1)

    def __init__(self, curvature: float) -> None:
        self.curvature = curvature

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        yield Batch((torch.ones(1, 1),), torch.zeros(1))

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return self.curvature * output.square().sum() / 2

    def metrics(self, output: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": self.loss(output, batch), "count": torch.ones(())}


def descend(curvature: float, start: float = 1.0, **options: Any) -> RangeTest:
    training = Training(Point(start), Quadratic(curvature), DESCENT, CPU, 0, None)
    return range_test(training, **options)


@pytest.mark.parametrize("curvature", [0.5, 3.0, 40.0])
@pytest.mark.parametrize("linear", [False, True])
def test_a_quadratic_diverges_at_two_over_its_curvature(curvature: float, linear: bool) -> None:
    # Starts far away, so that the loss does not become zero on the way to the rate that diverges.
    start, steps = (1e12, 200) if not linear else (1.0, 120)
    low, high = (0.01 / curvature, 100 / curvature) if not linear else (0.01 / curvature, 6 / curvature)
    found = descend(curvature, start, low=low, high=high, steps=steps, linear=linear)
    assert found.blew_up
    assert len(found.rates) < steps
    assert found.divergence == pytest.approx(2 / curvature, rel=0.05)


def test_the_curve_is_that_of_plain_gradient_descent_and_its_moving_average() -> None:
    found = descend(3.0, low=0.01, high=0.5, steps=20)
    theta, average = 1.0, 0.0
    for step, (rate, loss, smoothed) in enumerate(zip(found.rates, found.losses, found.smoothed, strict=True)):
        assert rate == pytest.approx(0.01 * 50 ** (step / 19))
        assert loss == pytest.approx(1.5 * theta**2, rel=1e-5)
        average = 0.98 * average + 0.02 * loss
        assert smoothed == pytest.approx(average / (1 - 0.98 ** (step + 1)), rel=1e-9)
        theta -= rate * 3 * theta
    assert not found.blew_up
    assert found.divergence is None
    assert len(found.rates) == 20


def test_it_stops_at_four_times_the_lowest_smoothed_loss() -> None:
    found = descend(1.0, low=0.01, high=100, steps=200, start=1e12)
    lowest = min(found.smoothed)
    assert found.smoothed[-1] > 4 * lowest
    assert all(value <= 4 * min(found.smoothed[: step + 1]) for step, value in enumerate(found.smoothed[:-1]))


def test_a_loss_that_is_not_finite_ends_the_curve() -> None:
    found = descend(1.0, low=0.3, high=1e225, steps=10)  # a step at the second rate is beyond float32
    assert found.blew_up
    assert found.losses == pytest.approx([0.5, 0.245])


def test_suggestions_are_a_third_of_the_lowest_and_a_quarter_of_that() -> None:
    rates = tuple(10.0**power for power in range(-4, 2))
    found = RangeTest(rates, (2.0, 1.9, 1.0, 0.8, 0.9, 9.0), (2.0, 1.9, 1.0, 0.8, 0.9, 9.0), True)
    assert found.lr_max == pytest.approx(0.1 / 3)
    assert found.lr_base == pytest.approx(0.1 / 12)
    assert found.steepest == pytest.approx(0.01)  # from 1.9 to 0.8 around it
    assert found.divergence == 0.1


def test_steepest_descent_is_where_the_smoothed_loss_falls_fastest() -> None:
    rates = tuple(10 ** (-4 + step / 25) for step in range(101))
    smoothed = tuple(2 - 1 / (1 + math.exp(-8 * (math.log10(rate) + 2))) + 0.5 * rate for rate in rates)
    found = RangeTest(rates, smoothed, smoothed, False)
    assert found.steepest == pytest.approx(0.01, rel=0.1)


def count(module: nn.Module, inputs: Any) -> None:
    module.get_buffer("scratch").add_(1)


def training(precision: str = "float32", **changes: Any) -> Training:
    source = load("digits", Split(limit=200))
    chosen = recipe("standard", source.task, batch_size=16, precision=precision, **changes)
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(288, 10)
    )
    model.register_buffer("scratch", torch.zeros(2), persistent=False)
    model.register_forward_pre_hook(count)
    data = source.bind(CPU, Loading(batch_size=chosen.batch_size, augment=chosen.augment, channels_last=True))
    return Training(model, data, chosen, CPU, 5, None)


def state(of: Training) -> tuple[list[tuple[str, Tensor]], Any, list[bool], Any]:
    """Everything of a training that could change, copied."""
    model = of.model
    tensors = [(name, value.detach().clone()) for name, value in (*model.named_parameters(), *model.named_buffers())]
    gradients = [None if value.grad is None else value.grad.clone() for value in model.parameters()]
    modes = [module.training for module in model.modules()]
    return tensors, copy.deepcopy(of.optimizer.state_dict()), modes, gradients


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return bool(torch.equal(one, other)) and one.stride() == other.stride()
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("epochs_before", [0, 2])
def test_everything_is_left_as_it_was(optimizer: str, epochs_before: int) -> None:
    of = training(optimizer=optimizer, nesterov=False, lr=0.001)
    for epoch in range(epochs_before):
        of.epoch(epoch)
    before = state(of)
    torch.manual_seed(8)
    wanted = torch.rand(3)
    torch.manual_seed(8)
    range_test(of, steps=150, low=1e-3)
    assert same(before, state(of))
    assert torch.equal(torch.rand(3), wanted)


def test_a_training_goes_on_as_if_there_had_been_no_test() -> None:
    tested, plain = training(), training()
    assert tested.epoch(0) == plain.epoch(0)
    first = range_test(tested, steps=20, low=1e-3)
    assert range_test(tested, steps=20, low=1e-3) == first
    assert tested.epoch(1) == plain.epoch(1)
    assert same(state(tested), state(plain))


def test_everything_is_left_as_it_was_after_a_failure() -> None:
    of = training()
    before, calls = state(of), []

    def fail(step: int, steps: int, rate: float, loss: float) -> None:
        calls.append((step, steps))
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        range_test(of, listen=fail)
    assert calls == [(step, 300) for step in range(1, 6)]  # ten steps per epoch, but at least 300
    assert same(before, state(of))


def test_on_digits_the_suggestion_trains() -> None:
    """The suggested rate learns, better than a hundredth of it and than ten times it."""
    suggested = range_test(training()).lr_max
    losses = {}
    for factor in (0.01, 1.0, 10.0):
        of = training(lr=suggested * factor, epochs=6, warmup_epochs=0)
        losses[factor] = [of.epoch(epoch)["val_loss"] for epoch in range(6)][-1]
    assert losses[1.0] < 0.7 * min(losses[0.01], losses[10.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.0}, "learning rates from 0 to 10 are no range"),
        ({"low": 1.0, "high": 0.1}, "from 1 to 0.1 are no range"),
        ({"steps": 9}, "9 steps are too few"),
    ],
)
def test_a_range_that_is_none_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        descend(1.0, **options)


def test_a_network_that_does_not_learn_is_told() -> None:
    with pytest.raises(TrialError, match="no-descent: the loss does not fall at learning rates from 100 to"):
        descend(1.0, low=100, high=1000)

    class Flat(Quadratic):
        def loss(self, output: Tensor, batch: Batch) -> Tensor:
            return 1 + 0 * output.sum()

    with pytest.raises(TrialError, match="no-descent: the loss does not fall at learning rates from 1e-05 to 10"):
        range_test(Training(Point(1.0), Flat(1.0), DESCENT, CPU, 0, None))

    class Broken(Quadratic):
        def loss(self, output: Tensor, batch: Batch) -> Tensor:
            return output.sum() * float("nan")

    with pytest.raises(TrialError, match=r"no-descent: the loss does not fall at learning rates from 1e-05$"):
        range_test(Training(Point(1.0), Broken(1.0), DESCENT, CPU, 0, None))
