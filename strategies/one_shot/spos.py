"""SPOS: the weights of all architectures, trained by paths that are drawn uniformly.

Guo, Zhang, Mu, Heng, Liu, Wei and Sun, "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV
2020, section 3.1. Nothing is learned about architectures: every batch of "train" goes through the path of one
architecture, drawn choice by choice from what the space allows, and trains its weights alone. The result is the
supernet, on which any strategy searches afterwards (`--then STRATEGY`); the paper's own is evolution, with batch
normalisation recalibrated for each candidate.

The recipe is the published one (section 4 and the published code): SGD with momentum 0.9 and a rate that falls
linearly to 0, no weight decay of biases and normalisations, label smoothing 0.1, gradients as they are, 120 epochs. It
differs in the batch, of 64 images instead of 1,024, which few laptops and small data sets have room for, and with it in
the rate, 0.5 * 64 / 1,024 (the linear scaling rule of Goyal et al., 2017; set both for another batch); in the rate's
steps, which are epochs; and in the paths, which are all that the space allows, not those within a range of
multiply-accumulates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.batch import Data
from nas_core.one_shot import Compute, Progress
from nas_core.seeds import generator
from nas_core.strategy import Setting
from search_spaces.supernet.supernet import Supernet, relaxable
from strategies.one_shot.weights import SharedWeights, WeightsConfig, mean


class Spos:
    """Uniform path training (`nas_core.one_shot.OneShot`); its result is the supernet.

    Raises UsageError for a space that is not relaxable. Constraints are a matter of the search on the supernet.
    """

    one_path: ClassVar[bool] = True  # what a pass needs of memory

    class Config(WeightsConfig):
        """The published recipe, at batches of 64."""

        when_absent: ClassVar[Mapping[str, Any]] = {"schedule": "cosine", "label_smoothing": 0.0, "decay_all": True}

        epochs: int = Field(default=120, ge=1, le=100_000, description="of the supernet's training")
        lr: float = Field(default=0.03125, gt=0, le=10, description="of the weights, at the start of the schedule")
        lr_end: float = Field(default=0.0, ge=0, le=10, description="of the weights, at the end")
        schedule: Literal["cosine", "linear"] = Field(
            default="linear", description="how the rate falls, epoch by epoch"
        )
        weight_decay: float = Field(default=4e-5, ge=0, le=1)
        decay_all: bool = Field(default=False, description="false: no weight decay of biases and normalisations")
        label_smoothing: float = Field(default=0.1, ge=0, lt=1)
        grad_clip: float | None = Field(
            default=None, gt=0, description="largest norm of the weights' gradient; null: any"
        )

        @property
        def halves(self) -> bool:
            return False

    supernet: Supernet

    def __init__(self, setting: Setting, config: Config) -> None:
        relaxable(setting.space)
        self.setting, self.config = setting, config

    def start(self, make: Callable[[], nn.Module], data: Data, compute: Compute) -> None:
        supernet = make()
        assert isinstance(supernet, Supernet)
        self.data = data
        self.weights = SharedWeights(supernet, data, self.config, compute)
        self.supernet = self.weights.supernet

    def paths(self, epoch: int) -> Iterator[Architecture]:
        """The architectures of an epoch's batches, without end."""
        rng = generator(self.setting.seed, epoch, "paths")
        while True:
            yield moves.sample(self.setting.space, rng)

    def step(self, epoch: int) -> Progress:
        self.weights.begin(epoch)
        total, count = torch.zeros((), device=self.weights.device), 0
        batches = self.data.batches("train", epoch, self.setting.seed)
        for batch, arch in zip(batches, self.paths(epoch), strict=False):
            total += self.weights.step(batch, self.supernet.mix_of(arch))
            count += 1
        metrics = {"train_loss": mean(total, count, "training loss")}
        return Progress(metrics, {}, None, epoch + 1 >= self.config.epochs)

    def result(self) -> Sequence[Architecture]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.weights.load_state_dict(state["weights"])
