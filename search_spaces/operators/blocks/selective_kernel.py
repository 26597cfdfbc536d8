"""The block of SKNet (Li et al., CVPR 2019): receptive fields that the image selects."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.layers.blocks import ConvNorm, ConvNormReLU
from search_spaces.operators.blocks.resnext import inner_width


class Branch(nn.Sequential):
    """3x3 convolution in groups that reads every `dilation`-th pixel, batch normalisation, ReLU."""

    def __init__(self, width: int, stride: int, groups: int, dilation: int) -> None:
        super().__init__(
            nn.Conv2d(width, width, 3, stride, dilation, dilation, groups, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )


class SelectiveKernel(nn.Module):
    """Branches of growing receptive field, weighted per channel by a softmax over them (Li et al., CVPR 2019, section
    3.1): the 5x5 kernel is a 3x3 of dilation 2, the 7x7 one of dilation 3. Their sum, averaged over the image, is
    squeezed to max(width / reduction, smallest) features, from which every branch has a linear map to its logits.

    `(n, width, h, w)` to `(n, width, ceil(h / stride), ceil(w / stride))`.
    """

    def __init__(self, width: int, stride: int, groups: int, branches: int, reduction: int, smallest: int) -> None:
        super().__init__()
        squeezed = max(width // reduction, smallest)
        self.branches = nn.ModuleList(Branch(width, stride, groups, 1 + number) for number in range(branches))
        self.squeeze = ConvNormReLU(width, squeezed, 1)
        self.logits = nn.ModuleList(nn.Conv2d(squeezed, width, 1, bias=False) for _ in range(branches))

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.stack([branch(x) for branch in self.branches])  # (branches, n, width, h', w')
        squeezed = self.squeeze(maps.sum(0).mean((2, 3), keepdim=True))
        weights = torch.softmax(torch.stack([logits(squeezed) for logits in self.logits]), dim=0)
        return (weights * maps).sum(0)


class SelectiveKernelBlock(nn.Module):
    """Residual bottleneck whose 3x3 selects its kernel: 1x1 to `inner`, `SelectiveKernel`, 1x1 to `outputs`, and the
    shortcut around them, projected where the shape changes. `(n, inputs, h, w)` to
    `(n, outputs, ceil(h / stride), ceil(w / stride))`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        cardinality: int,
        base_width: int,
        branches: int,
        reduction: int,
        smallest: int = 32,
    ) -> None:
        super().__init__()
        inner = inner_width(outputs, cardinality, base_width)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = ConvNorm(inputs, outputs, 1, stride)
        self.expand = ConvNormReLU(inputs, inner, 1)
        self.select = SelectiveKernel(inner, stride, cardinality, branches, reduction, smallest)
        self.project = ConvNorm(inner, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.project(self.select(self.expand(x))))
