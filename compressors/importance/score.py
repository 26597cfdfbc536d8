"""The contract of a score, and the one way from numbers of single weights to numbers of units."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy
import torch
from torch import Tensor, nn

from compressors.compressor import Subject
from compressors.groups.groups import Groups, Slice, Unit
from compressors.units import line_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scores = Mapping[str, "NDArray[numpy.float64]"]
"""By the name of a group a number per unit; the higher, the worse it is to lose that unit."""

Side = Literal["produced", "consumed"]
"""Which weights of a unit: those that make it, or those that read it."""

MADE: tuple[Side, ...] = ("produced",)
READ: tuple[Side, ...] = ("consumed",)


class Score(Protocol):
    """How much each unit matters. It is made with a `Config` of its own; `needs` says what it must be given beside the
    network (of `compressors.compressor.NEEDS`)."""

    needs: ClassVar[tuple[str, ...]]

    def __init__(self, config: Any) -> None: ...

    def __call__(self, network: nn.Module, groups: Groups, subject: Subject, round: int) -> Scores:
        """The scores of a network, which is in evaluation mode and stays as it is. A group that it says nothing of is
        left out. What is random comes from (seed of the subject, round).

        Raises UsageError where it says nothing of any group.
        """
        ...


class Members:
    """Which entries of which parameters belong to which unit.

    A *member* of a group is one dimension of one parameter that all of its units have entries of, on one side: the rows
    of a convolution, the scales of its normalisation, the columns of what reads both. Buffers are no members. `weights`
    leaves out vectors (biases, scales, shifts) where a group has anything else.
    """

    def __init__(
        self, network: nn.Module, groups: Groups, sides: tuple[Side, ...] = MADE, weights: bool = False
    ) -> None:
        parameters = dict(network.named_parameters())
        self._groups = {
            group.name: (len(group.units), _members(group.units, parameters, sides, weights)) for group in groups.groups
        }

    @property
    def tensors(self) -> list[str]:
        """The names of all parameters that have members."""
        return list(dict.fromkeys(name for _, members in self._groups.values() for name, _ in members))

    def sums(self, elements: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """By group the signed sums of `elements`, numbers in the shapes of the parameters, over the entries of each
        unit: [members, units], float64. What is done with signs, by squares or absolute values, before or after, is up
        to the score. A parameter that `elements` lacks counts as zeros."""
        lines: dict[tuple[str, int], Tensor] = {}
        found = {}
        for name, (units, members) in self._groups.items():
            rows = [_zeros(units, elements)] if not members else []
            for (tensor, dim), (numbers, indices) in members.items():
                total = _zeros(units, elements)
                if tensor in elements:
                    if (tensor, dim) not in lines:
                        lines[tensor, dim] = line_sums(elements[tensor], dim)
                    line = lines[tensor, dim]
                    total.index_add_(0, numbers.to(line.device), line[indices.to(line.device)])
                rows.append(total)
            found[name] = torch.stack(rows)
        return found


def _zeros(units: int, elements: Mapping[str, Tensor]) -> Tensor:
    device = next(iter(elements.values())).device if elements else None
    return torch.zeros(units, dtype=torch.float64, device=device)


def _members(
    units: Collection[Unit], parameters: Mapping[str, Tensor], sides: tuple[Side, ...], weights: bool
) -> dict[tuple[str, int], tuple[Tensor, Tensor]]:
    """By member the numbers of the units and, of the same length, the entries of its dimension."""
    found: dict[tuple[str, int], tuple[list[int], list[int]]] = {}
    for number, unit in enumerate(units):
        for one in _slices(unit, sides):
            if one.tensor in parameters:
                numbers, indices = found.setdefault((one.tensor, one.dim), ([], []))
                numbers += [number] * len(one.indices)
                indices += one.indices
    matrices = {key: value for key, value in found.items() if parameters[key[0]].dim() > 1}
    chosen = matrices if weights and matrices else found
    return {key: (torch.tensor(numbers), torch.tensor(indices)) for key, (numbers, indices) in chosen.items()}


def _slices(unit: Unit, sides: tuple[Side, ...]) -> list[Slice]:
    return [one for side in sides for one in (unit.produced if side == "produced" else unit.consumed)]


def as_scores(values: Mapping[str, Tensor]) -> Scores:
    """Numbers per unit, off the device."""
    return {name: value.detach().double().cpu().numpy() for name, value in values.items()}
