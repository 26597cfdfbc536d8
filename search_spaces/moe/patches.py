"""A mixer of patches for images, whose token mixing and channel mixing may both be of experts.

Tolstikhin et al., "MLP-Mixer", NeurIPS 2021, arXiv 2105.01601, equation 1; with experts "Sparse-MLP" (Lou et al., 2021,
arXiv 2109.02008): token mixing routes channels, each by its values at all patches (MoE_S there), channel mixing routes
patches (MoE_C). Ours are the sizes, about 8 x 8 patches whatever the image, and that no layers change the numbers of
patches and channels around the experts ("re-represent layers" there).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from nas_core.task import Task
from search_spaces.moe.backbones import CHANNELS, TOKENS
from search_spaces.moe.residual import PreNorm

SIDE = 8  # patches along the longer side of an image, about


class PatchNetwork(nn.Module):
    """Images `[n, channels, h, w]` to `[n, outputs]`."""

    def __init__(self, channels: int, patch: int, width: int, blocks: Sequence[nn.Module], outputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, patch, patch)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.blocks(self.stem(x).flatten(2).transpose(1, 2))  # [n, patches, width]
        return self.head(self.norm(tokens).mean(1))


def sides(image: tuple[int, int, int]) -> tuple[int, int, int]:
    """Channels of an image (channels, height, width), the side of a patch, and the number of patches."""
    channels, height, breadth = image
    patch = max(1, min(max(height, breadth) // SIDE, height, breadth))
    return channels, patch, (height // patch) * (breadth // patch)


def network(task: Task, width: int, depth: int, layer: Callable[[int, str, int], nn.Module]) -> nn.Module:
    """`(n, channels, h, w)` to `(n, task.outputs)`. Raises UsageError where no images are learned from."""
    channels, patch, patches = sides(task.images())
    blocks: list[nn.Module] = []
    for block in range(1, depth + 1):
        blocks.append(PreNorm(width, layer(block, TOKENS, patches), across=True))
        blocks.append(PreNorm(width, layer(block, CHANNELS, width)))
    return PatchNetwork(channels, patch, width, blocks, task.outputs)
