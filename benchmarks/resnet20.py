"""ResNet-20 for 32 x 32 images (He, Zhang, Ren and Sun, CVPR 2016, section 4.2), with projections where maps shrink."""

from __future__ import annotations

from torch import Tensor, nn

from nas_core.task import Task


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut: the identity, or a strided 1 x 1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.shortcut(x))


def resnet20(task: Task) -> nn.Module:
    """`[n, 3, 32, 32]` to `[n, outputs]`: 3 blocks each of 16, 32 and 64 channels."""
    channels, _, _ = task.images()
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    width = 16
    for outputs in (16, 32, 64):
        for number in range(3):
            layers.append(Block(width, outputs, 2 if number == 0 and outputs != 16 else 1))
            width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, task.outputs))
