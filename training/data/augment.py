"""Random flip, pad-and-crop and cutout of a whole batch at once, in tensor code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from nas_core.config import Config

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Augment(Config):
    """What is done to training images, in this order. The default does nothing."""

    crop: int = Field(
        default=0, ge=0, description="black padding in pixels on each side before a random crop of the old size"
    )
    flip: bool = Field(default=False, description="mirror left to right with probability one half")
    cutout: int = Field(default=0, ge=0, description="side in pixels of a square of zeros (DeVries and Taylor 2017)")

    @property
    def active(self) -> bool:
        return self.flip or self.crop > 0 or self.cutout > 0


PLAIN = Augment()


def apply(images: Tensor, augment: Augment, generator: Generator, black: Tensor | None = None) -> Tensor:
    """Each image of `images` [n, c, h, w] moved, mirrored and cut on its own; the input is left as it is.

    All draws come from `generator` (on the CPU, so that every device sees the same ones) and depend on n, h, w
    and `augment` alone. `black` [1, c, 1, 1] is what a black pixel has become by normalisation, the colour of the
    padding (default 0): padding with the mean would show the network borders that no image has. A cutout square is
    zero, centred on any pixel and clipped at the border, as in the paper.
    """
    import torch

    if not augment.active:
        return images
    n, c, h, w = images.shape
    device, pad, side = images.device, augment.crop, augment.cutout
    # One table of integers, so that a GPU gets one copy: top, left, mirrored, centre row, centre column.
    limits = (2 * pad + 1, 2 * pad + 1, 2 if augment.flip else 1, h if side else 1, w if side else 1)
    draws = torch.stack([torch.randint(limit, (n,), generator=generator) for limit in limits]).to(device)
    top, left, mirrored, row, column = draws[:, :, None]
    rows, columns = torch.arange(h, device=device), torch.arange(w, device=device)
    if pad or augment.flip:
        # Reading pixels through a flat index was the fastest of seven ways on a CPU: crop and flip in one gather.
        padded = _pad(images, pad, black) if pad else images
        across = left + torch.where(mirrored == 1, columns.flip(0), columns)
        flat = ((top + rows) * (w + 2 * pad))[:, :, None] + across[:, None, :]
        images = padded.reshape(n, c, -1).gather(2, flat.reshape(n, 1, h * w).expand(n, c, h * w)).view(n, c, h, w)
    if side:
        first_row, first_column = row - side // 2, column - side // 2
        inside = ((rows >= first_row) & (rows < first_row + side))[:, :, None]
        inside = inside & ((columns >= first_column) & (columns < first_column + side))[:, None, :]
        images = images.masked_fill(inside[:, None], 0)
    return images


def _pad(images: Tensor, pad: int, black: Tensor | None) -> Tensor:
    n, c, h, w = images.shape
    padded = images.new_zeros(n, c, h + 2 * pad, w + 2 * pad)
    if black is not None:
        padded += black
    padded[:, :, pad : pad + h, pad : pad + w] = images
    return padded
