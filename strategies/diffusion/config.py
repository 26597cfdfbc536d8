"""What can be set of the networks of diffusion; without torch, so that it can be listed at once."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from nas_core.config import Config

Process = Literal["ve", "vp", "cosine"]

Noise = Literal["uniform", "edm", "laplace"]

CLASSES = 4
"""Quantile classes that a sequence can be conditioned on; the last is the best, 0 is none."""

FIRM = 3.0
"""Strength of the guidance by a bound: more than 1, Bayes' rule, so that outcomes do not outweigh it."""


class DenoiserConfig(Config):
    """How large the network is, and how long it learns what the space allows."""

    layers: int = Field(default=2, ge=1, le=16, description="transformer blocks")
    width: int = Field(default=64, ge=8, le=1024, description="size of the embeddings")
    heads: int = Field(default=4, ge=1, le=64, description="attention heads")
    hidden: int = Field(default=128, ge=8, le=4096, description="units of a block's hidden layer")
    steps: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="training steps on random architectures; none: 20 per choice, 200 to 1,500",
    )
    samples: int = Field(default=10_000, ge=1, le=1_000_000, description="random architectures that are learned from")
    batch: int = Field(default=128, ge=1, le=10_000, description="architectures of a step")
    rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False, description="learning rate (AdamW)")

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class GuideConfig(Config):
    """The ensemble that reads architectures of which some choices are undecided, and how it learns."""

    members: int = Field(default=5, ge=1, le=64, description="networks of the ensemble")
    hidden: int = Field(default=64, ge=1, le=4096, description="units of each of two hidden layers")
    steps: int = Field(default=200, ge=1, le=100_000, description="training steps")
    batch: int = Field(default=64, ge=1, le=10_000, description="architectures of a step")
    clean: float = Field(default=0.4, ge=0, le=1, description="share of them that is shown without undecided choices")
    rate: float = Field(default=1e-2, gt=0, allow_inf_nan=False, description="learning rate (AdamW)")
    decay: float = Field(default=1e-2, ge=0, allow_inf_nan=False, description="weight decay")


class NoisyConfig(Config):
    """The predictors that read noisy operation matrices, and how they learn."""

    members: int = Field(default=3, ge=1, le=64, description="networks of the ensemble")
    layers: int = Field(default=4, ge=1, le=32, description="graph convolutions; published: 4")
    hidden: int = Field(default=48, ge=1, le=4096, description="units of a node; published: 144")
    linear: int = Field(default=64, ge=1, le=4096, description="units before the output; published: 128")
    steps: int = Field(default=200, ge=1, le=100_000, description="training steps; published: 10,000")
    batch: int = Field(default=32, ge=1, le=10_000, description="architectures of a step; published: 256")
    rate: float = Field(default=3e-3, gt=0, allow_inf_nan=False, description="learning rate (Adam); published: 1e-3")


class ScoreConfig(Config):
    """The score network of DiffusionNAG, its forward process, and how it is trained."""

    process: Process = Field(
        default="ve", description='how noise grows: "ve" (published), "vp" (variance preserving) or "cosine"'
    )
    noise: Noise = Field(
        default="uniform", description='levels in training: "uniform" in time (published), "edm" or "laplace"'
    )
    parametrisation: Literal["edm", "score"] = Field(
        default="edm", description='what the network gives: "edm", preconditioned, or the "score" itself (published)'
    )
    blocks: int = Field(default=12, ge=1, le=64, description="transformer blocks")
    width: int = Field(default=64, ge=8, le=1024, multiple_of=2, description="size of the embeddings")
    heads: int = Field(default=8, ge=1, le=64, description="attention heads")
    hidden: int = Field(default=128, ge=8, le=4096, description="units of a block's hidden layer")
    head: int = Field(default=256, ge=8, le=16_384, description="units of each of two layers after; published: 1,536")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="in training; published: 0.1")
    steps: int = Field(default=1_500, ge=1, le=1_000_000, description="training steps; published: 250,000")
    batch: int = Field(default=128, ge=1, le=10_000, description="matrices of a step; published: 256")
    rate: float = Field(default=2e-3, gt=0, allow_inf_nan=False, description="learning rate; published: 2e-5")
    warm_up: int = Field(default=50, ge=1, le=1_000_000, description="steps in which it rises; published: 1,000")
    mean: float = Field(default=0.99, ge=0, lt=1, description="decay of the mean of the weights; published: 0.9999")

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self
