"""Stems: how many pixels the first layers of a convolutional network leave to the others."""

from __future__ import annotations

from typing import Literal, TypeVar

from nas_core.config import SizeConfig
from nas_core.task import Task

Stem = Literal["auto", "cifar", "imagenet"]
AUTO, CIFAR, IMAGENET = "auto", "cifar", "imagenet"
PHOTOGRAPH = 128
"""Pixels of the shorter side, from which on images are photographs."""

S = TypeVar("S", bound=SizeConfig)


def stem_for(task: Task) -> str:
    """The stem of images of this size: "cifar" keeps the resolution, "imagenet" reduces it."""
    return IMAGENET if len(task.input_shape) == 3 and min(task.input_shape[1:]) >= PHOTOGRAPH else CIFAR


def halved(shape: tuple[int, int]) -> tuple[int, int]:
    """The resolution after a stride of 2."""
    return (shape[0] + 1) // 2, (shape[1] + 1) // 2


def halvings(shape: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """The resolutions after each of `count` convolutions of stride 2."""
    result = []
    for _ in range(count):
        shape = halved(shape)
        result.append(shape)
    return result
