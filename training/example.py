"""Example inputs of the user's for a network: several of them, or shapes that the data do not give."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from nas_core import refs
from nas_core.errors import UsageError
from nas_core.task import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

KIND = "function of --inputs"


def hash_of(reference: str) -> str | None:
    """That of the user's file. Raises as `example`."""
    return refs.load_function(reference, {}, "", KIND).file_hash


def example(reference: str, task: Task, network: nn.Module) -> tuple[Tensor, ...]:
    """What the function `FILE.py:FUNCTION` gives: a tensor, or several, with which the network is called. It is given
    the task where its signature names it.

    Raises UsageError for what is none, or where the network does not run on it; NotFoundError for a missing file.
    """
    import copy

    import torch

    function = refs.load_function(reference, {}, "", KIND).object
    try:
        named = "task" in inspect.signature(function).parameters
        given = function(task=task) if named else function()
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise UsageError(f"--inputs '{reference}': {type(error).__name__}: {error}") from error
    found = given if isinstance(given, tuple | list) else (given,)
    wrong = next((one for one in found if not isinstance(one, torch.Tensor)), None)
    if not found or wrong is not None:
        raise UsageError(
            f"--inputs '{reference}' gives {type(given if wrong is None else wrong).__name__}; return tensors"
        )
    inputs = tuple(one.cpu() for one in found)
    try:
        with torch.no_grad():
            copy.deepcopy(network).cpu().eval()(*inputs)
    except Exception as error:  # whatever the network raises
        said = next(iter(str(error).strip().splitlines()), "")
        raise UsageError(
            f"--inputs '{reference}': the network does not run on them: {type(error).__name__}: {said}"
        ) from error
    return inputs
