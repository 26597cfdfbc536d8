"""Export: a trained network as files that run without this program, each verified before it is kept.

- `onnx`: ONNX by the dynamo exporter, weights inside, run by onnxruntime.
- `pt2`: a `torch.export` program, run by `torch.export.load(...).module()`. The archive that torch 2.13
  writes for it holds JSON and raw tensors; nothing in it is pickled, and loading unpickles nothing.
- `python`: a readable file that needs PyTorch alone (PyTorch Geometric for graphs), beside the weights.
- `int8` and `fp16`: ONNX programs with smaller numbers, as a compression has left them (`training.export.compared`).
- `safetensors` with `json`: weights, and the architecture that rebuilds the network (`load_network`). A
  space in a user's own file travels along as `<stem>.space.py`, the modules beside it that it imports by their names.

The batch stays free; for graphs the numbers of nodes and edges do. All nine operators of NAS-Bench-Graph
export in all four formats (torch 2.13, PyTorch Geometric 2.8).
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas_core import distribution
from nas_core.architecture import Architecture
from nas_core.config import validate
from nas_core.errors import MachineError, UsageError
from nas_core.model import UNCHANGED, Changes
from nas_core.public import public
from nas_core.task import Task
from training.cost import params
from training.export import hub as hubs
from training.export import verify as verification
from training.export.aside import aside
from training.export.card import Card, model_card
from training.export.formats import EVERY, FORMATS, available, check_formats, signature_of
from training.export.normalise import normalised
from training.export.python.written import python_source
from training.export.rebuild import describe, load_network, origin
from training.export.write import onnx_bytes, pt2_bytes, safetensors_bytes, trace
from training.infer.model import properties
from training.inputs import Inputs
from training.inputs.samples import Proof

__all__ = ["FORMATS", "Card", "available", "check_formats", "export", "load_network", "model_card"]


def export(
    model: nn.Module,
    task: Task,
    example: tuple[Tensor, ...],
    arch: Architecture,
    card: Mapping[str, Any],
    folder: Path,
    stem: str,
    formats: Sequence[str],
    verify: bool = True,
    *,
    changes: Changes = UNCHANGED,
    inputs: Inputs | None = None,
    raw: bool = False,
    proofs: Sequence[Proof] = (),
    quantized: Mapping[str, bytes] | None = None,
    data: Mapping[str, Any] | None = None,
    part: str | None = None,
    whole: Task | None = None,
    hub: bool = False,
) -> list[Path]:
    """Write `folder/stem.*` in the given formats, with a model card; returns the paths, the card's last.

    `model` is the trained network; a copy of it in eval mode, float32, on the CPU is exported. `example` is
    `(images [batch, *input_shape],)` or `(x [nodes, features], edge_index [2, edges])`. `card` has the fields
    of `Card`. Weights (`safetensors`) bring their `json`. All files or none: they are written aside, synced,
    verified, and only then renamed into place, so an earlier export of that name outlives a failed one.

    `changes` are those of a network that is not as its space builds it; the JSON holds them.

    With `inputs` the example is as `training.infer` reads it, onnx and pt2 normalise inside unless `raw`, and every
    file says what its inputs are. `proofs` are files that each of them must answer as the network in training does.
    `quantized` are programs by their formats: they are written as they are. `data` is what the description says of
    those that it was trained on. A network that is a `part` (`nas_core.parts.task_network`) learned the task `whole`.
    With `hub` the card is the `README.md` of a folder for a model hub (`training.export.hub`), not `stem.md`.

    Raises UsageError for a format, card, architecture or network that does not fit; MachineError where a
    package is missing or the folder cannot be written; VerificationError where a file, loaded in a fresh
    process, does not answer as the network does (within 1e-4 of the largest answer).
    """
    programs = quantized or {}
    names = check_formats(formats, task, tuple(programs))
    given = validate(Card, card, "model card")
    if not stem or Path(stem).name != stem:
        raise UsageError(f"'{stem}' is no file name to export to")
    source = origin(given.space)
    if reason := source.space.illegal(arch):
        raise UsageError(f"the space '{given.space}' does not hold this architecture: {reason}")
    copied = f"{stem}.space.py" if source.file else None
    description = describe(
        *(source, copied, arch, given.size, whole or task), changes=changes, inputs=inputs, data=data, part=part
    )
    network = copy.deepcopy(model).eval().float().cpu().to(memory_format=torch.contiguous_format)
    whole = normalised(network, inputs)
    example = tuple(tensor.detach().cpu() for tensor in example)
    expected = [*verification.cases(whole, task, example), *verification.proof_cases(network, proofs)]
    contents: dict[str, bytes] = {}
    if "onnx" in names or "pt2" in names:
        program, seen = (network, _seen(example, inputs)) if raw else (whole, example)
        contents |= _programs(program, task, seen, properties(inputs, raw), stem, names)
    contents |= {EVERY[name].file(stem): content for name, content in programs.items() if name in names}
    if "safetensors" in names:
        contents[f"{stem}.safetensors"] = safetensors_bytes(network)
    if "json" in names:
        contents[f"{stem}.json"] = json.dumps(description, indent=2).encode()
    if "json" in names:
        copies = source.copies(f"{stem}.space.py")
        _spare_others(folder, {name: content for name, content in copies.items() if name != f"{stem}.space.py"})
        contents |= copies
    written = None
    if "python" in names:
        written = python_source(network, task, inputs, source, given, description, stem)
        contents[FORMATS["python"].file(stem)] = written.text.encode()
    about = {
        "inputs": None if inputs is None else inputs.model_dump(),
        "raw": raw,
        "python_needs": () if written is None else written.needs,
        "task": task.model_dump(mode="json"),
    }
    said = _completed(given, description, network, contents, about)
    beside, last = {}, (f"{stem}.md", model_card(said))
    if hub:
        beside, last = {hubs.ATTRIBUTES: hubs.attributes().encode()}, (hubs.CARD, hubs.head(said) + model_card(said))
    contents |= beside | {last[0]: last[1].encode()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with aside(folder, stem) as partial:
            for name, content in contents.items():
                _write(partial / name, content)
            if verify:
                verification.verify(partial, stem, names, expected, network, alone=written is None or written.alone)
            for name in contents:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(partial / name, folder / name)
            _sync(folder)
    except OSError as error:
        raise MachineError(f"cannot write to '{folder}': {error.strerror or error}") from error
    return [folder / name for name in contents]


def _seen(example: tuple[Tensor, ...], inputs: Inputs | None) -> tuple[Tensor, ...]:
    """The example as the network itself sees it."""
    if inputs is None:
        return example
    return tuple(map(torch.from_numpy, inputs.normalised(tuple(tensor.numpy() for tensor in example))))


def _programs(
    network: nn.Module,
    task: Task,
    example: tuple[Tensor, ...],
    said: Mapping[str, str],
    stem: str,
    names: Sequence[str],
) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    signature = signature_of(task)
    program = trace(network, example, signature)
    if "onnx" in names:
        contents[f"{stem}.onnx"] = onnx_bytes(program, signature, said)
    if "pt2" in names:
        contents[f"{stem}.pt2"] = pt2_bytes(program, said)
    return contents


def _completed(
    given: Card,
    description: Mapping[str, Any],
    network: nn.Module,
    contents: Mapping[str, bytes],
    about: Mapping[str, Any],
) -> Card:
    facts = {
        **about,
        **{name: public(getattr(given, name)) for name in ("space", "data", "strategy", "recipe", "command")},
        "params": params(network),
        "architecture": description["architecture"]["values"],
        "key": description["key"],
        "notation": description["notation"],
        "size": description["size"],
        "software": f"nas {distribution.version()}, torch {torch.__version__}",
        "files": [
            {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in contents.items()
        ],
    }
    return validate(Card, given.model_dump() | facts, "model card")


def _spare_others(folder: Path, modules: Mapping[str, bytes]) -> None:
    """Raises UsageError where a module would take the place of another one of its name, of an earlier export."""
    for name, content in modules.items():
        if (folder / name).is_file() and (folder / name).read_bytes() != content:
            raise UsageError(
                f"'{folder / name}' is there and differs from the one beside the space; choose another --out"
            )


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the renames survive a loss of power; not every system can open a folder."""
    with contextlib.suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
