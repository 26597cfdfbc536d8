"""What the bits of a computation depend on: how many threads sum up, and the algorithms of CUDA."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@contextmanager
def thread_count(threads: int | None) -> Iterator[None]:
    """Compute with so many threads, None: as many as there are; the former number comes back at the end."""
    import torch

    before = torch.get_num_threads()
    if threads is not None and threads != before:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextmanager
def repeatable(device: torch.device | str, deterministic: bool) -> Iterator[None]:
    """Algorithms that repeat themselves on CUDA, if wanted. The former settings come back at the end."""
    import torch

    if torch.device(device).type != "cuda" or not deterministic:
        yield
        return
    # Read by cuBLAS when it starts; without it deterministic matrix products are refused.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn: Any = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
