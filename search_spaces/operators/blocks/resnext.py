"""The block of ResNeXt (Xie et al., CVPR 2017, figure 3c)."""

from __future__ import annotations

from search_spaces.operators.blocks.bottleneck import Bottleneck


def resnext(inputs: int, outputs: int, stride: int, cardinality: int, base_width: int) -> Bottleneck:
    """`cardinality` parallel paths as one grouped convolution: the template C x d of the paper, whose paths are d =
    `base_width` channels wide where the block has 256 outputs, and wider with them; no path is narrower than one."""
    return Bottleneck(inputs, outputs, stride, inner_width(outputs, cardinality, base_width), cardinality)


def inner_width(outputs: int, cardinality: int, base_width: int) -> int:
    """Channels of the grouped convolution: floor(outputs / 4 * d / 64) per path."""
    return cardinality * max(1, outputs * base_width // 256)
