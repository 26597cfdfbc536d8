"""The few lines that run an exported ONNX file without this program, for the model card and the documents."""

from __future__ import annotations

from training.inputs import GraphInputs, ImageInputs, Inputs

_HEAD = """\
import json, sys, numpy as np, onnxruntime
{imports}
session = onnxruntime.InferenceSession("{file}")
inputs = json.loads(session.get_modelmeta().custom_metadata_map["inputs"])
"""

_IMAGES = """\
image = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert(inputs["mode"])
image = {fitted}
x = np.asarray(image, np.float32).reshape(1, inputs["height"], inputs["width"], -1).transpose(0, 3, 1, 2) / 255
{raw}odds = np.exp(session.run(None, {{"image": x}})[0][0].astype(float))
for n in odds.argsort()[::-1][:5]:
    print(inputs["classes"][n], round(odds[n] / odds.sum(), 4))
"""

_FITTED = {
    "stretch": 'image.resize((inputs["width"], inputs["height"]), Image.Resampling.BICUBIC)',
    "crop": 'ImageOps.fit(image, (inputs["width"], inputs["height"]), Image.Resampling.BICUBIC)',
}

_RAW_IMAGES = """\
mean, deviation = (np.array(inputs[key], np.float32).reshape(-1, 1, 1) for key in ("mean", "deviation"))
x = (x - mean) / deviation
"""

_GRAPHS = """\
graph = np.load(sys.argv[1])
x, edges = graph["x"].astype(np.float32), graph["edge_index"].astype(np.int64)
{raw}for node, n in enumerate(session.run(None, {{"x": x, "edge_index": edges}})[0].argmax(1)):
    print(node, inputs["classes"][n])
"""

_RAW_ROWS = "x = x / np.maximum(np.abs(x).sum(1, keepdims=True), np.finfo(np.float32).tiny)\n"


def script(inputs: Inputs, file: str, raw: bool = False) -> str | None:
    """A program that is given an image file (or the npz file of a graph) and prints the classes of the network in
    `file`. It needs onnxruntime, numpy and, for images, Pillow. None where no image file has such channels."""
    match inputs:
        case ImageInputs(mode=None):
            return None
        case ImageInputs():
            body = _IMAGES.format(fitted=_FITTED[inputs.fit], raw=_RAW_IMAGES if raw else "")
            return _HEAD.format(file=file, imports="from PIL import Image, ImageOps\n") + body
        case GraphInputs():
            rows = raw and inputs.normalise == "rows"
            return _HEAD.format(file=file, imports="") + _GRAPHS.format(raw=_RAW_ROWS if rows else "")
