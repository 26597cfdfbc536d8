"""`folder:DIR`: image files in one folder per class, read with Pillow."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np

from nas_core.errors import NotFoundError, UsageError
from nas_core.plain import is_text
from training.data.files import folder_of
from training.data.items import Item, ItemOptions, gather
from training.data.labels import listed
from training.data.parts import NAMES, one_each, refuse_lookalikes
from training.data.reference import options
from training.data.source import ImageSource, image_source
from training.data.split import Split
from training.data.stream import StreamSource, stream_source
from training.inputs.images import BYTES, Fit
from training.inputs.pictures import read_file

EXAMPLE = "folder:DIR, where DIR holds one folder of images per class, or train/ and test/ with such folders"
ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp"),
    *(".ppm", ".pgm", ".tif", ".tiff"),
)
# What systems leave beside images, besides files that begin with a dot.
LEFT_BY_SYSTEMS = (
    *("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"),
    *("system volume information", "lost+found"),
)


def load(argument: str, split: Split) -> ImageSource | StreamSource:
    """Images [1, h, w] where all files are grey, [3, h, w] otherwise; classes are the folder names in order.

    All images have one size, or are resized (bicubic) to the square that `?size=32` asks for. With `?stream=yes` they
    stay on the disk. Raises NotFoundError for a folder without images, UsageError for one that can be misunderstood,
    and as `gather` and `stream_source`.
    """
    where, chosen = options("folder", argument, ItemOptions)
    root = folder_of("folder", where, EXAMPLE)
    files = ImageFiles(root, chosen.size, chosen.fit)
    if chosen.stream:
        lists = {part: np.array(numbers, dtype=np.int64) for part, numbers in files.parts.items()}
        return stream_source(
            *(f"folder:{argument}", files, files.labels, split),
            valid=lists.get("valid"),
            test=lists.get("test"),
            classes=files.classes,
            value_range=BYTES,
            fit=chosen.fit,
            workers=chosen.workers,
            renumber=chosen.labels is not None,
            warnings=files.warnings,
        )
    read = gather(files, f"folder:{argument}", skip=chosen.skip is not None)
    place = {number: position for position, number in enumerate(read.kept.tolist())}
    parts = {
        part: np.array([place[number] for number in numbers if number in place], dtype=np.int64)
        for part, numbers in files.parts.items()
    }
    return image_source(
        *(f"folder:{argument}", read.images, np.array(read.labels), split),
        valid=parts.get("valid"),
        test=parts.get("test"),
        classes=files.classes,
        value_range=BYTES,
        fit=chosen.fit,
        files=[files.name(number) for number in read.kept],
        renumber=chosen.labels is not None,
        warnings=[*files.warnings, *read.warnings],
    )


class ImageFiles:
    """The image files below a folder, those of the parts one after another, each part in the order of its paths.

    `parts` says which of them belong to a part (numbers, only for parts that have a folder), `warnings` what was left
    out. Hidden files and those that systems leave behind are passed over.
    """

    def __init__(self, root: Path, size: int | None, fit: Fit) -> None:
        self.root, self._size, self._fit = root, None if size is None else (size, size), fit
        self.warnings: list[str] = []
        roots = self._roots()
        names = sorted({entry.name for part in roots.values() for entry in _folders(part)})
        for name in names:
            if not is_text(name):
                raise UsageError(f"{root}: the name of the folder {name!r} is no UTF-8; rename it")
        # Two ways to write one name, as macOS and others have them, are one class.
        self.classes = tuple(dict.fromkeys(map(_composed, names)))
        if not self.classes:
            raise NotFoundError(f"{root} holds no class folders; needed is {EXAMPLE}")
        self.paths: list[Path] = []
        self.labels: list[int] = []
        self.parts: dict[str, range] = {}
        left_out: list[Path] = [path for part in {root, *roots.values()} for path in _loose(part)]
        for part, folder in roots.items():
            start = len(self.paths)
            for name in names:
                images, others = _images(folder / name)
                self.paths += images
                self.labels += [self.classes.index(_composed(name))] * len(images)
                left_out += others
            if folder != root:
                self.parts[part] = range(start, len(self.paths))
        if not (self.parts.get("train", self.paths)):
            raise NotFoundError(
                f"{roots['train']} holds no images in its class folders (looked for {', '.join(ENDINGS)})"
            )
        if left_out:
            shown = listed(sorted(str(path.relative_to(root)) for path in left_out))
            files = "file that is no image" if len(left_out) == 1 else "files that are no images"
            self.warnings.append(f"left out {len(left_out):,} {files} of a class: {shown}")

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, number: int) -> str:
        return str(self.paths[number].relative_to(self.root))

    def read(self, number: int) -> Item:
        found = read_file(self.paths[number], self._size, self._fit)
        return Item(found.pixels, self.labels[number], found.remarks)

    def _roots(self) -> dict[str, Path]:
        """The folder of each part that has one; without a training folder, the whole as `train`."""
        folders = _folders(self.root)
        parts = one_each((entry.name for entry in folders if _folders(entry)), str(self.root))
        if not parts:
            return {"train": self.root}
        if "train" not in parts:
            raise UsageError(
                f"{self.root} holds '{next(iter(parts.values()))}' and no folder of training images; name that 'train'"
            )
        others = [entry.name for entry in folders if entry.name not in parts.values()]
        refuse_lookalikes(others, str(self.root))
        if others:
            self.warnings.append(f"folders beside '{parts['train']}' are not used: {listed(sorted(others))}")
        return {part: self.root / parts[part] for part in NAMES if part in parts}


def _folders(root: Path) -> list[Path]:
    return [entry for entry in root.iterdir() if entry.is_dir() and not _passed_over(entry.name)]


def _loose(root: Path) -> list[Path]:
    """Files that are in no folder of a class."""
    return [entry for entry in root.iterdir() if not entry.is_dir() and not _passed_over(entry.name)]


def _images(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images below a folder in the order of their paths, and what else is there."""
    images: list[Path] = []
    others: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _passed_over(name)]
        others += [path for name in folders if (path := Path(place, name)).is_symlink()]  # not followed
        for path in (Path(place, name) for name in names if not _passed_over(name)):
            (images if path.suffix.lower() in ENDINGS and path.is_file() else others).append(path)
    return sorted(images), others


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name.lower() in LEFT_BY_SYSTEMS


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
