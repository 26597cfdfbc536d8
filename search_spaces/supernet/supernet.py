"""A supernet: one network that holds every architecture of a space, as a function of inputs and mixing weights.

Structure belongs to the space, relaxation to the strategy: DARTS, GDAS, DropNAS, uniform sampling and the others
differ only in the mix that they pass and the loss that they minimise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.relax import FixedPicker, Group, Mix, Relaxable, Style, not_relaxable
from nas_core.space import SearchSpace
from nas_core.task import Task
from search_spaces.counter import MacCounter
from search_spaces.supernet.picker import MixedOp, SupernetPicker


@dataclass(frozen=True)
class Costs:
    """A metric of the network that `build` would make, where it is a sum: of what is always there, and per group of
    what the chosen operation adds [operations], over all places of the group."""

    fixed: float
    operations: Mapping[str, Tensor]

    def of(self, assignment: Mapping[str, Any], groups: Mapping[str, Group]) -> float:
        """The cost of one architecture."""
        taken = ((group, assignment[name]) for name, group in groups.items())
        return self.fixed + sum(
            float(self.operations[group.name][group.options.index(value)])
            for group, value in taken
            if value is not None
        )

    def expected(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The cost expected where every operation is taken with its weight; differentiable."""
        parts = [(weights[name] * costs.to(weights[name])).sum() for name, costs in self.operations.items()]
        return torch.stack(parts).sum() + self.fixed


class Supernet(nn.Module):
    """All networks of a space in one. `supernet(inputs, mix)`: as the built network, for the inputs of a batch.

    An operation that the mix does not run keeps gradient None, so that its weights, decay and momentum stay as they are
    bit for bit (`zero_grad(set_to_none=True)` is part of the contract). `groups` are in the order in which the
    network meets them. With `auxiliary` there is a second classifier where the size asks for one: training mode gives
    `(logits, auxiliary logits)` then. Raises UsageError for a space that is not relaxable.
    """

    def __init__(
        self, space: SearchSpace, task: Task, size: SizeConfig, style: Style = Style.SUPERNET, auxiliary: bool = False
    ) -> None:
        super().__init__()
        self.space, self.task, self.size, self.style = space, task, size, style
        picker = SupernetPicker(style, auxiliary)
        self.network = relaxable(space).network(picker, task, size)
        self._current = picker.current
        self.groups = _groups(self.network, picker)

    def forward(self, inputs: Sequence[Tensor], mix: Mix) -> Any:
        with self._mixing(mix):
            return self.network(*inputs)

    def mix_of(self, arch: Architecture) -> Mix:
        """The mix that runs the operations of one architecture and nothing else."""
        assignment = self.space.assignment(arch)
        active = {
            name: () if assignment[name] is None else (group.options.index(assignment[name]),)
            for name, group in self.groups.items()
        }
        return Mix(active)

    def mix(self, weights: Mapping[str, Tensor]) -> Mix:
        """The mix of all operations with these weights [operations] per group."""
        return Mix({name: tuple(range(len(group.options))) for name, group in self.groups.items()}, weights)

    def derive(self, strengths: Mapping[str, Tensor], none: bool = True) -> Architecture:
        """The architecture of the strongest operations, by strengths [operations] per group (`Relaxable.derive`).

        Without `none`, operations that add nothing are passed over, as DARTS does (section 2.4): the more of them
        there is, the smaller a node becomes, which the next normalisation undoes, so that their strength says little.
        """
        values = {name: value.detach().tolist() for name, value in strengths.items()}
        if not none:
            for name, group in self.groups.items():
                values[name] = [-1.0 if zero else value for value, zero in zip(values[name], group.zero, strict=True)]
        return relaxable(self.space).derive(values)

    def extract(self, arch: Architecture) -> nn.Module:
        """The stand-alone network of an architecture in this supernet's style, with copies of its shared weights."""
        with torch.random.fork_rng(devices=[]):
            network = relaxable(self.space).network(
                FixedPicker(self.space.assignment(arch), self.style), self.task, self.size
            )
        network.to(next(self.network.parameters()).device)
        with torch.no_grad(), self._mixing(self.mix_of(arch)):
            copy_weights(self.network, network)
        return network.train(self.training)

    def costs(self, metric: str) -> Costs:
        """Parameters ("params"), or multiply-accumulates of one sample ("macs"), of the networks that `build` makes.
        Raises as `costs_of`."""
        return costs_of(self.space, self.task, self.size, metric)

    @contextmanager
    def _mixing(self, mix: Mix) -> Iterator[None]:
        self._current.mix = mix
        try:
            yield
        finally:
            self._current.mix = None


