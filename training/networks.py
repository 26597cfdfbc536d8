"""The network of an architecture: untrained, or with what a run has left of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import NotFoundError, VerificationError
from nas_core.model import UNCHANGED, Changes
from nas_core.seeds import derive
from nas_core.space import SearchSpace
from nas_core.task import Task

if TYPE_CHECKING:
    from torch import nn


def build(space: SearchSpace, arch: Architecture, task: Task, size: SizeConfig, seed: int) -> nn.Module:
    """The untrained network on the CPU, with weights that depend on `seed` alone; torch's generator is left alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "weights"))
        model = space.build(arch, task, size)
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"build of space '{space.name}' returned {type(model).__name__}, not a torch.nn.Module")
    return model


def load_trained(
    space: SearchSpace, arch: Architecture, task: Task, size: SizeConfig, path: Path, changes: Changes = UNCHANGED
) -> nn.Module:
    """The network of `arch`, with `changes`, and the weights that a run left at `path`, on the CPU, in evaluation mode.

    Raises NotFoundError for a missing file, VerificationError for one that is damaged or of another network.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    if not path.is_file():
        raise NotFoundError(f"there are no weights at '{path}'; train the architecture again with weights kept")
    model = build(space, arch, task, size, seed=0)
    if changes:
        from training.changes import apply

        apply(model, changes, f"the changes of '{path}'")
    try:
        model.load_state_dict(safetensors.torch.load(path.read_bytes()))
    except (RuntimeError, SafetensorError) as error:
        problem = str(error).strip().splitlines()[0]
        raise VerificationError(f"'{path}' does not hold the weights of this network: {problem}") from error
    return model.eval()
