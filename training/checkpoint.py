"""Checkpoints: tensors in safetensors, everything else in JSON, checksummed, two generations, nothing by pickle."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.optim import Optimizer

from nas_core.errors import MachineError, Notice, VerificationError
from nas_core.files import write_atomically

FORMAT = 1
GENERATIONS = 2
_TENSOR = "__tensor__"


class CheckpointError(VerificationError):
    """A checkpoint that is not for this program, or not of this training."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`state` is plain JSON; `tensors` are on the CPU after `load`. `epoch` counts finished epochs."""

    epoch: int
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a new generation to `folder` and keep the one before it.

    The JSON file is written last, so that a generation without one was interrupted and does not count.
    Raises MachineError when the disk is full or may not be written to.
    """
    tensors = safetensors.torch.save(storable(checkpoint.tensors))
    stem = folder / f"checkpoint-{checkpoint.epoch:06d}"
    body = {
        "format": FORMAT,
        "epoch": checkpoint.epoch,
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        "state": checkpoint.state,
    }
    document = {"sha256": _digest(body), **body}
    write_atomically(stem.with_suffix(".safetensors"), tensors)
    write_atomically(stem.with_suffix(".json"), json.dumps(document, allow_nan=False).encode())
    kept = {path.stem for path in sorted(folder.glob("checkpoint-*.json"))[-GENERATIONS:]}
    for path in folder.glob("checkpoint-*"):
        if path.stem not in kept:
            path.unlink(missing_ok=True)


def load(folder: Path) -> Checkpoint | None:
    """The newest generation that is intact; None where there is none: the training begins again.

    What is damaged is said (`Notice`), and removed where nothing else is left.
    Raises CheckpointError for one of a newer format, MachineError for one that cannot be read.
    """
    found = _newest(folder)
    return None if found is None else found[1]


def adopt(source: Path, target: Path) -> bool:
    """Copy the newest intact generation of `source` to `target`, where the training goes on; whether one is there then.

    What `target` holds already stays and counts, where it is intact: a copy made before, or the training that has
    gone on since. The JSON file is copied last, so that an interrupted copy does not count. The same holds for each
    folder in it: a trial with several trainings has one for each.
    Raises MachineError when the disk is full or may not be written to, and as `load`.
    """
    inside = [adopt(folder, target / folder.name) for folder in source.glob("*") if folder.is_dir()]
    if _newest(target) is not None:
        return True
    found = _newest(source)
    if found is None:
        return any(inside)
    path, _ = found
    for suffix in (".safetensors", ".json"):
        write_atomically(target / f"{path.stem}{suffix}", path.with_suffix(suffix).read_bytes())
    return True


def _newest(folder: Path) -> tuple[Path, Checkpoint] | None:
    """The newest intact generation and its JSON file. Says what is damaged."""
    damaged: list[str] = []
    for path in sorted(folder.glob("checkpoint-*.json"), reverse=True):
        try:
            found = _read(path)
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            what = "its tensors are gone" if isinstance(error, FileNotFoundError) else error
            damaged.append(f"{path.stem} in '{folder}' is damaged ({what})")
            continue
        except OSError as error:
            raise MachineError(f"cannot read the checkpoint '{path}': {error.strerror or error}") from error
        if damaged:
            warnings.warn(Notice(f"{'; '.join(damaged)}; going on from epoch {found.epoch}"), stacklevel=3)
        return path, found
    if damaged:
        warnings.warn(Notice(f"{'; '.join(damaged)}; none is left, so what it was of begins again"), stacklevel=3)
        for path in folder.glob("checkpoint-*"):  # beside which new ones would be the older ones
            path.unlink(missing_ok=True)
    return None


def _read(path: Path) -> Checkpoint:
    """One generation; ValueError says what is wrong with it."""
    document = json.loads(path.read_bytes())
    if not isinstance(document, dict):
        raise ValueError("it holds no JSON object")
    recorded = document.pop("sha256")
    if recorded != _digest(document):
        raise ValueError("its checksum does not match")
    if document["format"] > FORMAT:
        raise CheckpointError(
            f"the checkpoint '{path}' is of format {document['format']}, newer than this program's {FORMAT}"
        )
    tensors = path.with_suffix(".safetensors").read_bytes()
    if hashlib.sha256(tensors).hexdigest() != document["tensors_sha256"]:
        raise ValueError("the checksum of its tensors does not match")
    return Checkpoint(document["epoch"], safetensors.torch.load(tensors), document["state"])


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, allow_nan=False).encode()).hexdigest()


def storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU in the default layout: safetensors knows neither channels_last nor shared memory."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format).contiguous()
        for name, tensor in tensors.items()
    }


def pack(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Nested plain data and tensors as tensors by name and JSON that names them. Raises TypeError for anything else."""
    tensors: dict[str, Tensor] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            name = str(len(tensors))
            tensors[name] = value
            return {_TENSOR: name}
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                raise TypeError(f"the keys of a state are text, got {list(value)[:3]}")
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if value is None or isinstance(value, str | int | float | bool):
            return value
        raise TypeError(f"a state holds plain data and tensors, got {type(value).__name__}")

    text: dict[str, Any] = plain(state)
    return tensors, text


def unpack(tensors: Mapping[str, Tensor], text: Mapping[str, Any]) -> dict[str, Any]:
    """What `pack` was given, with lists for tuples."""

    def rich(value: Any) -> Any:
        if isinstance(value, list):
            return [rich(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        if value.keys() == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: rich(item) for key, item in value.items()}

    state: dict[str, Any] = rich(text)
    return state


def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of an optimiser as tensors, named `parameter index/name`, and plain JSON for the rest."""
    whole = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, state in whole["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{name}"] = value
            else:
                scalars.setdefault(str(index), {})[name] = value
    return tensors, {"scalars": scalars, "groups": whole["param_groups"]}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Put back what `optimizer_state` gave; the optimiser must have been made in the same way."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in plain["scalars"].items()}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            # Fused optimisers walk parameter and state by address: both need the same layout.
            tensor = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": plain["groups"]})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """A safetensors file with words beside the tensors, complete or not there. Raises MachineError as
    `write_atomically`."""
    write_atomically(path, safetensors.torch.save(storable(tensors), None if about is None else dict(about)))
