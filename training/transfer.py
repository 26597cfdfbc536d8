"""Trainings that begin with what another one has learned: those tensors of its network that mean the same in theirs.

The files are safetensors; beside the tensors they hold what the modules say of themselves
(`nas_core.traits.HasSignature`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from nas_core.errors import VerificationError
from nas_core.traits import HasSignature

if TYPE_CHECKING:
    from torch import nn

BEGINS_WITH = "transfer.safetensors"
"""In the folder of a training: what it begins with."""
LEAVES = "weights.safetensors"
"""In the folder of a training: what it has learned."""
SIGNATURES = "signatures"


def write(path: Path, network: nn.Module) -> None:
    """The tensors of a network, with the signatures of its modules."""
    import safetensors.torch

    from nas_core.files import write_atomically
    from training.checkpoint import storable

    said = {SIGNATURES: json.dumps(_signatures(network))}
    write_atomically(path, safetensors.torch.save(storable(network.state_dict()), said))


def bring(source: Path, target: Path) -> None:
    """Copy such a file, where there is one and it has not been copied yet."""
    from nas_core.files import write_atomically

    if source.is_file() and not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, source.read_bytes())


def take(path: Path, network: nn.Module) -> float:
    """Copy the tensors of a file that mean the same in the network into it; the share of its values that they are.

    A tensor does that where name and shape are the same, and what all modules that hold it say of themselves: nothing,
    or equal signatures. Raises VerificationError for a damaged file.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    own, mine = network.state_dict(), _signatures(network)
    copied = 0
    try:
        with safe_open(path, framework="pt") as file, torch.no_grad():
            theirs = json.loads((file.metadata() or {}).get(SIGNATURES, "{}"))
            for name in file.keys():  # noqa: SIM118  (it is no mapping)
                if name not in own or not _same(name, mine, theirs):
                    continue
                if tuple(file.get_slice(name).get_shape()) == tuple(own[name].shape):
                    own[name].copy_(file.get_tensor(name))
                    copied += own[name].numel()
    except (SafetensorError, ValueError) as error:
        raise VerificationError(f"'{path.name}', which a training begins with, is damaged: {error}") from error
    return copied / max(sum(tensor.numel() for tensor in own.values()), 1)


def _signatures(network: nn.Module) -> dict[str, str | None]:
    """What modules say of themselves, by their names; None: their weights are never taken."""
    said = {name: one.signature() for name, one in network.named_modules() if isinstance(one, HasSignature)}
    return {name: None if signature is None else repr(signature) for name, signature in said.items()}


def _same(tensor: str, mine: dict[str, str | None], theirs: dict[str, str | None]) -> bool:
    parts = tensor.split(".")
    holders = (".".join(parts[:length]) for length in range(len(parts)))
    return all(mine.get(name) == theirs.get(name) is not None for name in holders if name in mine or name in theirs)