def costs_of(space: SearchSpace, task: Task, size: SizeConfig, metric: str) -> Costs:
    """Parameters ("params"), or multiply-accumulates of one sample ("macs"), of the networks that `build` makes.

    Counted on a meta in the stand-alone style, operation by operation. Raises UsageError for another metric, and for a
    space whose costs are no such sum: its attribute `why_not_additive` says why.
    """
    if metric not in ("params", "macs"):
        raise UsageError(f"cost '{metric}' is no sum over the parts of a network; use params or macs")
    reason = getattr(space, "why_not_additive", None)
    if reason is not None:
        raise UsageError(f"space '{space.name}': {metric} is no sum over the choices, because {reason}")
    with torch.device("meta"):
        meta = Supernet(space, task, size, Style.STANDALONE)
    return _count_params(meta) if metric == "params" else _count_macs(meta)


def relaxable(space: SearchSpace) -> Relaxable:
    """The space as one that a supernet can hold. Raises UsageError with the reason where none can."""
    reason = not_relaxable(space)
    if reason is not None:
        raise UsageError(f"space '{space.name}' is not relaxable: {reason}; one-shot strategies cannot search it")
    assert isinstance(space, Relaxable)
    return space


def _groups(network: nn.Module, picker: SupernetPicker) -> dict[str, Group]:
    """What operations are, from their modules: see `Group`."""
    traits = {name: tuple([False] * len(options) for _ in range(3)) for name, options in picker.groups.items()}
    for mixed in _mixed(network):
        weighted, zero, skip = traits[mixed.route.name]
        for position, operation in enumerate(mixed.operations):
            zero[position] |= getattr(operation, "zero", False)
            skip[position] |= getattr(operation, "skip", False)
            weighted[position] |= not skip[position] and any(True for _ in operation.parameters())
    return {name: Group(name, options, *map(tuple, traits[name])) for name, options in picker.groups.items()}


def _mixed(network: nn.Module) -> Iterator[MixedOp]:
    return (module for module in network.modules() if isinstance(module, MixedOp))


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy weights and buffers between two networks of one description, where the target has one operation per group.

    A module whose shapes depend on a route brings `extract_into(target)`.
    """
    if isinstance(source, MixedOp):
        [(option, _)] = source.route.selected()
        source = source.operations[source.positions[option]]
    if hasattr(source, "extract_into"):
        source.extract_into(target)
        return
    for name, tensor in (*target.named_parameters(recurse=False), *target.named_buffers(recurse=False)):
        tensor.copy_(source.get_parameter(name) if isinstance(tensor, nn.Parameter) else source.get_buffer(name))
    for name, child in target.named_children():
        copy_weights(source.get_submodule(name), child)


def _count_params(meta: Supernet) -> Costs:
    total = sum(parameter.numel() for parameter in meta.network.parameters())
    operations = _empty(meta)
    for mixed in _mixed(meta):
        for position, operation in enumerate(mixed.operations):
            count = sum(parameter.numel() for parameter in operation.parameters())
            operations[mixed.route.name][position] += count
            total -= count
    return Costs(float(total), operations)


def _count_macs(meta: Supernet) -> Costs:
    """Every operation is run once; what the counter has moved by is its own."""
    operations = _empty(meta)
    counter = MacCounter(meta.network)
    handles = []
    before: list[int] = []

    def entered(module: nn.Module, inputs: Any) -> None:
        before.append(counter.macs)

    def counted(group: str, position: int) -> Any:
        def left(module: nn.Module, inputs: Any, output: Any) -> None:
            operations[group][position] += counter.macs - before.pop()

        return left

    for mixed in _mixed(meta):
        for position, operation in enumerate(mixed.operations):
            handles.append(operation.register_forward_pre_hook(entered))
            handles.append(operation.register_forward_hook(counted(mixed.route.name, position)))
    everything = Mix({name: tuple(range(len(group.options))) for name, group in meta.groups.items()})
    inputs = tuple(torch.empty(shape, device="meta") for shape in _input_shapes(meta.task))
    meta.eval()
    with torch.no_grad(), counter:
        meta(inputs, everything)
    for handle in handles:
        handle.remove()
    return Costs(float(counter.macs - sum(int(costs.sum()) for costs in operations.values())), operations)


def _input_shapes(task: Task) -> list[tuple[int, ...]]:
    if len(task.input_shape) != 3:
        raise UsageError(f"MACs of a supernet are counted for images only, not for {task.kind}")
    return [(1, *task.input_shape)]


def _empty(meta: Supernet) -> dict[str, Tensor]:
    return {
        name: torch.zeros(len(group.options), dtype=torch.float64, device="cpu") for name, group in meta.groups.items()
    }
