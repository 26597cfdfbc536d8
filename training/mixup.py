"""Mixup (Zhang, Cisse, Dauphin and Lopez-Paz, ICLR 2018, equation 1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from nas_core.batch import Batch
from nas_core.seeds import generator


def mixed(batches: Iterable[Batch], alpha: float, seed: int, epoch: int) -> Iterator[Batch]:
    """Batches of images whose samples are blended with those of the same batch in another order.

    Each batch has one share, drawn from Beta(alpha, alpha); x = share x_i + (1 - share) x_j, and the loss is
    blended alike. All draws are made on the CPU and depend on (seed, epoch) alone.
    """
    draws = generator(seed, epoch, "mixup")
    for batch in batches:
        share = float(draws.beta(alpha, alpha))
        order = torch.from_numpy(draws.permutation(len(batch.target))).to(batch.target.device)
        # Written into a copy of the first, so that its layout stays.
        images = tuple(torch.lerp(x[order], x, share, out=torch.empty_like(x)) for x in batch.inputs)
        yield replace(batch, inputs=images, mixed=(batch.target[order], share))
