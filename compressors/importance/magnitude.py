"""Magnitude: units whose weights are small matter little.

Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.1, take the L1 norm of a filter's weights; the
L2 norm is the default here, as elsewhere since. Of a group that several layers make (a residual sum) it is the norm of
all their rows together. Biases, scales and shifts of normalisations do not count where there are weights.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from compressors.compressor import Subject
from compressors.groups.groups import Groups
from compressors.importance.score import Members, Scores, as_scores
from nas_core.config import Config as BaseConfig


class Magnitude:
    """The norm of the weights that make a unit: the sum over them of abs(theta)^norm, to the power 1 / norm."""

    class Config(BaseConfig):
        """Which norm."""

        norm: Literal[1, 2] = Field(default=2, description="1: sum of absolute values, 2: Euclidean")

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Config) -> None:
        self._norm = config.norm

    def __call__(self, network: nn.Module, groups: Groups, subject: Subject, round: int) -> Scores:
        members = Members(network, groups, weights=True)
        elements = {name: one.detach().double().abs() ** self._norm for name, one in network.named_parameters()}
        sums = members.sums(elements)
        return as_scores({name: value.sum(0) ** (1 / self._norm) for name, value in sums.items()})
