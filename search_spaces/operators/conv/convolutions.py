"""What separable and dilated convolutions of DARTS share."""

from __future__ import annotations

from torch import Tensor, nn

from nas_core.relax import Style
from search_spaces.layers.drop_path import DropPath
from search_spaces.layers.features import Features
from search_spaces.operators.conv.operation import Normalised, rectified


class Convolutions(Normalised):
    """`repeats` times ReLU, depthwise convolution, 1x1 convolution, normalisation; the stride is in the first."""

    def __init__(
        self,
        channels: int,
        kernel: int,
        stride: int,
        dilation: int,
        repeats: int,
        style: Style,
        drop_path: DropPath | None,
    ) -> None:
        super().__init__(stride, drop_path=drop_path)
        padding, affine = dilation * (kernel // 2), style == Style.STANDALONE
        layers: list[nn.Module] = []
        for number in range(repeats):
            layers += [nn.BatchNorm2d(channels, affine=affine), nn.ReLU(inplace=True)] if number else []
            step = 1 if number else stride
            layers += [
                nn.Conv2d(channels, channels, kernel, step, padding, dilation, groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1, bias=False),
            ]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def response(self, node: Features) -> Tensor:
        response: Tensor = self.layers(rectified(node))
        return response
