"""The few lines that run an exported ONNX file without this program, for the model card and the documents."""

from __future__ import annotations

from training.inputs import (
    GraphInputs,
    ImageInputs,
    Inputs,
    ManyGraphInputs,
    MultiTaskInputs,
    PairInputs,
    TableInputs,
    TextInputs,
)
from training.tasks import find

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

_ASKED = """\
asked = sys.argv[2] if len(sys.argv) > 2 else inputs["heads"][0]["name"]
number = [head["name"] for head in inputs["heads"]].index(asked)
start = sum(head["outputs"] for head in inputs["heads"][:number])
given = {{"image": x{told}}}
logits = session.run(None, given)[0][0, start : start + inputs["heads"][number]["outputs"]]
odds = np.exp(logits.astype(float) - logits.max())
for n in odds.argsort()[::-1][:5]:
    print(inputs["classes"][start + n], round(odds[n] / odds.sum(), 4))
"""

_NODE_NUMBERS = """\
graph = np.load(sys.argv[1])
x, edges = graph["x"].astype(np.float32), graph["edge_index"].astype(np.int64)
{raw}answers = session.run(None, {{"x": x, "edge_index": edges}})[0]
for node, numbers in enumerate(answers):
    print(node, *(numbers * inputs["target_deviation"] + inputs["target_mean"]))
"""

_GRAPHS = """\
graph = np.load(sys.argv[1])
x, edges = graph["x"].astype(np.float32), graph["edge_index"].astype(np.int64)
{raw}for node, n in enumerate(session.run(None, {{"x": x, "edge_index": edges}})[0].argmax(1)):
    print(node, inputs["classes"][n])
"""

_PAIRS = """\
graph = np.load(sys.argv[1])
x, edges, pairs = graph["x"].astype(np.float32), graph["edge_index"].astype(np.int64), graph["pairs"].astype(np.int64)
{raw}answers = session.run(None, {{"x": x, "edge_index": edges, {attr}"pairs": pairs}})[0]
for (one, other), answer in zip(pairs.T, answers):
    print(one, other, {told})
"""

_MANY_GRAPHS = """\
graph = np.load(sys.argv[1])
edges, counts = graph["edge_index"].astype(np.int64), np.bincount(graph["graph_id"])
blocks = []
{blocks}x = np.concatenate(blocks, 1).astype(np.float32)
{raw}answers = session.run(None, {{"x": x, "edge_index": edges, {attr}"counts": counts}})[0]
{told}"""

_OWN = 'blocks.append(graph["x"])\n'
_TAGS = 'blocks.append(graph["node_tag"][:, None] == np.array(inputs["tags"]))\n'
_DEGREES = """\
degrees = np.bincount(edges[1], minlength=counts.sum()).clip(max=inputs["degrees"] - 1)
blocks.append(degrees[:, None] == np.arange(inputs["degrees"]))
"""
_CONSTANT = "blocks.append(np.ones((counts.sum(), 1)))\n"

_ATTR = '"edge_attr": graph["edge_attr"].astype(np.float32).reshape(edges.shape[1], -1), '
_RAW_ROWS = "x = x / np.maximum(np.abs(x).sum(1, keepdims=True), np.finfo(np.float32).tiny)\n"


_TABLES = """\
rows = [[cell.strip() for cell in row] for row in csv.reader(open(sys.argv[1], newline="")) if row]
names = rows.pop(0) if inputs["header"] else [f"c{{n}}" for n in range(len(rows[0]))]
blocks = []
for column in inputs["columns"]:
    cells = [row[names.index(column["name"])] for row in rows]
    gone = np.array([cell in inputs["missing"] for cell in cells])
    if column["type"] == "number":
        values = np.array([column["median"] if cell in inputs["missing"] else float(cell) for cell in cells])
        blocks.append((values[:, None] - column["mean"]) / column["deviation"])
        blocks += [gone[:, None]] if column["indicator"] else []
    else:
        cells = ["" if cell in inputs["missing"] else cell for cell in cells]
        block = np.array([[cell == level for level in column["levels"]] for cell in cells])
        blocks += [block, ~block.any(1, keepdims=True)] if column["rare"] else [block]
answers = session.run(None, {{"x": np.concatenate(blocks, 1).astype(np.float32)}})[0]
"""

