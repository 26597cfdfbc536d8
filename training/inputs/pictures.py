"""From an opened image file to pixels: the one way, in training from a folder and wherever the network runs later."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.inputs.images import Fit

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

GREY = ("1", "L", "LA")
ORIENTATION = 0x0112  # of EXIF; from 5 on height and width change places


class Unreadable(Exception):
    """An image cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels [c, h, w] of an image file, and its (height, width) as viewers show it, before it came to a size.

    `remarks` say what is odd about it, in words that are the same for every file that has it.
    """

    pixels: NDArray[Any]
    shown: tuple[int, int]
    remarks: tuple[str, ...] = ()


def read_file(
    path: Path, size: tuple[int, int] | None = None, fit: Fit = "stretch", mode: str | None = None
) -> Picture:
    """An image file as `pixels` makes it. Of several frames the first is used. Raises Unreadable."""
    from PIL import Image

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with Image.open(path) as image:
                frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
                shown = image.size if image.getexif().get(ORIENTATION, 1) >= 5 else image.size[::-1]
                found = pixels(image, size, fit, mode).transpose(2, 0, 1)
        except Exception as error:  # decoders raise whatever they stumble over
            raise Unreadable(f"not a readable image ({error})") from error
    # Counts in them would make many remarks out of one.
    remarks = [re.sub(r"\d+", "N", str(warning.message).partition("\n")[0]).rstrip(" .") for warning in caught]
    if frames > 1:
        remarks.append("more than one frame, of which the first is used")
    return Picture(found, shown, tuple(dict.fromkeys(remarks)))


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
