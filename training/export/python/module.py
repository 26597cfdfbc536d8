"""The file: what the network is, its classes, how its inputs are made, how its weights are read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from typing import Any

import torch
from torch import nn

from nas_core.task import Task
from training.export.python.blocks import ROOT, Blocks
from training.export.python.layout import docstring, statement
from training.export.python.methods import free_names
from training.export.python.terms import literal
from training.inputs import Inputs
from training.tasks import find

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
    """What the file says of itself: a title, paragraphs, the names of its module and of its weights, its inputs."""

    title: str
    paragraphs: tuple[str, ...]
    module: str
    weights: str
    task: Task
    inputs: Inputs | None


@dataclass(frozen=True)
class Source:
    """A file of source, and the distributions that have to be installed for it; `alone`: it needs nothing of ours."""

    text: str
    needs: tuple[str, ...]
    alone: bool = True


def network_source(network: nn.Module, subject: Subject, own: Callable[[Any], bool]) -> Source:
    """The network as a file of its own. `own` says which classes and functions are copied rather than imported.

    Raises Unwritable where a part of the network cannot be written.
    """
    blocks = Blocks(network, own)
    code = [*blocks.library.sources.values(), *blocks.classes.values(), *rest(network, subject, ROOT)]
    return Source(*assembled(subject, code, blocks.library.imports))


def rest(network: nn.Module, subject: Subject, root: str) -> list[str]:
    """What follows the network, which `root()` makes: loading, inputs, the reader of its weights."""
    load = f'''def load(weights: str | Path = Path(__file__).with_name({literal(subject.weights)})) -> nn.Module:
    """The trained network, in evaluation mode."""
    network = {root}()
    network.load_state_dict(read_safetensors(weights))
{_tied(network)}    return network.eval()'''
    return [load, *_functions(subject.inputs).values(), _read(network)]


def _tied(network: nn.Module) -> str:
    """Lines of `load` that make one parameter of those that are one in the network, which its classes have at each
    place."""
    places: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    shared = [tuple(names) for names in places.values() if len(names) > 1]
    if not shared:
        return ""
    rows = "\n".join(line for names in shared for line in statement(f"{literal(names)},", " " * 8))
    return f"""    for first, *others in (  # one parameter each, which all of these places share
{rows}
    ):
        for name in others:
            place, _, last = name.rpartition(".")
            setattr(network.get_submodule(place), last, network.get_parameter(first))
"""


def assembled(
    subject: Subject,
    code: Sequence[str],
    imports: Mapping[str, str],
    why: Sequence[str] = (),
    packages: Set[str] = frozenset(),
) -> tuple[str, tuple[str, ...]]:
    """The text of the file, and the distributions that it needs: what it is, imports, constants, code.

    `packages` are needed beside those that it imports itself.
    """
    code = [*_facts(subject.inputs), *code]
    constants = [text for text in code if not text.startswith(("class ", "def ", "@"))]
    blocks = [text for text in code if text not in constants]
    body = "\n\n\n".join((["\n".join(constants)] if constants else []) + blocks)
    lines, roots = _imports(body, imports)
    needs = tuple(sorted({distribution(root) for root in roots | packages}))
    about = (subject.title, *subject.paragraphs, *why, _usage(subject), f"Needs {', '.join(needs)}.")
    gap = [""] if constants else ["", ""]
    head = [*docstring("\n\n".join(about)), "", "from __future__ import annotations", ""]
    return "\n".join([*head, *lines, *gap, body, ""]), needs


def _usage(subject: Subject) -> str:
    inputs = subject.inputs
    first = next(iter(_functions(inputs)), "")
    picture = first == "preprocess"
    classes = ["CLASSES"] if inputs is not None and inputs.outputs else []
    names = ["load"] if inputs is None else [*classes, "load", first]
    given = "inputs" if inputs is None else f"{first}({_given(subject, picture)})"
    part = "" if inputs is None else find(inputs.kind).answer(inputs)
    given = ", ".join([given, *(each.name for each in subject.task.inputs[1:])])
    axis, place = (1, "") if subject.task.positions is None else (2, ", -1")
    lines = [
        *(["from PIL import Image"] if picture else []),
        f"from {subject.module} import {', '.join(names)}",
        f"network = load()  # from {subject.weights} beside this file",
        f"probabilities = network({given}){part}.softmax({axis})"
        if inputs is None or classes
        else f"answer = network({given})",
        *([f"print(CLASSES[probabilities[0{place}].argmax()])"] if classes else []),
    ]
    return "\n".join(f"    {line}" for line in lines)


def _given(subject: Subject, picture: bool) -> str:
    if picture:
        return 'Image.open("FILE")'
    return find(subject.task.kind).inputs_word


def _facts(inputs: Inputs | None) -> list[str]:
    if inputs is None:
        return []
    classes = {"CLASSES": inputs.outputs} if inputs.outputs else {}
    values: dict[str, Any] = {**classes, **find(inputs.kind).facts(inputs)}
    return ["\n".join(statement(f"{name} = {literal(value)}")) for name, value in values.items()]


def _functions(inputs: Inputs | None) -> Mapping[str, str]:
    """What makes the network's first input, as source by name."""
    return {} if inputs is None else find(inputs.kind).python(inputs)


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


def _imports(body: str, known: Mapping[str, str]) -> tuple[list[str], set[str]]:
    """The import statements of the source, sorted as linters want them, and the packages beside Python's own."""
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
    return [*standard, *([""] if standard and others else []), *others], roots


def _member(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest."""
    bare = name.split(" as ")[0]
    return (0 if bare.isupper() and len(bare) > 1 else 1 if bare[:1].isupper() else 2), bare


def distribution(root: str) -> str:
    """The distribution that a package is installed from."""
    return root if root == "torch" else _distributions().get(root, [root])[0]


@cache
def _distributions() -> Mapping[str, Sequence[str]]:
    """Those that hold a package, by its name: half a second of reading lists of files."""
    return packages_distributions()
