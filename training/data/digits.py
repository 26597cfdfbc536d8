"""`digits`: the 8x8 hand-written digits that scikit-learn carries (UCI, Alpaydin and Kaynak 1998)."""

from __future__ import annotations

import numpy as np

from training.data.files import nothing
from training.data.source import ImageSource, image_source
from training.data.split import Split


def load(argument: str, split: Split) -> ImageSource:
    """1,797 images [1, 8, 8] with values 0..16, 10 classes."""
    from sklearn.datasets import load_digits

    nothing("digits", argument)
    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]
    classes = [str(digit) for digit in range(10)]
    return image_source("digits", images, bunch.target, split, classes=classes, value_range=(0, 16))
