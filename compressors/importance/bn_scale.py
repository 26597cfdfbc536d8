"""Scales of batch normalisations: units that are scaled down matter little.

Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017, section 3. There the
network was trained with an L1 penalty of the scales, which tells them apart (a regime of its own); without it they
differ less.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressors.compressor import Subject
from compressors.groups.groups import Groups
from compressors.importance.score import Members, Scores, as_scores
from nas_core.config import Config as BaseConfig
from nas_core.errors import UsageError


class BnScale:
    """abs(gamma) of the batch normalisations that make a unit, the sum where there are several. Groups without one get
    no score, so that they stay as they are; nor do those whose layer gives the normalisation its scale, which then is
    that layer's (`search_spaces.layers.affine.ConditionalBatchNorm2d`)."""

    class Config(BaseConfig):
        """Nothing to set."""

    needs: ClassVar[tuple[str, ...]] = ("batch-norm",)

    def __init__(self, config: Config) -> None:
        pass

    def __call__(self, network: nn.Module, groups: Groups, subject: Subject, round: int) -> Scores:
        """Raises UsageError where no group has a batch normalisation with a scale."""
        scales = {id(module.weight) for module in network.modules() if isinstance(module, _BatchNorm) and module.affine}
        elements = {name: one.detach().abs() for name, one in network.named_parameters() if id(one) in scales}
        members = Members(network, groups)
        normalised = {
            group.name
            for group in groups.groups
            if any(one.tensor in elements for unit in group.units for one in unit.produced)
        }
        if not normalised:
            raise UsageError(
                "bn-scale: nothing that could be removed has a batch normalisation with a scale; take another method, "
                "such as magnitude"
            )
        sums = members.sums(elements)
        return as_scores({name: value.sum(0) for name, value in sums.items() if name in normalised})
