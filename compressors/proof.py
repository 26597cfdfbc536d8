"""The proof that units that have gone were nothing but what they are said to be."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from compressors.comparison import difference, randomise
from compressors.compressor import Check
from compressors.groups.groups import Removal
from compressors.groups.removal import masked, remove
from compressors.groups.trace import trace
from nas_core.errors import VerificationError

SAME = 1e-5  # relative: what is left of the order in which a sum over fewer units is computed
STATISTICS = frozenset({"running_mean", "running_var", "num_batches_tracked"})


def prove(
    before: nn.Module,
    after: nn.Module,
    removed: Removal,
    inputs: Sequence[tuple[Tensor, ...]],
    *,
    ignored: Collection[str] = (),
    recalibrated: bool = False,
    seed: int = 0,
) -> tuple[Check, ...]:
    """What was compared of `after`, which should be `before` without the units `removed`: its tensors are those of
    `before`; with other scales, shifts and statistics in every normalisation, so that zeros hide nothing, removing the
    units gives what setting them to 0 gives, on each of `inputs` (where all of them are exact); and gradients arrive.

    `recalibrated`: statistics of batch normalisations are its own. The networks are on the CPU and stay as they are.

    Raises VerificationError where tensors have other names or shapes, or what is left cannot be run.
    """
    groups = trace(before, inputs[0], ignored)
    exact = all(group.exact for group in groups.groups if removed.get(group.name))
    before = copy.deepcopy(before).eval()
    small = copy.deepcopy(before)
    remove(small, groups, removed)
    checks = [Check("tensors", _apart(small, after, recalibrated), 0.0)]
    randomise(before, seed)
    twin, small = masked(before, groups, removed).eval(), copy.deepcopy(before)
    remove(small, groups, removed)
    try:
        with torch.no_grad():
            for one in inputs if exact else ():
                wanted, answer = twin(*one), small(*one)
                name = f"masked and small, inputs of {len(one[0])}"
                checks.append(Check(name, difference(wanted, answer), SAME))
        _backward(small, inputs[0])
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise VerificationError(f"what is left of the network cannot be run: {str(error).splitlines()[0]}") from error
    return tuple(checks)


def _apart(small: nn.Module, after: nn.Module, recalibrated: bool) -> float:
    """The largest difference of two networks' tensors. Raises VerificationError for other names or shapes."""
    wanted, found = small.state_dict(), after.state_dict()
    for name in dict.fromkeys((*wanted, *found)):
        shapes = [tuple(state[name].shape) if name in state else None for state in (wanted, found)]
        if shapes[0] != shapes[1]:
            raise VerificationError(f"tensor '{name}' of what is left has the shape {shapes[1]}, not {shapes[0]}")
    compared = [name for name in wanted if not (recalibrated and name.rpartition(".")[2] in STATISTICS)]
    return max((_largest(wanted[name], found[name]) for name in compared), default=0.0)


def _largest(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max()) if one.numel() else 0.0


def _backward(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Raises RuntimeError where no parameter gets a gradient that is a number."""
    with torch.enable_grad():
        network(*inputs).square().mean().backward()
    gradients = [one.grad for one in network.parameters() if one.grad is not None]
    if not gradients or not all(bool(torch.isfinite(one).all()) for one in gradients):
        raise RuntimeError("its gradients are missing, or are no numbers")
