"""What units have in the tensors of a network: sums over their rows, scaling them, finding those that are 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from compressors.groups.groups import Group, Removal


def line_sums(values: Tensor, dim: int) -> Tensor:
    """The sums over all dimensions but `dim`, float64 [size of it]."""
    others = [axis for axis in range(values.dim()) if axis != dim]
    return values.sum(others, dtype=torch.float64) if others else values.double()


class Units:
    """The units of several groups, numbered one after another, and the entries of tensors that they produce.

    Values and masks of units are of shape [units], on the CPU. An entry belongs to one unit at most.
    """

    def __init__(self, groups: Sequence[Group], network: nn.Module) -> None:
        self.groups = tuple(groups)
        self.sizes = [len(group.units) for group in self.groups]
        self.count = sum(self.sizes)
        self.tensors: dict[str, Tensor] = dict(network.named_parameters()) | dict(network.named_buffers())
        tables: dict[tuple[str, int], Tensor] = {}
        for number, unit in enumerate(unit for group in self.groups for unit in group.units):
            for piece in unit.produced:
                size = self.tensors[piece.tensor].shape[piece.dim]
                owner = tables.setdefault((piece.tensor, piece.dim), torch.full((size,), self.count))
                owner[list(piece.indices)] = number
        self._tables = list(tables)
        self._sizes = [len(owner) for owner in tables.values()]
        self._owner = torch.cat(list(tables.values()) or [torch.zeros(0, dtype=torch.long)])
        self._views = [self._view(*table) for table in self._tables]
        self.scalars = self.sums(lambda _, tensor: torch.ones_like(tensor, requires_grad=False))

    def _view(self, name: str, dim: int) -> list[int]:
        """The shape in which one value per entry of the dimension meets the tensor."""
        return [-1 if axis == dim else 1 for axis in range(self.tensors[name].dim())]

    def sums(self, of: Callable[[str, Tensor], Tensor | None]) -> Tensor:
        """Per unit, in float64, the sum over all that it produces of what `of` gives for a tensor, which has the shape
        of the tensor; None: nothing."""
        parts = []
        for (name, dim), size in zip(self._tables, self._sizes, strict=True):
            values = of(name, self.tensors[name])
            if values is None:
                parts.append(torch.zeros(size, dtype=torch.float64))
                continue
            parts.append(line_sums(values, dim).cpu())
        total = torch.zeros(self.count + 1, dtype=torch.float64)
        return total.index_add_(0, self._owner, torch.cat(parts or [total[:0]]))[: self.count]

    @torch.no_grad()
    def scale(self, factors: Tensor, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Multiply all that units produce by a factor of each, in place; 0 gives exactly 0. `tensors`: others of the
        same names, of which some may be missing."""
        tensors = self.tensors if tensors is None else tensors
        padded = torch.cat([factors.float(), torch.ones(1)])[self._owner]
        for (name, _), part, view in zip(self._tables, padded.split(self._sizes), self._views, strict=True):
            tensor = tensors.get(name)
            if tensor is not None and not bool((part == 1).all()):
                tensor.mul_(part.view(view).to(tensor))

    def zero(self) -> Tensor:
        """The mask of the units all of whose entries are exactly 0; those without any are none of them."""
        return (self.sums(lambda _, tensor: tensor.detach() != 0) == 0) & (self.scalars > 0)

    def none(self) -> Tensor:
        """The mask of no unit."""
        return torch.zeros(self.count, dtype=torch.bool)

    def removal(self, mask: Tensor) -> Removal:
        """The units of a mask by their groups; groups without any are left out."""
        found = {group.name: part.nonzero().flatten().tolist() for group, part in self.by_group(mask)}
        return {name: numbers for name, numbers in found.items() if numbers}

    def by_group(self, values: Tensor) -> list[tuple[Group, Tensor]]:
        return list(zip(self.groups, values.split(self.sizes), strict=True))
