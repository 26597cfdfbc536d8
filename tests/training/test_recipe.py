"""Recipes and the learning-rate schedule."""

from __future__ import annotations

import math

import pytest

from nas_core.errors import UsageError
from nas_core.task import Task
from training.data.augment import Augment
from training.recipe import Recipe, learning_rate, recipe

PHOTOS = Task(kind="image-classification", input_shape=(3, 32, 32), outputs=10)
DIGITS = Task(kind="image-classification", input_shape=(1, 8, 8), outputs=10)
GRAPH = Task(kind="node-classification", input_shape=(16,), outputs=3, nodes=20, edges=60)
TASKS = {"image-classification": PHOTOS, "node-classification": GRAPH}


def test_cosine_is_that_of_the_benchmark() -> None:
    # NAS-Bench-201: lr 0.1 to 0 over 200 epochs, stepped per epoch.
    paper = recipe("paper", PHOTOS)
    assert learning_rate(paper, 0) == pytest.approx(0.1)
    assert learning_rate(paper, 50) == pytest.approx(0.1 * (1 + math.sqrt(0.5)) / 2)
    assert learning_rate(paper, 100) == pytest.approx(0.05)
    assert 0 < learning_rate(paper, 199) < 1e-5


def test_cosine_ends_above_lr_end_and_warmup_rises_linearly() -> None:
    darts = Recipe(epochs=54, lr=0.025, lr_end=0.001, warmup_epochs=4)
    assert [learning_rate(darts, epoch) for epoch in range(5)] == pytest.approx([0.005, 0.01, 0.015, 0.02, 0.025])
    assert learning_rate(darts, 29) == pytest.approx(0.013)
    assert learning_rate(darts, 53) == pytest.approx(0.001 + 0.012 * (1 + math.cos(math.pi * 49 / 50)))
    rates = [learning_rate(darts, epoch) for epoch in range(4, 54)]
    assert rates == sorted(rates, reverse=True)


def test_constant_stays() -> None:
    steady = Recipe(epochs=5, lr=0.01, schedule="constant", warmup_epochs=1)
    assert [learning_rate(steady, epoch) for epoch in range(5)] == pytest.approx([0.005, 0.01, 0.01, 0.01, 0.01])


def test_paper_recipe_is_nasbench201_table_2() -> None:
    paper = recipe("paper", PHOTOS)
    assert (paper.epochs, paper.batch_size, paper.lr, paper.weight_decay) == (200, 256, 0.1, 5e-4)
    assert (paper.optimizer, paper.nesterov, paper.momentum, paper.schedule) == ("sgd", True, 0.9, "cosine")
    assert paper.augment == Augment(flip=True, crop=4)


@pytest.mark.parametrize("kind", TASKS)
def test_every_named_recipe_is_valid(kind: str) -> None:
    lengths = [recipe(name, TASKS[kind]).epochs for name in ("quick", "standard", "paper")]
    assert lengths == sorted(lengths)
    assert recipe("quick", TASKS[kind]).precision == "auto"


def test_augmentation_suits_the_images() -> None:
    assert not recipe("quick", DIGITS).augment.active
    assert recipe("standard", DIGITS).augment == Augment(crop=1)
    assert recipe("standard", PHOTOS).augment == Augment(crop=4, flip=True)
    assert recipe("standard", PHOTOS, augment={"cutout": 8}).augment == Augment(crop=4, flip=True, cutout=8)
    assert recipe("standard", PHOTOS, augment={"flip": False}).augment == Augment(crop=4)


def test_recipes_of_papers() -> None:
    def fields(name: str) -> tuple[object, ...]:
        made = recipe(name, PHOTOS)
        rates = (made.lr, made.lr_end, made.warmup_epochs)
        return made.epochs, made.batch_size, *rates, made.weight_decay, made.grad_clip, made.augment.cutout

    assert fields("darts") == (600, 96, 0.025, 0.0, 0, 3e-4, 5.0, 16)
    assert fields("nasnet") == (600, 32, 0.025, 0.0, 0, 5e-4, 5.0, 16)
    assert fields("regnet") == (100, 128, 0.1, 0.0, 5, 5e-5, None, 0)
    assert recipe("nasbench201", PHOTOS) == recipe("paper", PHOTOS)
    assert recipe("darts", PHOTOS).augment == Augment(flip=True, crop=4, cutout=16)
    assert recipe("darts", DIGITS).augment == Augment(crop=1, cutout=4)
    large = Task(kind="image-classification", input_shape=(3, 96, 64), outputs=10)
    assert recipe("nasnet", large).augment == Augment(flip=True, crop=8, cutout=32)


def test_changes_win_and_are_checked() -> None:
    assert recipe("quick", DIGITS, epochs=3, lr=0.2).lr == 0.2
    for changes, message in [
        ({"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"optimizer": "adam"}, "nesterov needs optimizer sgd"),
        ({"warmup_epochs": 8}, "leaves none of 8 epochs"),
        ({"lr_end": 1.0}, "is above lr"),
        ({"augment": {"crob": 1}}, "did you mean 'crop'"),
    ]:
        with pytest.raises(UsageError, match=message):
            recipe("quick", DIGITS, **changes)


def test_unknown_names_and_tasks() -> None:
    with pytest.raises(UsageError, match="unknown recipe 'quik'; did you mean 'quick'"):
        recipe("quik", DIGITS)
    with pytest.raises(UsageError, match="unknown kind of task 'chess'"):
        recipe("quick", Task(kind="chess", input_shape=(8, 8), outputs=3))
    with pytest.raises(UsageError, match="augment is for images"):
        recipe("quick", GRAPH, augment={"flip": True})
