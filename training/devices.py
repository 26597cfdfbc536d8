"""Devices by their names, and how many threads a training takes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nas_core.errors import MachineError, UsageError
from nas_core.task import Task
from training.tasks import kind_of

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> torch.device:
    """The device of "auto", "cpu", "cuda" or "cuda:1".

    Raises UsageError for another word, MachineError for a CUDA device that is not there.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError(f"device '{name}' is not known; use auto, cpu, cuda or cuda:NUMBER")
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise MachineError(f"there is no device '{name}' (CUDA devices found: {count}); use --device cpu")
    return device


def cpu_threads() -> int:
    """How many threads torch computes with in this process."""
    import torch

    return torch.get_num_threads()


def default_threads(task: Task) -> int:
    """The threads to train with when nobody says: torch's own number, but one for small images.

    On them joining the threads costs what they save, and on a busy machine many times that.
    """
    return 1 if kind_of(task).light(task) else cpu_threads()
