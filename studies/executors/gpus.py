"""How many evaluations share a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nas_core.errors import MachineError, UsageError
from studies.executors.where import Where


def is_gpu(device: str | None) -> bool:
    return (device or "").startswith("cuda")


def share(where: Where, device: str | None, memory: Callable[[], Sequence[float]]) -> int | None:
    """How many evaluations on a device share a GPU: as many as is said, or as often as what one may take fits into the
    smallest of `memory()`, in GiB; None: nothing is said.

    Raises UsageError where the device is no GPU, MachineError where not even one fits.
    """
    if where.per_gpu is None and where.gpu_memory is None:
        return None
    if not is_gpu(device):
        flag = "--per-gpu" if where.gpu_memory is None else "--gpu-memory"
        raise UsageError(f"{flag} is for work on a GPU, and this is on {device or 'cpu'}; leave it out")
    if where.gpu_memory is None:
        return where.per_gpu
    smallest = min(memory(), default=0.0)
    count = math.floor(smallest / where.gpu_memory)
    if not count:
        raise MachineError(f"--gpu-memory {where.gpu_memory:g}: a GPU has {smallest:.1f} GiB; say less")
    return count


def devices_of(device: str | None) -> tuple[str, ...]:
    """The devices of this machine that are meant; none: it is no GPU."""
    if device != "cuda":
        return (device,) if device is not None and is_gpu(device) else ()
    import torch

    return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))


def memory_of(devices: Sequence[str]) -> list[float]:
    """The memory of each, in GiB."""
    import torch

    return [torch.cuda.get_device_properties(device).total_memory / 2**30 for device in devices]
