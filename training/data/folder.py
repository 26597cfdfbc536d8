"""`folder:DIR`: image files in one folder per class, read with Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas_core.errors import NotFoundError, UsageError, nearest
from training.data.files import folder_of
from training.data.source import ImageSource, image_source
from training.data.split import Split
from training.inputs.images import BYTES
from training.inputs.pictures import pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLE = "folder:DIR, where DIR holds one folder of images per class, or train/ and test/ with such folders"
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
# Names of the folders of a part, in the order train, valid, test.
PART_NAMES = (("train",), ("valid", "val", "validation"), ("test",))


def load(argument: str, split: Split) -> ImageSource:
    """Images [1, h, w] where all files are grey, [3, h, w] otherwise; classes are the folder names in order.

    All images have one size, or are resized (bicubic) to the square that `?size=32` asks for.
    """
    where, size = _options(argument)
    folder = folder_of("folder", where, EXAMPLE)
    parts = [next((folder / name for name in names if (folder / name).is_dir()), None) for names in PART_NAMES]
    roots: list[Path | None] = parts if parts[0] else [folder, None, None]
    classes = sorted({entry.name for root in roots if root for entry in _folders(root)})
    if not classes:
        raise NotFoundError(f"{folder} holds no class folders; needed is {EXAMPLE}")
    files = [[(path, number) for number, name in enumerate(classes) for path in _images(root, name)] for root in roots]
    if not files[0]:
        raise NotFoundError(f"{roots[0]} holds no images in its class folders (looked for {', '.join(ENDINGS)})")
    together = [entry for part in files for entry in part]
    bounds = np.cumsum([0, *(len(part) for part in files)])
    lists = [
        np.arange(start, stop) if root else None
        for root, start, stop in zip(roots, bounds[:-1], bounds[1:], strict=True)
    ]
    labels = np.array([number for _, number in together], dtype=np.int64)
    images = _read([path for path, _ in together], size)
    return image_source(
        *(f"folder:{argument}", images, labels, split),
        valid=lists[1],
        test=lists[2],
        classes=classes,
        value_range=BYTES,
    )


def _options(argument: str) -> tuple[str, int | None]:
    """`DIR?size=32` -> `("DIR", 32)`."""
    where, mark, query = argument.rpartition("?")
    if not mark:
        return argument, None
    name, _, value = query.partition("=")
    if name != "size":
        raise UsageError(f"data 'folder:{argument}': unknown option '{name}'{nearest(name, ['size'])} (known: size)")
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"data 'folder:{argument}': size is a number of pixels, as in folder:{where}?size=32")
    return where, int(value)


def _folders(root: Path) -> list[Path]:
    return [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]


def _images(root: Path | None, name: str) -> list[Path]:
    if root is None or not (root / name).is_dir():
        return []
    return sorted(path for path in (root / name).rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())


def _read(paths: list[Path], size: int | None) -> NDArray[np.uint8]:
    """[n, c, h, w] of all files."""
    from PIL import Image

    images: list[NDArray[np.uint8]] = []
    for path in paths:
        try:
            with Image.open(path) as image:
                images.append(pixels(image, None if size is None else (size, size)))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UsageError(f"{path}: not a readable image ({error})") from error
        if images[-1].shape[:2] != images[0].shape[:2]:
            (h, w), (first_h, first_w) = images[-1].shape[:2], images[0].shape[:2]
            raise UsageError(
                f"{path} has {w}x{h} pixels, {paths[0]} {first_w}x{first_h}; one size is needed: add ?size=32 to resize"
            )
    channels = max(image.shape[2] for image in images)
    result = np.empty((len(images), channels, *images[0].shape[:2]), dtype=np.uint8)
    for position, found in enumerate(images):
        result[position] = found.transpose(2, 0, 1)
    return result
