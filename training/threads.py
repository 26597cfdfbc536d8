"""How many threads torch computes with: the order of a sum, and so its bits, depends on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


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
