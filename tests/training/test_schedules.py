"""Schedules that a recipe can name: cycles, steps, and what a fit does with them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import CyclicLR

from nas_core.errors import UsageError
from nas_core.task import Task
from training.recipe import CYCLIC, Recipe, learning_rate, recipe

PHOTOS = Task(kind="image-classification", input_shape=(3, 32, 32), outputs=10)


def cycles(schedule: str = "triangular", **changes: Any) -> Recipe:
    """Smith's example: base .001, max .006; with 500 steps per epoch the stepsize is 2,000."""
    gamma = {"gamma": 0.9998} if schedule == "exp_range" else {}
    values = {"epochs": 24, "lr": 0.006, "lr_base": 0.001, "schedule": schedule, **gamma}
    return Recipe.model_validate({**values, **changes})


def test_triangular_is_that_of_the_paper() -> None:
    rates = [learning_rate(cycles(), step, 500) for step in range(0, 6000, 1000)]
    assert rates == pytest.approx([0.001, 0.0035, 0.006, 0.0035, 0.001, 0.0035])
    halved = [learning_rate(cycles("triangular2"), step, 500) for step in (2000, 6000, 10_000)]
    assert halved == pytest.approx([0.006, 0.0035, 0.00225])
    fading = learning_rate(cycles("exp_range"), 6000, 500)
    assert fading == pytest.approx(0.001 + 0.005 * 0.9998**6000)


@pytest.mark.parametrize("schedule", CYCLIC)
def test_cycles_are_torch_s(schedule: str) -> None:
    chosen = cycles(schedule)
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.001)
    theirs = CyclicLR(
        optimizer, 0.001, 0.006, step_size_up=2000, mode=schedule, gamma=chosen.gamma or 1.0, cycle_momentum=False
    )
    for step in range(10_000):
        assert learning_rate(chosen, step, 500) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=1e-15)
        optimizer.step()
        theirs.step()


@given(
    schedule=st.sampled_from(CYCLIC),
    half=st.integers(1, 10),
    count=st.integers(1, 2000),
    steps=st.integers(1, 500),
    data=st.data(),
)
def test_a_cycle_stays_between_its_rates_and_ends_low(
    schedule: str, half: int, count: int, steps: int, data: st.DataObject
) -> None:
    chosen = cycles(schedule, epochs=2 * half * count, cycle_epochs=half)
    total = chosen.epochs * steps
    step = data.draw(st.integers(0, total - 1))
    assert 0.001 <= learning_rate(chosen, step, steps) <= 0.006 * (1 + 1e-12)
    assert learning_rate(chosen, 0, steps) == learning_rate(chosen, total, steps) == 0.001


def test_the_base_is_a_quarter_where_none_is_given() -> None:
    assert learning_rate(Recipe(epochs=8, lr=0.2, schedule="triangular"), 0) == pytest.approx(0.05)
    assert learning_rate(Recipe(epochs=8, lr=0.2, schedule="triangular"), 40, 10) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 10}, r"10 epochs are no whole number of cycles .* = 8 epochs, .* take epochs 8 or 16"),
        ({"epochs": 4}, "take epochs 8, or another cycle_epochs"),
        ({"epochs": 12, "cycle_epochs": 5}, "2 x cycle_epochs = 10 epochs"),
        ({"lr_base": 0.006}, "lr_base 0.006 is not below lr 0.006"),
        ({"warmup_epochs": 1}, "warmup_epochs must be 0 with triangular"),
        ({"lr_end": 0.001}, "lr_end must be 0 with triangular"),
        ({"schedule": "exp_range"}, "exp_range needs gamma"),
        ({"gamma": 0.9}, "gamma is for schedule exp_range, not for triangular"),
        ({"milestones": [[3, 0.1]]}, "milestones is for schedule step, not for triangular"),
        ({"schedule": "cosine"}, "lr_base is for schedule triangular or triangular2 or exp_range, not for cosine"),
        ({"schedule": "step", "lr_base": None}, "needs milestones, for example"),
        ({"cycle_epochs": 0}, "greater than or equal to 1"),
        ({"schedule": "triangle"}, "'triangular'"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    values = {"epochs": 24, "lr": 0.006, "lr_base": 0.001, "schedule": "triangular", "warmup_epochs": 0, **changes}
    with pytest.raises(UsageError, match=message):
        recipe("quick", PHOTOS, **values)


@pytest.mark.parametrize(
    ("milestones", "message"),
    [
        ([[3, 0.1], [2, 0.01]], r"must rise from 0 or more, not \[3, 2\]"),
        ([[-1, 0.1]], "must rise from 0"),
        ([[8, 0.1]], "milestone 8 is never reached in 8 epochs"),
        ([[3, 0.0]], "factor 0 of milestones"),
        ([[3, 2.0]], "factor 2 of milestones"),
        ([[3]], "milestones.0"),
    ],
)
def test_milestones_are_checked(milestones: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recipe("quick", PHOTOS, schedule="step", milestones=milestones)


def test_ae_cnn_trains_as_its_authors_did() -> None:
    chosen = recipe("ae-cnn", PHOTOS)
    rates = [learning_rate(chosen, epoch) for epoch in range(350)]
    assert rates == pytest.approx([0.01] + [0.1] * 148 + [0.01] * 100 + [0.001] * 101)
    assert learning_rate(chosen, 148 * 391, 391) == pytest.approx(0.1)
    assert (chosen.optimizer, chosen.momentum, chosen.weight_decay, chosen.batch_size) == ("sgd", 0.9, 5e-4, 128)
    assert (chosen.augment.crop, chosen.augment.flip, chosen.nesterov) == (4, True, False)
    with pytest.raises(UsageError, match="milestone 249 is never reached in 20 epochs"):
        recipe("ae-cnn", PHOTOS, epochs=20)


def test_a_recipe_without_cycles_is_stored_as_ever() -> None:
    """A study's stored recipe is compared with that of the same command given again."""
    before = {
        "epochs", "optimizer", "lr", "lr_end", "momentum", "nesterov", "weight_decay", "schedule", "warmup_epochs",
        "batch_size", "grad_clip", "augment", "precision",
    }  # fmt: skip
    assert recipe("standard", PHOTOS).model_dump(mode="json").keys() == before


@pytest.mark.parametrize("chosen", [cycles(), cycles("exp_range", cycle_epochs=2), recipe("ae-cnn", PHOTOS)])
def test_stored_and_read_it_is_the_same(chosen: Recipe) -> None:
    stored = chosen.model_dump(mode="json")
    assert Recipe(**json.loads(json.dumps(stored))) == chosen
    assert json.loads(json.dumps(stored)) == stored


def test_steps_are_epochs_for_the_other_schedules() -> None:
    for chosen in (Recipe(epochs=6, warmup_epochs=2), Recipe(epochs=6, schedule="constant")):
        rates = [learning_rate(chosen, epoch) for epoch in range(6)]
        assert [learning_rate(chosen, step, 7) for step in range(42)] == [rate for rate in rates for _ in range(7)]
