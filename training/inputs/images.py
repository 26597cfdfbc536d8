"""Images as a deployed network gets them: 0 (black) to 1 (white), float32 [batch, channels, height, width]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from training.inputs.base import Inputs, Tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

Fit = Literal["stretch", "crop"]

BYTES = (0.0, 255.0)
"""The value range of image files of 8 bits."""

# White as numbers are stored in files: of floats, bytes and 16-bit integers.
_WHITE = (1.0, 255.0, 65535.0)


class ImageInputs(Inputs):
    """How an image becomes the input of a network, and what its outputs are called.

    An image file is turned upright (EXIF), converted to `mode` as Pillow does, and brought to `width` x `height`;
    bytes are divided by 255. Numbers of the training data are mapped by `value_range`. The network itself sees
    `(input - mean) / deviation`, per channel; an exported program does that inside.
    """

    mode: Literal["L", "RGB"] | None = Field(description="order of the channels; none: neither grey nor RGB")
    channels: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    fit: Fit = Field(
        default="stretch",
        description="of another size: stretch resizes both sides, crop first cuts out the largest centred part of "
        "that shape",
    )
    resize: Literal["bicubic"] = Field(default="bicubic", description="filter of Pillow's resize")
    value_range: tuple[float, float] = Field(description="stored numbers of the data that are 0 and 1 of the input")
    mean: tuple[float, ...] = Field(description="per channel, of the training part, in units of the input")
    deviation: tuple[float, ...] = Field(description="standard deviation, likewise")
    classes: tuple[str, ...] = Field(description="names of the outputs, in order")

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.classes

    def normalised(self, tensors: Tensors) -> Tensors:
        """(images [n, c, h, w] from 0 to 1,) as the network itself sees them, float32."""
        mean, deviation = self._statistics()
        return ((tensors[0] - mean) / deviation,)

    def restored(self, tensors: Tensors) -> Tensors:
        """The inverse of `normalised`."""
        mean, deviation = self._statistics()
        return (tensors[0] * deviation + mean,)

    def _statistics(self) -> Tensors:
        return tuple(np.array(values, np.float32).reshape(-1, 1, 1) for values in (self.mean, self.deviation))


def observed_range(images: NDArray[Any]) -> tuple[float, float]:
    """The stored numbers of black and white, as far as the numbers themselves show them.

    From 0 to 1, 255 or 65535, whichever is the least that holds them and is used by half; else to their largest.
    Negative numbers go from -1 to 1 where these hold them, else from the least to the largest.
    """
    low, high = float(images.min()), float(images.max())
    if low < 0:
        return (-1.0, 1.0) if low >= -1 and high <= 1 else (low, max(high, low + 1e-6 * abs(low)))
    if high <= 1:
        return 0.0, 1.0
    white = next((white for white in _WHITE if high <= white), high)
    return 0.0, white if high > white / 2 else high
