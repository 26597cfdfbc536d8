"""What convolutional blocks are made of, and the network that strings blocks together."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class ConvNorm(nn.Sequential):
    """Convolution without bias, padded to keep the resolution, and batch normalisation: `(n, inputs, h, w)` to
    `(n, outputs, ceil(h / stride), ceil(w / stride))`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        )


class ConvNormReLU(ConvNorm):
    """Convolution without bias, padded to keep the resolution, batch normalisation, ReLU: `(n, inputs, h, w)` to
    `(n, outputs, ceil(h / stride), ceil(w / stride))`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups)
        self.append(nn.ReLU(inplace=True))


class SqueezeExcite(nn.Module):
    """Channels weighted by a gate computed from their means (Hu et al., CVPR 2018, equations 2-4).

    `(n, width, h, w)` to the same shape; `squeezed` is the width of the gate's hidden layer.
    """

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)  # (n, width, 1, 1)
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(mean))))


class BlockNetwork(nn.Module):
    """Stem, blocks, mean over the image, linear classifier: `(n, channels, h, w)` to `(n, outputs)`.

    Convolutions start normal with variance 2 / (kernel^2 outputs) (He et al., ICCV 2015), the classifier
    normal with standard deviation 0.01.
    """

    def __init__(self, stem: nn.Module, blocks: Iterable[nn.Module], width: int, outputs: int) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width, outputs)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                area = module.kernel_size[0] * module.kernel_size[1]
                nn.init.normal_(module.weight, std=(2 / (area * module.out_channels)) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))  # (n, width, h', w')
        return self.classifier(x.mean((2, 3)))
