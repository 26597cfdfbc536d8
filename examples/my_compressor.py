"""A compression method of one's own: cut channels between two convolutions of a network of one's own (`my_net.py`)."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import nn

from compressors.compressor import Change, Round, Subject
from nas_core.config import Config
from nas_core.errors import UsageError


class Settings(Config):
    """What `-s keep=0.5` sets."""

    keep: float = Field(default=0.5, gt=0, le=1, description="share of the channels inside each block that stay")
    rounds: int = Field(default=1, ge=1, description="how often they are cut, with a training after each time")


class InnerChannels:
    """Keeps the channels with the largest weights inside of every block `conv1, bn1, relu, conv2`."""

    Config = Settings
    needs = ("linear",)

    def __init__(self, subject: Subject, config: Settings) -> None:
        self.keep, self.rounds = config.keep, (Round(),) * config.rounds

    def compress(self, network: nn.Module, round: int) -> Change:
        blocks: list[Any] = [module for module in network.modules() if hasattr(module, "conv2")]
        if not blocks:
            raise UsageError("the network has no block with conv1, bn1 and conv2; nothing can be cut")
        for block in blocks:
            count = max(1, int(block.conv1.out_channels * self.keep))
            strength = block.conv1.weight.detach().abs().sum((1, 2, 3))
            kept = strength.topk(count).indices.sort().values
            block.conv1.weight = nn.Parameter(block.conv1.weight.detach()[kept])
            block.bn1.weight = nn.Parameter(block.bn1.weight.detach()[kept])
            block.bn1.bias = nn.Parameter(block.bn1.bias.detach()[kept])
            block.bn1.running_mean, block.bn1.running_var = block.bn1.running_mean[kept], block.bn1.running_var[kept]
            block.conv2.weight = nn.Parameter(block.conv2.weight.detach()[:, kept])
            block.conv1.out_channels = block.bn1.num_features = block.conv2.in_channels = count
        return Change()
