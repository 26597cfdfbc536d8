"""Recipes: how a network is trained, as typed configuration, with three named ones per kind of task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from nas_core.config import Config, validate
from nas_core.errors import UsageError, unknown
from nas_core.task import IMAGE_CLASSIFICATION, NODE_CLASSIFICATION, Task
from training.data.augment import PLAIN, Augment


class Recipe(Config):
    """One training: optimiser, schedule, batches, augmentation, number format."""

    epochs: int = Field(ge=1, le=100_000, description="length of the full training, and horizon of the schedule")
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(default=0.1, gt=0, le=10, description="highest learning rate")
    lr_end: float = Field(default=0.0, ge=0, le=10, description="learning rate at which the cosine ends")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd; beta 1 of adam and adamw")
    nesterov: bool = Field(default=False, description="Nesterov momentum, sgd only")
    weight_decay: float = Field(default=5e-4, ge=0, le=1, description="L2 for sgd and adam, decoupled for adamw")
    schedule: Literal["cosine", "constant"] = Field(default="cosine", description="stepped once per epoch")
    warmup_epochs: int = Field(default=0, ge=0, description="epochs of linear rise to lr before the schedule")
    batch_size: int = Field(default=64, ge=1, le=65_536, description="of images; a graph is always one batch")
    grad_clip: float | None = Field(default=None, gt=0, description="largest norm of all gradients together")
    augment: Augment = Field(default=PLAIN, description="of training images")
    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto", description="auto: bf16 autocast where the processor is faster with it"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs optimizer sgd and a momentum above 0")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} leaves none of {self.epochs} epochs to train")
        if self.lr_end > self.lr:
            raise ValueError(f"lr_end {self.lr_end:g} is above lr {self.lr:g}")
        return self


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The learning rate of `epoch` (from 0), constant within it, as NAS-Bench-201 trains.

    Warm-up over w epochs: lr (epoch + 1) / (w + 1). Cosine (Loshchilov and Hutter, ICLR 2017, equation 5) over the
    remaining T epochs: lr_end + (lr - lr_end) (1 + cos(pi (epoch - w) / T)) / 2.
    """
    warmup = recipe.warmup_epochs
    if epoch < warmup:
        return recipe.lr * (epoch + 1) / (warmup + 1)
    if recipe.schedule == "constant":
        return recipe.lr
    done = (epoch - warmup) / (recipe.epochs - warmup)
    return recipe.lr_end + (recipe.lr - recipe.lr_end) * (1 + math.cos(math.pi * done)) / 2


_NASBENCH201 = {"optimizer": "sgd", "nesterov": True, "weight_decay": 5e-4, "schedule": "cosine"}
_GRAPH = {"optimizer": "adam", "lr": 0.005, "schedule": "cosine"}

RECIPES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    IMAGE_CLASSIFICATION: {
        "quick": {**_NASBENCH201, "epochs": 8, "lr": 0.05, "batch_size": 64},
        "standard": {**_NASBENCH201, "epochs": 40, "lr": 0.1, "batch_size": 128, "warmup_epochs": 1},
        # NAS-Bench-201, table 2: 200 epochs, batch 256, random flip, 4 pixels of padding and crop.
        "paper": {**_NASBENCH201, "epochs": 200, "lr": 0.1, "batch_size": 256, "augment": {"flip": True, "crop": 4}},
    },
    NODE_CLASSIFICATION: {
        "quick": {**_GRAPH, "epochs": 40, "weight_decay": 5e-4},
        "standard": {**_GRAPH, "epochs": 200, "weight_decay": 5e-3},
        # NAS-Bench-Graph on Cora: SGD, lr 0.1, weight decay 5e-4, 400 epochs; momentum and cosine are GraphGym's.
        "paper": {"epochs": 400, "optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    },
}


def recipe(name: str, task: Task, **changes: Any) -> Recipe:
    """The named recipe for a task, with some fields changed (`augment` may be changed in part).

    "standard" augments images by what suits them: padding of an eighth of the height, and a flip where they have
    colours (mirrored digits are other characters). Raises UsageError for an unknown name, field or kind of task.
    """
    if task.kind not in RECIPES:
        raise unknown("kind of task with recipes", task.kind, RECIPES)
    named = RECIPES[task.kind]
    if name not in named:
        raise unknown("recipe", name, named)
    values = dict(named[name])
    if task.kind == IMAGE_CLASSIFICATION and name == "standard":
        channels, height, _ = task.input_shape
        values["augment"] = {"crop": height // 8, "flip": channels == 3}
    if isinstance(changes.get("augment"), Mapping):
        changes["augment"] = {**values.get("augment", {}), **changes["augment"]}
    made = validate(Recipe, {**values, **changes}, "recipe")
    if task.kind != IMAGE_CLASSIFICATION and made.augment.active:
        raise UsageError(f"recipe: augment is for images; the task is {task.kind}")
    return made
