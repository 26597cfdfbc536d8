"""The trainer of small networks: its steps are Adam's, and a training that goes on ends as one that never stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from training.steps import Plan, Steps, trained

PLANS = {
    "adam": Plan(12, 0.05),
    "warm-up": Plan(12, 0.05, warm_up=4),
    "adamw": Plan(12, 0.05, decay=0.3, betas=(0.8, 0.9)),
    "clipped": Plan(12, 0.05, clip=0.1),
    "mean": Plan(12, 0.05, mean=0.6),
}


def begun(plan: Plan, seed: int = 0) -> tuple[nn.Linear, Steps]:
    torch.manual_seed(seed)
    network = nn.Linear(3, 1)
    return network, Steps(network, loss_of(network), plan)


def loss_of(network: nn.Module) -> Callable[[int], Tensor]:
    """Other rows at every step."""

    def loss(step: int) -> Tensor:
        rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        return (network(rows)[:, 0] - 5 * rows.sum(1)).square().mean()

    return loss


def equal(one: Mapping[str, Any], other: Mapping[str, Any], tolerance: float = 0.0) -> bool:
    return one.keys() == other.keys() and all(numpy.abs(one[name] - other[name]).max() <= tolerance for name in one)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_steps_are_those_of_plain_adam(plan: Plan) -> None:
    _, training = begun(plan)
    training.advance(plan.steps)

    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    loss = loss_of(network)
    state = {name: (torch.zeros_like(one), torch.zeros_like(one)) for name, one in network.named_parameters()}
    mean = {name: one.detach().clone() for name, one in network.named_parameters()}
    first, second = plan.betas
    for step in range(12):
        rate = 0.05 * 0.5 * (1 + math.cos(math.pi * step / 12))
        if plan.warm_up:
            rate *= min(1, (step + 1) / 4)
        gradients = torch.autograd.grad(loss(step), list(network.parameters()))
        norm = torch.cat([one.flatten() for one in gradients]).norm()
        for (name, one), gradient in zip(network.named_parameters(), gradients, strict=True):
            if plan.clip is not None:
                gradient = gradient * min(1.0, 0.1 / (float(norm) + 1e-6))
            moment, square = state[name]
            moment.mul_(first).add_((1 - first) * gradient)
            square.mul_(second).add_((1 - second) * gradient.square())
            with torch.no_grad():
                if plan.decay is not None:
                    one *= 1 - rate * plan.decay
                corrected = (square / (1 - second ** (step + 1))).sqrt() + 1e-8
                one -= rate * moment / (1 - first ** (step + 1)) / corrected
        decay = min(0.6, (1 + step) / (10 + step))
        mean = {name: decay * mean[name] + (1 - decay) * one.detach() for name, one in network.named_parameters()}
    expected = dict(network.named_parameters()) if plan.mean is None else mean
    assert equal(training.weights(), {name: one.detach().numpy() for name, one in expected.items()}, 1e-5)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("step", [0, 5])
def test_a_training_goes_on_bit_for_bit(plan: Plan, step: int) -> None:
    _, through = begun(plan)
    through.advance(12)
    _, first = begun(plan)
    first.advance(step)
    state = first.state_dict()
    first.advance(12)  # what was taken is a copy
    _, again = begun(plan, seed=9)
    again.load_state_dict(state)
    assert again.step == step
    again.advance(12)
    assert equal(again.weights(), through.weights())
    assert again.state_dict().keys() == through.state_dict().keys()


class Killed(dict[str, Mapping[str, Any]]):
    """A cache after so many writes to which the process dies."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.writes = writes

    def __setitem__(self, key: str, value: Mapping[str, Any]) -> None:
        super().__setitem__(key, value)
        self.writes -= 1
        if self.writes == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("writes", [1, 2, 3])
def test_what_was_killed_is_made_from_its_checkpoint(writes: int) -> None:
    made: list[Steps] = []

    def begin() -> Steps:
        made.append(begun(PLANS["mean"])[1])
        return made[-1]

    def finished(training: Steps) -> Mapping[str, Any]:
        return {"parameters": training.weights()}

    through = trained({}, "key", begin, finished, 12, 5)
    cache = Killed(writes)
    with pytest.raises(KeyboardInterrupt):
        trained(cache, "key", begin, finished, 12, 5)
    done = made[-1].step
    assert done == [5, 10, 12][writes - 1]
    again = trained(cache, "key", begin, finished, 12, 5)
    assert equal(again["parameters"], through["parameters"])
    assert len(made) == (3 if writes < 3 else 2)  # what is finished is not begun again
