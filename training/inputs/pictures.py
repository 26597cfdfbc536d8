"""From an opened image file to pixels: the one way, in training from a folder and wherever the network runs later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.inputs.images import Fit

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

GREY = ("1", "L", "LA")


def pixels(
    image: Image, size: tuple[int, int] | None = None, fit: Fit = "stretch", mode: str | None = None
) -> NDArray[np.uint8]:
    """[h, w, 1] in grey or [h, w, 3] in RGB: of `mode` ("L" or "RGB"), by default as the file is.

    The image is turned upright, converted, then brought to `size` (height, width); transparency is dropped.
    Raises ValueError for more than 8 bits per channel, and what Pillow raises for a damaged file.
    """
    from PIL import Image as pillow
    from PIL import ImageOps

    if image.mode[0] in "IF":
        raise ValueError(f"mode {image.mode}: more than 8 bits per channel; use npz:FILE for such images")
    image = ImageOps.exif_transpose(image)
    if image.mode == "P" and "transparency" in image.info:  # Pillow warns of the direct way
        image = image.convert("RGBA")
    image = image.convert(mode or ("L" if image.mode in GREY else "RGB"))
    if size is not None and image.size != size[::-1]:
        if fit == "crop":
            image = ImageOps.fit(image, size[::-1], method=pillow.Resampling.BICUBIC)
        else:
            image = image.resize(size[::-1], pillow.Resampling.BICUBIC)
    found = np.asarray(image, dtype=np.uint8)
    return found[:, :, None] if found.ndim == 2 else found
