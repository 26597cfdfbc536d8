"""From an opened image file to pixels: the one way, in training from a folder and wherever the network runs later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from training.inputs.images import Fit

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

GREY = ("1", "L", "LA")


def pixels(
    image: Image, size: tuple[int, int] | None = None, fit: Fit = "stretch", mode: str | None = None
) -> NDArray[Any]:
    """[h, w, 1] in grey or [h, w, 3] in RGB: of `mode` ("L" or "RGB"), by default as the file is.

    The image is turned upright, converted, then brought to `size` (height, width); transparency is dropped. Bytes stay
    bytes. 16 bits per channel become float32 from 0 to 255, so that 65535 is white and nothing is lost.
    Raises ValueError for other numbers (their white is unknown), and what Pillow raises for a damaged file.
    """
    from PIL import ImageOps

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = _from_16_bits(image)
    elif image.mode[0] in "IF":
        raise ValueError(f"mode {image.mode}: more than 16 bits per channel; use npz:FILE for such images")
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        found = np.clip(np.asarray(_sized(image, size, fit)), 0, 255)  # a cubic goes beyond black and white
        return np.repeat(found[:, :, None], 3 if mode == "RGB" else 1, axis=2)
    if image.mode == "P" and "transparency" in image.info:  # Pillow warns of the direct way
        image = image.convert("RGBA")
    image = image.convert(mode or ("L" if image.mode in GREY else "RGB"))
    found = np.asarray(_sized(image, size, fit), dtype=np.uint8)
    return found[:, :, None] if found.ndim == 2 else found


def _from_16_bits(image: Image) -> Image:
    """Mode F from 0 to 255; what the file says of its orientation is kept."""
    from PIL import Image as pillow

    floats = pillow.fromarray(np.asarray(image).astype(np.float32) / np.float32(257))
    floats.getexif().update(image.getexif())
    return floats


def _sized(image: Image, size: tuple[int, int] | None, fit: Fit) -> Image:
    from PIL import Image as pillow
    from PIL import ImageOps

    if size is None or image.size == size[::-1]:
        return image
    if fit == "crop":
        return ImageOps.fit(image, size[::-1], method=pillow.Resampling.BICUBIC)
    return image.resize(size[::-1], pillow.Resampling.BICUBIC)
