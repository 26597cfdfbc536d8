"""A small network whose units and groups were written down by hand, and data for it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from compressors.compressor import Subject
from compressors.groups.groups import Fixed, Group, Groups, Slice, Unit
from compressors.target import parse_targets
from nas_core.batch import Batch
from tests.small_data import Images as Noisy

CPU = torch.device("cpu")
SIDE = 4  # of its images, in pixels


class Images(Noisy):
    """In an order of the seed; how often it was asked for is counted."""

    def __init__(self) -> None:
        super().__init__(side=SIDE)
        self.passes = 0

    def order(self, seed: int) -> Tensor:
        return torch.randperm(self.samples, generator=torch.Generator().manual_seed(seed))

    def batches(self, part: str, epoch: int, seed: int) -> Iterator[Batch]:
        self.passes += 1
        return super().batches(part, epoch, seed)


class Net(nn.Module):
    """conv1, bn1, ReLU, conv2 (with a bias), ReLU, flatten, linear: 6 and 4 channels that can go."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
            self.conv2, self.head = nn.Conv2d(6, 4, 3, padding=1), nn.Linear(4 * SIDE * SIDE, 2)
            for one in (self.bn1.weight, self.bn1.bias, self.bn1.running_mean, self.bn1.running_var):
                nn.init.uniform_(one, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        out: Tensor = self.head(x.flatten(1))
        return out


def groups() -> Groups:
    first = [
        Unit(
            (Slice("conv1.weight", 0, (one,)), Slice("bn1.weight", 0, (one,)), Slice("bn1.bias", 0, (one,))),
            (
                Slice("conv2.weight", 1, (one,)),
                Slice("bn1.running_mean", 0, (one,)),
                Slice("bn1.running_var", 0, (one,)),
            ),
        )
        for one in range(6)
    ]
    area = SIDE * SIDE
    second = [
        Unit(
            (Slice("conv2.weight", 0, (one,)), Slice("conv2.bias", 0, (one,))),
            (Slice("head.weight", 1, tuple(range(one * area, (one + 1) * area))),),
        )
        for one in range(4)
    ]
    fixed = Fixed("head", 2, "output", "", "it is the answer of the network")
    return Groups((Group("conv1", tuple(first), True), Group("conv2", tuple(second), True)), (fixed,), 0.0)


def subject(*targets: str, seed: int = 0, **others: object) -> Subject:
    data = Images()
    inputs = next(iter(data.batches("train", 0, 0))).inputs
    data.passes = 0
    return Subject(data.task, data, CPU, seed, inputs=inputs, targets=parse_targets(targets), **others)  # type: ignore[arg-type]
