"""Images with one class each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from nas_core.task import IMAGE_CLASSIFICATION, Task, image_task
from training.inputs.images import ImageInputs
from training.tasks.classification import Classification

if TYPE_CHECKING:
    from torch import nn

    from training.data.protocol import Source
    from training.data.split import Split
    from training.inputs.samples import Proof, Samples

SMALL = 16 * 16  # pixels of an image on which threads cost more than they save

_NASBENCH201 = {"optimizer": "sgd", "nesterov": True, "weight_decay": 5e-4, "schedule": "cosine"}
_PAPER201 = {**_NASBENCH201, "epochs": 200, "lr": 0.1, "batch_size": 256, "augment": {"flip": True, "crop": 4}}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "quick": {**_NASBENCH201, "epochs": 8, "lr": 0.05, "batch_size": 64},
    "standard": {**_NASBENCH201, "epochs": 40, "lr": 0.1, "batch_size": 128, "warmup_epochs": 1},
    # NAS-Bench-201, table 2: 200 epochs, batch 256, random flip, 4 pixels of padding and crop.
    "paper": {**_PAPER201},
    "nasbench201": {**_PAPER201},
    # Liu et al., ICLR 2019, section 3.2; auxiliary head and drop path are of the size "full".
    "darts": {
        "epochs": 600,
        "lr": 0.025,
        "weight_decay": 3e-4,
        "batch_size": 96,
        "grad_clip": 5.0,
        "augment": {"flip": True, "crop": 4, "cutout": 16},
    },
    # Zoph et al., CVPR 2018, as in the authors' program; cutout as in the paper's tables.
    "nasnet": {
        "epochs": 600,
        "lr": 0.025,
        "weight_decay": 5e-4,
        "batch_size": 32,
        "grad_clip": 5.0,
        "augment": {"flip": True, "crop": 4, "cutout": 16},
    },
    # Radosavovic et al., CVPR 2020, as in the authors' model zoo: rate 0.1 per 128 images.
    "regnet": {
        "epochs": 100,
        "lr": 0.1,
        "nesterov": True,
        "weight_decay": 5e-5,
        "warmup_epochs": 5,
        "batch_size": 128,
        "augment": {"flip": True, "crop": 4},
    },
    # Sun et al., IEEE TNNLS 31(4), 2020: rate 0.01 in the first epoch, then 0.1, 0.01 after 148, 0.001 after 248.
    "ae-cnn": {
        "epochs": 350,
        "lr": 0.1,
        "weight_decay": 5e-4,
        "schedule": "step",
        "milestones": ((0, 0.1), (1, 1.0), (149, 0.1), (249, 0.01)),
        "batch_size": 128,
        "augment": {"flip": True, "crop": 4},
    },
}

OF_SPACES = ("darts", "nasnet", "nasbench201", "regnet")  # named like the space whose paper they are from
PIXELS = 32  # of the images that these are for


class ImageClassification(Classification):
    """Inputs are images [b, c, h, w] float32, normalised per channel."""

    name = IMAGE_CLASSIFICATION
    pipeline = "image-classification"
    example: ClassVar[Task] = image_task((3, 32, 32), 10)  # as of CIFAR-10
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = RECIPES
    inputs_word: ClassVar[str] = "images"
    images = True
    Inputs: ClassVar[type[ImageInputs]] = ImageInputs

    def examples(self) -> tuple[Task, ...]:
        return self.example, image_task((1, 28, 28), 7), image_task((1, 8, 8), 10)

    def fitted(self, name: str, values: Mapping[str, Any], task: Task) -> dict[str, Any]:
        """With the augmentation for images of this size."""
        if name == "standard":
            channels, height, _ = task.input_shape
            return {**values, "augment": {"crop": height // 8, "flip": channels == 3}}
        if name in OF_SPACES:
            channels, height, width = task.images()
            augment = values["augment"]
            pixels = {what: augment.get(what, 0) * min(height, width) // PIXELS for what in ("crop", "cutout")}
            return {**values, "augment": {**pixels, "flip": channels == 3}}
        return dict(values)

    def light(self, task: Task) -> bool:
        return math.prod(task.input_shape[1:]) <= SMALL

    def embedded(self, split: Split) -> Source:
        from training.data import load

        return load("digits", split)

    def describe(self, task: Task) -> str:
        return f"an image of {' x '.join(map(str, task.input_shape))}"

    def read(self, inputs: ImageInputs, argument: str) -> Samples:
        """An image file or `npz:FILE`."""
        from training.infer import images

        return images.read(inputs, argument)

    def proofs(self, source: Source) -> list[Proof]:
        from training.export import proof

        return proof.pictures(source)

    def normalised(self, network: nn.Module, inputs: ImageInputs) -> nn.Module:
        from training.export.normalise import NormalisedImages

        return NormalisedImages(network, inputs).eval()

    def script(self, inputs: ImageInputs, file: str, raw: bool) -> str | None:
        from training.export import script

        return script.images(inputs, file, raw)

    def given(self, inputs: ImageInputs) -> tuple[str, str]:
        return "image.png", "numpy, Pillow and onnxruntime"

    def card(self, inputs: ImageInputs, where: str) -> list[tuple[str, str]]:
        colours = {"L": "grey", "RGB": "red, green, blue"}.get(inputs.mode or "", f"{inputs.channels} channels")
        low, high = inputs.value_range
        mean, deviation = (", ".join(f"{value:.6g}" for value in row) for row in (inputs.mean, inputs.deviation))
        return [
            ("shape", f"[batch, {inputs.channels}, {inputs.height}, {inputs.width}], float32"),
            ("channels", colours),
            ("values", "0 (black) to 1 (white)"),
            ("values of the training data", f"{low:g} to {high:g}"),
            ("another size", f"{inputs.fit}, {inputs.resize}"),
            ("mean", mean),
            ("deviation", deviation),
            ("normalisation", f"(input - mean) / deviation, {where}"),
        ]

    def python(self, inputs: ImageInputs) -> Mapping[str, str]:
        from training.export.python import inputs as source

        return source.images(inputs)

    def facts(self, inputs: ImageInputs) -> dict[str, Any]:
        return {"MEAN": inputs.mean, "DEVIATION": inputs.deviation}


KIND = ImageClassification()
