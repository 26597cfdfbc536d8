"""Random scores: what every other score is to be held against."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from compressors.compressor import Subject
from compressors.groups.groups import Groups
from compressors.importance.score import Scores
from nas_core.config import Config as BaseConfig
from nas_core.seeds import generator


class Random:
    """Uniform between 0 and 1, from (seed, round, group)."""

    class Config(BaseConfig):
        """Nothing to set."""

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Config) -> None:
        pass

    def __call__(self, network: nn.Module, groups: Groups, subject: Subject, round: int) -> Scores:
        return {
            group.name: generator(subject.seed, round, "random scores", group.name).random(len(group.units))
            for group in groups.groups
        }
