"""Transformer layers of torch, run module by module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def unfused() -> Iterator[None]:
    """Within it `nn.TransformerEncoderLayer` and `nn.MultiheadAttention` call the modules that they are made of, also
    in evaluation mode without gradients, where they would run one fused operator that hides them from hooks, counters
    and traces."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
