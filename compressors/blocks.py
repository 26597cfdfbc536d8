"""Whole blocks of a network that can go: modules that add something to what they read, and do nothing else."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressors.calls import Call, calls
from compressors.groups.groups import Group, Groups, Slice, Unit
from search_spaces.counter import counted


@dataclass(frozen=True, slots=True)
class Block:
    """The module `name`: with all of `writes` at 0 it answers what it reads, or the ReLU of it, so that `layer` can
    stand in its place. `inner`: groups that are within it. `saves`: costs of all that is in it."""

    name: str
    writes: tuple[Slice, ...]
    layer: type[nn.Module]
    inner: tuple[str, ...]
    saves: Mapping[str, float]

    @property
    def group(self) -> Group:
        """The block as a unit: its writes are 0 together."""
        return Group(self.name, (Unit(self.writes, ()),), True)


def blocks(network: nn.Module, groups: Groups, inputs: Sequence[Tensor]) -> tuple[Block, ...]:
    """The innermost ones of a network in evaluation mode, which stays as it is. Which modules they are is tried: on
    what they read in a pass of the inputs, and on random numbers in its place. Costs are those of such a pass."""
    read = _read(network, inputs)
    found: list[Block] = []
    whole = counted(network, inputs)
    for name, given in reversed(read.items()):  # the outer ones come after those within them
        if any(one.name.startswith(f"{name}.") for one in found):
            continue
        inside = f"{name}."
        writes, inner = [], []
        for group in groups.groups:
            made = [piece for unit in group.units for piece in unit.produced]
            here = [piece for piece in made if piece.tensor.startswith(inside)]
            if here and len(here) == len(made):
                inner.append(group.name)
            else:
                writes += here
        layer = _stands_for(network, name, writes, given) if writes else None
        if layer is None:
            continue
        without = copy.deepcopy(network)
        replace(without, name, layer)
        left = counted(without, inputs)
        saves = {cost: whole[cost] - left[cost] for cost in whole}
        found.append(Block(name, tuple(writes), layer, tuple(inner), saves))
    return tuple(reversed(found))


def replace(network: nn.Module, name: str, layer: type[nn.Module]) -> None:
    """Put a layer without parameters in the place of a module."""
    above, _, last = name.rpartition(".")
    network.get_submodule(above)._modules[last] = layer()


def _read(network: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """What modules read that are called once, with one tensor, hold others and answer in its shape; by name, the outer
    ones first."""
    candidates = {name: module for name, module in network.named_modules() if name and list(module.children())}
    found: dict[str, list[Call]] = {name: [] for name in candidates}
    for call in calls(network, candidates, inputs):
        found[call.name].append(call)
    return {name: made[0].given[0] for name, made in found.items() if len(made) == 1 and _keeps_shape(made[0])}


def _keeps_shape(call: Call) -> bool:
    """Whether it reads one tensor of floating numbers, and answers one of its shape."""
    if len(call.given) != 1 or not isinstance(call.given[0], Tensor) or not isinstance(call.answer, Tensor):
        return False
    given = call.given[0]
    return given.is_floating_point() and bool(given.numel()) and call.answer.shape == given.shape


def _stands_for(network: nn.Module, name: str, writes: Sequence[Slice], given: Tensor) -> type[nn.Module] | None:
    """What a module does where all of `writes` are 0; None: neither of both."""
    module = copy.deepcopy(network.get_submodule(name)).eval()
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    drawn = torch.randn(given.shape, generator=torch.Generator().manual_seed(0)).to(given)
    with torch.no_grad():
        for piece in writes:
            index = torch.tensor(piece.indices, device=given.device)
            tensors[piece.tensor.removeprefix(f"{name}.")].index_fill_(piece.dim, index, 0)
        for layer in (nn.Identity, nn.ReLU):
            if all(torch.equal(module(x), layer()(x)) for x in (drawn, given)):
                return layer
    return None
