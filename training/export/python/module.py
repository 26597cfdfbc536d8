"""The file: what the network is, its classes, how its inputs are made, how its weights are read."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from typing import Any

import torch
from torch import nn

from nas_core.task import NODE_CLASSIFICATION, Task
from training.export.python.blocks import ROOT, Blocks
from training.export.python.layout import docstring, statement
from training.export.python.methods import free_names
from training.export.python.terms import literal
from training.inputs import GraphInputs, ImageInputs, Inputs

_STANDARD = {
    "json": "import json",
    "torch": "import torch",
    "Path": "from pathlib import Path",
    "OrderedDict": "from collections import OrderedDict",
    "Tensor": "from torch import Tensor",
    "nn": "from torch import nn",
    "functional": "from torch.nn import functional",
}

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Subject:
    """What the file says of itself: a title, paragraphs, and the names of its module and of its weights."""

    title: str
    paragraphs: tuple[str, ...]
    module: str
    weights: str


@dataclass(frozen=True)
class Source:
    """A file of source, and the distributions that have to be installed for it."""

    text: str
    needs: tuple[str, ...]


def module_name(stem: str) -> str:
    """A name that Python can import: `digits-20` is `digits_20`."""
    name = re.sub(r"\W", "_", stem, flags=re.ASCII)
    return name if name.isidentifier() else f"model_{name}"


def network_source(
    network: nn.Module, task: Task, inputs: Inputs | None, subject: Subject, own: Callable[[Any], bool]
) -> Source:
    """The network as a file of its own. `own` says which classes and functions are copied rather than imported.

    Raises Unwritable where a part of the network cannot be written.
    """
    blocks = Blocks(network, own)
    code = [
        *_facts(inputs),
        *blocks.library.sources.values(),
        *blocks.classes.values(),
        _load(subject),
        *_preprocess(inputs),
        _read(network),
    ]
    body = "\n\n\n".join(_spaced(code))
    lines, needs = _imports(body, blocks.library.imports)
    head = docstring("\n\n".join([subject.title, *subject.paragraphs, *_usage(task, inputs, subject), _needs(needs)]))
    gap = ["", ""] if body.startswith(("class ", "def ", "@")) else [""]
    return Source("\n".join([*head, "", "from __future__ import annotations", "", *lines, *gap, body, ""]), needs)


def _spaced(code: Sequence[str]) -> list[str]:
    """Constants stand together."""
    constants = [text for text in code if not text.startswith(("class ", "def ", "@"))]
    rest = [text for text in code if text.startswith(("class ", "def ", "@"))]
    return ["\n".join(constants), *rest] if constants else rest


def _needs(needs: Sequence[str]) -> str:
    return f"Needs {' and '.join(needs)}."


def _usage(task: Task, inputs: Inputs | None, subject: Subject) -> list[str]:
    entry = "preprocess" if isinstance(inputs, ImageInputs) and inputs.mode else "normalise"
    names = ["load"] if inputs is None else ["CLASSES", "load", entry]
    lines = [
        f"from {subject.module} import {', '.join(names)}",
        f"network = load()  # from {subject.weights} beside this file",
    ]
    if isinstance(inputs, GraphInputs):
        lines.append("probabilities = network(normalise(features), edge_index).softmax(1)  # of every node")
    elif task.kind == NODE_CLASSIFICATION:
        lines.append("probabilities = network(features, edge_index).softmax(1)  # of every node")
    elif inputs is None or inputs.mode is None:
        given = "images" if inputs is None else "normalise(images)"
        lines.append(f"probabilities = network({given}).softmax(1)")
    else:
        lines.insert(0, "from PIL import Image")
        lines.append('probabilities = network(preprocess(Image.open("FILE"))).softmax(1)[0]')
        lines.append("print(CLASSES[probabilities.argmax()])")
    return ["\n".join(f"    {line}" for line in lines)]


def _facts(inputs: Inputs | None) -> list[str]:
    if inputs is None:
        return []
    values: dict[str, Any] = {"CLASSES": inputs.classes}
    if isinstance(inputs, ImageInputs):
        values |= {"MEAN": inputs.mean, "DEVIATION": inputs.deviation}
    elif inputs.feature_names:
        values["FEATURES"] = inputs.feature_names
    return ["\n".join(statement(f"{name} = {literal(value)}")) for name, value in values.items()]


def _load(subject: Subject) -> str:
    name = literal(subject.weights)
    return f'''def load(weights: str | Path = Path(__file__).with_name({name})) -> {ROOT}:
    """The trained network, in evaluation mode."""
    network = {ROOT}()
    network.load_state_dict(read_safetensors(weights))
    return network.eval()'''


def _read(network: nn.Module) -> str:
    kinds = sorted({tensor.dtype for tensor in network.state_dict().values()}, key=str)
    table = ", ".join(f"{literal(_DTYPES[kind])}: {kind}" for kind in kinds)
    return f'''def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name: eight bytes say how long the JSON that describes them is, then come their bytes."""
    content = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    described = json.loads(content[8:start])
    described.pop("__metadata__", None)
    kinds = {{{table}}}
    tensors = {{}}
    for name, entry in described.items():
        begin, end = entry["data_offsets"]
        values = torch.frombuffer(content[start + begin : start + end], dtype=kinds[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors'''


def _preprocess(inputs: Inputs | None) -> list[str]:
    if isinstance(inputs, ImageInputs):
        return _image(inputs)
    if isinstance(inputs, GraphInputs):
        return [_graph(inputs)]
    return []


def _image(inputs: ImageInputs) -> list[str]:
    shape = f"[batch, {inputs.channels}, {inputs.height}, {inputs.width}]"
    normalise = f'''def normalise(images: Tensor) -> Tensor:
    """Images `{shape}` of numbers from 0 (black) to 1 (white), as the network reads them."""
    mean, deviation = torch.tensor(MEAN), torch.tensor(DEVIATION)
    return (images - mean[:, None, None]) / deviation[:, None, None]'''
    if inputs.mode is None:
        return [normalise]
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
    return [preprocess, normalise]


def _graph(inputs: GraphInputs) -> str:
    rows = inputs.normalise == "rows"
    how = ": each row is divided by the sum of its absolute values" * rows
    sums = "features.abs().sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)"
    return f'''def normalise(features: Tensor) -> Tensor:
    """Features `[nodes, {inputs.features}]` as the network reads them{how}."""
    return features{f" / {sums}" * rows}'''


def _imports(body: str, known: Mapping[str, str]) -> tuple[list[str], tuple[str, ...]]:
    """The import statements of the source, sorted as linters want them, and the distributions that they come from."""
    table = {**_STANDARD, **known}
    names = {name for name in free_names(body) if name in table}
    whole: set[str] = set()
    parts: dict[str, set[str]] = {}
    for name in names:
        text = table[name]
        if text.startswith("import "):
            whole.add(text)
        else:
            module, _, imported = text.removeprefix("from ").partition(" import ")
            parts.setdefault(module, set()).add(imported)
    found = [(text.split()[1], 0, text) for text in whole]
    for module, members_of in parts.items():
        members = ", ".join(sorted(members_of, key=_member))
        found.append((module, 1, f"from {module} import {members}"))
    found.sort(key=lambda entry: (entry[1], entry[0].lower()))
    standard = [text for module, _, text in found if module.partition(".")[0] in sys.stdlib_module_names]
    others = [text for module, _, text in found if module.partition(".")[0] not in sys.stdlib_module_names]
    roots = {module.partition(".")[0] for module, _, _ in found} - set(sys.stdlib_module_names)
    return [*standard, *([""] if standard and others else []), *others], tuple(sorted(map(_distribution, roots)))


def _member(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest."""
    bare = name.split(" as ")[0]
    return (0 if bare.isupper() and len(bare) > 1 else 1 if bare[:1].isupper() else 2), bare


def _distribution(root: str) -> str:
    return root if root == "torch" else packages_distributions().get(root, [root])[0]
