"""The state of Adam as plain arrays by name, so that a training that is kept goes on bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[numpy.float32]]

MOMENTS = ("exp_avg", "exp_avg_sq")


def moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, Arrays]:
    """Both moments of the parameters that have taken a step."""
    stepped = {
        name: optimizer.state[parameter] for name, parameter in parameters.items() if parameter in optimizer.state
    }
    return {moment: {name: state[moment].numpy().copy() for name, state in stepped.items()} for moment in MOMENTS}


def restore(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, torch.nn.Parameter],
    state: Mapping[str, Any],
    step: int,
) -> None:
    """Take what `moments` gave after so many steps."""
    optimizer.state.clear()
    for name in state[MOMENTS[0]]:
        found = {moment: torch.tensor(state[moment][name]) for moment in MOMENTS}
        optimizer.state[parameters[name]] = {"step": torch.tensor(float(step)), **found}
