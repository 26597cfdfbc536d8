"""`cifar10:DIR`: CIFAR-10 (Krizhevsky 2009) in the official binary version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas_core.errors import NotFoundError, UsageError
from training.data.files import content, folder_of
from training.data.source import ImageSource, image_source
from training.data.split import Split
from training.inputs.images import BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLE = "cifar10:DIR, where DIR holds data_batch_1.bin and the other files of cifar-10-binary.tar.gz"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"
RECORD = 1 + 3 * 32 * 32


def load(argument: str, split: Split) -> ImageSource:
    """Images [3, 32, 32]; `test_batch.bin` is the test part. DIR may be the folder that holds the unpacked archive."""
    folder = folder_of("cifar10", argument, EXAMPLE)
    if (folder / "cifar-10-batches-bin").is_dir():
        folder = folder / "cifar-10-batches-bin"
    missing = [name for name in (*TRAIN, TEST) if not (folder / name).is_file()]
    if missing:
        hint = " (those without .bin are the Python version)" if (folder / "data_batch_1").exists() else ""
        raise NotFoundError(f"{folder} lacks {', '.join(missing)} of the binary version of CIFAR-10{hint}")
    records = [_records(folder / name) for name in (*TRAIN, TEST)]
    count = sum(len(part) for part in records)
    together = np.concatenate(records)
    return image_source(
        f"cifar10:{argument}",
        together[:, 1:].reshape(-1, 3, 32, 32),
        together[:, 0],
        split,
        test=np.arange(count - len(records[-1]), count),
        classes=CLASSES,
        value_range=BYTES,
    )


def _records(path: Path) -> NDArray[np.uint8]:
    """[n, 3073]: a label, then red, green and blue rows."""
    data = content(path)
    if not data or len(data) % RECORD:
        raise UsageError(f"{path}: {len(data)} bytes are no whole number of {RECORD}-byte records")
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() > 9:
        raise UsageError(f"{path}: label {records[:, 0].max()} in a file of CIFAR-10, whose labels are 0..9")
    return records
