"""The JSON that describes a network, and the network built from it: enough, with its weights, to run it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

import safetensors
import safetensors.torch
from torch import nn

import search_spaces
from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.config import SizeConfig, validate
from nas_core.errors import NotFoundError, UsageError
from nas_core.model import UNCHANGED, Changes
from nas_core.parts import task_network
from nas_core.plain import from_json
from nas_core.public import public
from nas_core.relax import FixedPicker, Style
from nas_core.space import HasNotation, SearchSpace, builds
from nas_core.task import Task
from nas_core.user_files import digest_of, files_of
from search_spaces.own_network import is_space
from search_spaces.supernet.supernet import relaxable
from training import spaces
from training.changes import apply
from training.inputs import Inputs

VERSION = 1
FIELDS: Mapping[str, type | UnionType] = {
    "space": str,
    "space_version": int,
    "space_file": str | None,
    "space_hash": str | None,
    "key": str,
    "architecture": dict,
    "notation": str | None,
    "size": dict,
    "task": dict,
}
"""What every description has, and of which type."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A space as it was referred to; `file` is the user's Python file that holds it, if it is one. Its arguments may
    name further ones (operators, for example)."""

    space: SearchSpace
    reference: str
    file: Path | None
    file_hash: str | None

    @property
    def target(self) -> str:
        return refs.split(self.reference, spaces.KIND)[0]

    @property
    def arguments(self) -> Mapping[str, Any]:
        return refs.split(self.reference, spaces.KIND)[1]

    def copies(self, name: str) -> dict[str, bytes]:
        """What must lie in one folder for the space to be loaded there: the user's file, called `name`, those that its
        arguments name, and the modules beside each that it imports. Raises UsageError where two have one name."""
        own = [] if self.file is None else [(name, self.file)]
        found: dict[str, bytes] = {}
        for copy, file in (*own, *((file.name, file) for file in refs.files_in(self.arguments))):
            beside = {other.relative_to(file.parent).as_posix(): other.read_bytes() for other in files_of(file)}
            for place, content in {copy: file.read_bytes(), **beside}.items():
                if found.setdefault(place, content) != content:
                    raise UsageError(f"{spaces.KIND} '{self.reference}' needs two files called '{place}'; rename one")
        return found


def origin(reference: str) -> Origin:
    """The space behind a reference. Raises UsageError or NotFoundError where there is none."""
    loaded = spaces.load(reference)
    path = refs.split(reference, spaces.KIND)[0].rpartition(":")[0]
    return Origin(loaded.object, reference, Path(path) if path.endswith(".py") else None, loaded.file_hash)


def describe(
    source: Origin,
    file: str | None,
    arch: Architecture,
    size: Mapping[str, Any],
    task: Task,
    style: Style = Style.STANDALONE,
    changes: Changes = UNCHANGED,
    inputs: Inputs | None = None,
    data: Mapping[str, Any] | None = None,
    part: str | None = None,
) -> dict[str, Any]:
    """The architecture JSON as plain data; `file` is the name of the copy of the user's file beside it, `style` that
    of the network's layers, `changes` in what it differs from the network that the space builds, `inputs` what is to be
    done before the network, `data` what it was trained on (`reference`, `split`, `split_hash`), `part` which part of
    the network of `task` it is (`nas_core.parts.task_network`).

    Raises UsageError for a `size` that the space does not have.
    """
    notation = source.space.to_text(arch) if isinstance(source.space, HasNotation) else None
    return {
        "version": VERSION,
        "space": public(source.reference),
        "space_version": source.space.version,
        "space_file": file,
        "space_hash": source.file_hash,
        "key": arch.key,
        "architecture": {"space": arch.space, "values": dict(arch.values)},
        "notation": notation,
        "size": validate(source.space.Size, size, "size").model_dump(mode="json"),
        "task": task.model_dump(mode="json"),
        **({} if style == Style.STANDALONE else {"style": style.value}),
        **({"changes": changes.model_dump(mode="json")} if changes else {}),
        **({} if part is None else {"part": part}),
        **({} if data is None else {"data": public(data)}),
        **({} if inputs is None else {"inputs": inputs.model_dump(mode="json"), "normalisation": "outside"}),
    }


def load_network(description: str | Path, weights: str | Path | None = None) -> nn.Module:
    """The network that an exported `.json` describes, in eval mode on the CPU; untrained without `weights`.

    A space of the user's own is loaded from the copy of its Python file beside the description, so the
    files run that code: load only what you trust.

    Raises NotFoundError for a missing file, UsageError for a description that is damaged, newer, or that the
    space no longer builds, or for weights that do not belong to it.
    """
    network = located(Path(description)).network
    if weights is not None:
        _fill(network, Path(weights))
    return network


@dataclass(frozen=True, slots=True)
class Located:
    """What an exported `.json` describes: the reference of its space from here, and the untrained network."""

    description: Mapping[str, Any]
    reference: str
    arch: Architecture
    changes: Changes
    network: nn.Module


def located(description: Path) -> Located:
    """Raises as `load_network`."""
    data = _read(description)
    reference = _reference(data, description)
    space: SearchSpace = spaces.load(reference).object
    if not builds(space, data["space_version"]):
        raise UsageError(
            f"'{description}' was written for version {data['space_version']} of '{data['space']}', this is "
            f"{space.version}"
        )
    try:
        arch = Architecture(data["architecture"]["space"], data["architecture"]["values"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"'{description}' holds no architecture: {error}") from error
    if arch.key != data["key"]:
        raise UsageError(f"'{description}' is damaged: its architecture has key {arch.key}, not {data['key']}")
    if reason := space.illegal(arch):
        raise UsageError(f"'{description}': the space '{data['space']}' does not hold this architecture: {reason}")
    size, task = validate(space.Size, data["size"], "size"), validate(Task, data["task"], "task")
    network = _build(space, arch, task, size, Style(data.get("style", Style.STANDALONE))).eval()
    changes = UNCHANGED
    if "changes" in data:
        changes = validate(Changes, data["changes"], f"'{description}': changes")
        apply(network, changes, f"the changes in '{description}'")
    if "part" in data:
        network = task_network(space, network, arch, task, str(data["part"]))
    return Located(data, reference, arch, changes, network)


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise NotFoundError(f"there is no file '{path}'")
    try:
        data = from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"'{path}' is not JSON that can be used: {error}") from error
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise UsageError(f"'{path}' is no architecture description of version {VERSION}; export it again")
    if missing := [field for field in FIELDS if field not in data]:
        raise UsageError(f"'{path}' is damaged: it lacks {', '.join(missing)}")
    wrong = [field for field, kind in FIELDS.items() if not isinstance(data[field], kind)]
    if wrong:
        raise UsageError(f"'{path}' is damaged: its {wrong[0]} is {data[wrong[0]]!r}")
    try:
        Style(data.get("style", Style.STANDALONE))
    except ValueError:
        raise UsageError(
            f"'{path}' is damaged: its style is '{data['style']}', not one of {', '.join(Style)}"
        ) from None
    return data


def _reference(data: Mapping[str, Any], path: Path) -> str:
    """The space of a description, with the copies of the user's files beside it."""
    target, arguments = refs.split(data["space"], spaces.KIND)
    arguments = refs.moved_to(path.parent, arguments)
    files = refs.files_in(arguments)
    own = None
    if data["space_file"] is not None:
        if Path(data["space_file"]).name != data["space_file"]:
            raise UsageError(f"'{path}' names a file that is not beside it: '{data['space_file']}'; export it again")
        own = path.parent / data["space_file"]
        target = f"{own}:{target.rpartition(':')[2]}"
    elif not is_space(refs.find(target, search_spaces.BUILTIN, search_spaces.GROUP, spaces.KIND)):
        # Loading calls what is named, with arguments out of this file.
        raise UsageError(f"'{path}' names '{target}', which is no search space; load only what you trust")
    named = files if own is None else [own, *files]
    if named and named[0].is_file():
        now = refs.digest_with(None if own is None else digest_of(own), files)
        if now != data["space_hash"]:
            beside = ", ".join(f"'{other.name}'" for file in named for other in files_of(file))
            what = " or ".join(f"'{file}'" for file in named)
            what = f"{what} or one of {beside} beside it" if beside else what
            raise UsageError(f"{what} was changed since '{path}' was written; put the original back")
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return f"{target}({given})" if given else target


def _build(space: SearchSpace, arch: Architecture, task: Task, size: SizeConfig, style: Style) -> nn.Module:
    if style == Style.STANDALONE:
        return space.build(arch, task, size)
    return relaxable(space).network(FixedPicker(space.assignment(arch), style), task, size)


def _fill(network: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise NotFoundError(f"there is no file '{path}'")
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise UsageError(f"'{path}' does not hold the weights of this network: {error}") from error
