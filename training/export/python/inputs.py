"""What comes before the network in its Python file, as source: functions by name, that of an input first."""

from __future__ import annotations

from collections.abc import Mapping

from training.export.python.layout import docstring
from training.export.python.terms import literal
from training.inputs.graphs import GraphInputs
from training.inputs.images import ImageInputs
from training.inputs.texts import TextInputs


def images(inputs: ImageInputs) -> Mapping[str, str]:
    """`preprocess`, of an image of Pillow where one has such channels, and `normalise`."""
    shape = f"[batch, {inputs.channels}, {inputs.height}, {inputs.width}]"
    normalise = f'''def normalise(images: Tensor) -> Tensor:
    """Images `{shape}` of numbers from 0 (black) to 1 (white), as the network reads them."""
    mean, deviation = torch.tensor(MEAN), torch.tensor(DEVIATION)
    return (images - mean[:, None, None]) / deviation[:, None, None]'''
    if inputs.mode is None:
        return {"normalise": normalise}
    size = f"({inputs.width}, {inputs.height}), Image.Resampling.BICUBIC"
    cropped = inputs.fit == "crop"
    where = "the largest centred part of that shape, " * cropped
    kind = "grey" if inputs.mode == "L" else "RGB"
    about = (
        f"An image of Pillow as the network reads it, a batch of one: upright, {kind}, {where}"
        f"at {inputs.width} x {inputs.height} pixels, normalised."
    )
    text = "\n".join(docstring(about, "    "))
    sides = f"1, {inputs.height}, {inputs.width}, {inputs.channels}"
    preprocess = f"""def preprocess(image) -> Tensor:
{text}
    from PIL import Image, ImageOps

    if image.mode[0] in "IF":
        raise ValueError(f"the image has mode {{image.mode}}, more than 8 bits per channel")
    image = ImageOps.exif_transpose(image).convert({literal(inputs.mode)})
    image = {f"ImageOps.fit(image, {size})" if cropped else f"image.resize({size})"}
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return normalise(pixels.reshape({sides}).permute(0, 3, 1, 2) / 255)"""
    return {"preprocess": preprocess, "normalise": normalise}


def graph(inputs: GraphInputs) -> Mapping[str, str]:
    """`normalise`, of the features of nodes."""
    rows = inputs.normalise == "rows"
    how = ": each row is divided by the sum of its absolute values" * rows
    sums = "features.abs().sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)"
    normalise = f'''def normalise(features: Tensor) -> Tensor:
    """Features `[nodes, {inputs.features}]` as the network reads them{how}."""
    return features{f" / {sums}" * rows}'''
    return {"normalise": normalise}


def text(inputs: TextInputs) -> Mapping[str, str]:
    """`encode`, of a text, and `normalise`, which leaves its numbers as they are."""
    window = inputs.window
    encode = f'''def encode(text: str) -> Tensor:
    """The last {window} characters of a text as the network reads them, a batch of one; 0 where there are fewer."""
    numbers = {{name: number for number, name in enumerate(CLASSES)}}
    found = [numbers.get(character, 0) for character in text[-{window}:]]
    return torch.tensor([found + [0] * ({window} - len(found))])'''
    normalise = '''def normalise(tokens: Tensor) -> Tensor:
    """Numbers of characters as the network reads them: as they are."""
    return tokens'''
    return {"encode": encode, "normalise": normalise}