_TEXTS = """\
classes = ["<unk>", *inputs["characters"]]
text = open(sys.argv[1], encoding="utf-8", newline="").read()[-inputs["window"] :]
tokens = np.zeros((1, inputs["window"]), np.int64)
tokens[0, : len(text)] = [classes.index(one) if one in classes else 0 for one in text]
odds = np.exp(session.run(None, {{"tokens": tokens}})[0][0, len(text) - 1].astype(float))
for n in odds.argsort()[::-1][:5]:
    print(repr(classes[n]), round(odds[n] / odds.sum(), 4))
"""

_CLASSES = """\
for row, n in enumerate(answers.argmax(1)):
    print(row, inputs["classes"][n])
"""

_LABELS = """\
for row, answer in enumerate(answers):
    print(row, *(name for name, logit in zip(inputs["classes"], answer) if logit > 0))
"""

_NUMBERS = """\
for row, number in enumerate(answers[:, 0]):
    print(row, number * inputs["target_deviation"] + inputs["target_mean"])
"""


def script(inputs: Inputs, file: str, raw: bool = False) -> str | None:
    """A program that is given a file as `nas infer` is, and prints what the network in `file` answers. It needs
    onnxruntime, numpy and, for images, Pillow. None where the kind of task has none."""
    return find(inputs.kind).script(inputs, file, raw)


def images(inputs: ImageInputs, file: str, raw: bool) -> str | None:
    """Of an image file; None where no image file has such channels."""
    if inputs.mode is None:
        return None
    body = _IMAGES.format(fitted=_FITTED[inputs.fit], raw=_RAW_IMAGES if raw else "")
    return _HEAD.format(file=file, imports="from PIL import Image, ImageOps\n") + body


def asked(inputs: MultiTaskInputs, file: str, raw: bool) -> str | None:
    """Of an image file and the name of a task, by default the first."""
    whole = images(inputs, file, raw)
    if whole is None:
        return None
    told = ', "task": np.array([number])' if inputs.told else ""
    return whole[: whole.index("odds = ")] + _ASKED.format(told=told)


def graphs(inputs: GraphInputs, file: str, raw: bool) -> str:
    """Of the npz file of a graph."""
    rows = raw and inputs.normalise == "rows"
    body = _GRAPHS if inputs.classes else _NODE_NUMBERS
    return _HEAD.format(file=file, imports="") + body.format(raw=_RAW_ROWS if rows else "")


def pairs(inputs: PairInputs, file: str, raw: bool) -> str:
    """Of the npz file of a graph and pairs of its nodes."""
    body = _PAIRS.format(
        raw=_RAW_ROWS if raw and inputs.normalise == "rows" else "",
        attr=_ATTR if inputs.edge_features else "",
        told='inputs["classes"][answer.argmax()]' if inputs.classes else "1 / (1 + np.exp(-answer[0]))",
    )
    return _HEAD.format(file=file, imports="") + body


def many_graphs(inputs: ManyGraphInputs, file: str, raw: bool) -> str:
    """Of the npz file of many graphs."""
    blocks = ((inputs.own, _OWN), (inputs.tags, _TAGS), (inputs.degrees, _DEGREES), (inputs.constant, _CONSTANT))
    body = _MANY_GRAPHS.format(
        blocks="".join(block for there, block in blocks if there),
        raw=_RAW_ROWS if raw and inputs.normalise == "rows" else "",
        attr=_ATTR if inputs.edge_features else "",
        told=(_CLASSES if inputs.exclusive else _LABELS) if inputs.classes else _NUMBERS,
    )
    return _HEAD.format(file=file, imports="") + body


def texts(inputs: TextInputs, file: str) -> str:
    """Of a text file: which characters may follow it."""
    return _HEAD.format(file=file, imports="") + _TEXTS.format()


def tables(inputs: TableInputs, file: str) -> str:
    """Of a csv file."""
    head = _HEAD.format(file=file, imports="import csv\n")
    return head + _TABLES.format() + (_CLASSES if inputs.classes else _NUMBERS)
