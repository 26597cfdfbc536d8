"""What the training of a supernet will need of memory, counted before it starts.

Needed are the weights with their gradients and momentum, and what one batch's forward pass keeps for the backward one:
every tensor that autograd saves, once. It is counted without memory, on torch's meta device; a network that cannot run
there (message passing looks at its edges) runs for real, on the CPU. Not counted are the temporary buffers of single
operations, so that the need is a lower estimate, and all but exact for images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.batch import Batch, Data
from nas_core.errors import MachineError
from nas_core.one_shot import Compute
from nas_core.relax import Mix
from search_spaces.supernet.supernet import Supernet
from training.memory import free_bytes

COPIES = 3  # weights, gradients, momentum


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes. `weights`: with gradients, momentum and buffers; `activations`: what one batch keeps."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.activations


def require(make: Callable[[], nn.Module], data: Data, one_path: bool, batch_size: int, compute: Compute) -> Need:
    """What training `make()` on `data` needs; `one_path`: of one candidate per group at a time, rather than all.

    Raises MachineError where the machine has less than that free.
    """
    need = estimate(make, next(iter(data.batches("train", 0, 0))), one_path, compute)
    free = available(compute.device)
    if free is not None and need.total > free:
        fewer = "" if one_path else ", or gdas or spos, which run one path at a time"
        raise MachineError(
            f"training this supernet needs about {_size(need.total)} of memory (weights {_size(need.weights)}, one "
            f"batch {_size(need.activations)}), and {compute.device} has {_size(free)} free\n"
            f"take a smaller batch_size (now {batch_size}) or a smaller --size{fewer}"
        )
    return need


def estimate(make: Callable[[], nn.Module], batch: Batch, one_path: bool, compute: Compute | None = None) -> Need:
    """What training `make()` on batches like this one needs.

    Of single paths it is the one that keeps most, of those that take the same candidate everywhere. In bf16 what is
    kept takes half the memory.
    """
    try:
        with torch.device("meta"):
            need = _count(make(), _moved(batch, "meta"), one_path)
    except (RuntimeError, NotImplementedError):  # an operation that has to see values
        need = _count(make(), _moved(batch, "cpu"), one_path)
    half = compute is not None and compute.precision == "bf16"
    return replace(need, activations=need.activations // 2) if half else need


def saved_bytes(run: Callable[[], Any], known: Callable[[Tensor], bool]) -> int:
    """The bytes that autograd keeps while `run` computes, each storage once, without those that are `known`."""
    kept: dict[int, tuple[Any, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        parts = (tensor,) if tensor.layout == torch.strided else (tensor._indices(), tensor._values())
        for part in parts:
            if not known(part):
                storage = part.untyped_storage()
                kept[id(storage)] = (storage, storage.nbytes())  # held, so that no other storage gets its id
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    del result
    return sum(size for _, size in kept.values())


def available(device: str) -> int | None:
    """Free bytes of a torch device's memory, with what torch holds there unused; None where nothing says so."""
    if torch.device(device).type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if torch.device(device).type != "cpu":
        return None
    return free_bytes()


def _count(module: nn.Module, batch: Batch, one_path: bool) -> Need:
    assert isinstance(module, Supernet)
    supernet = module.train()
    mine = (*supernet.parameters(), *supernet.buffers(), *batch.inputs)
    own = {id(storage): storage for storage in (tensor.untyped_storage() for tensor in mine)}
    weights = sum(parameter.nbytes for parameter in supernet.parameters())
    buffers = sum(buffer.nbytes for buffer in supernet.buffers())
    mixes = _paths(supernet) if one_path else [_everything(supernet, batch.inputs[0].device)]
    kept = 0
    with torch.random.fork_rng(devices=[]):
        for mix in mixes:
            run = partial(supernet, batch.inputs, mix)
            kept = max(kept, saved_bytes(run, lambda tensor: id(tensor.untyped_storage()) in own))
    return Need(COPIES * weights + buffers, kept)


def _everything(supernet: Supernet, device: torch.device) -> Mix:
    """All candidates, by weights that want gradients."""
    return supernet.mix(
        {
            name: torch.ones(len(group.options), device=device, requires_grad=True)
            for name, group in supernet.groups.items()
        }
    )


def _paths(supernet: Supernet) -> list[Mix]:
    """Paths of legal architectures that have, as far as it is allowed, candidate k of every group, for all k."""
    groups = supernet.groups
    paths: dict[Architecture, Mix] = {}
    for position in range(max(len(group.options) for group in groups.values())):
        strengths = {
            name: torch.eye(len(group.options), device="cpu")[position % len(group.options)]
            for name, group in groups.items()
        }
        arch = supernet.derive(strengths)
        paths[arch] = supernet.mix_of(arch)
    return list(paths.values())


def _moved(batch: Batch, device: str) -> Batch:
    inputs = tuple(tensor.to(device) for tensor in batch.inputs)
    return Batch(inputs, batch.target.to(device))


def _size(count: int) -> str:
    """`3.2 GiB`, `512 MiB`."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
