"""Structured pruning adapters: a pruned network recovers by low-rank corrections of weights that stay as they are.

Hedegaard, Alok, Jose and Iosifidis, "Structured Pruning Adapters" (arXiv 2211.10155, 2022), SPLoRA: every weight W
[out, in] is used as W + C R, with C [out, r] and R [r, in] that are trained, and W that is not; of a convolution C R is
added at the middle of the kernel. Biases and the parameters of normalisations are trained as well. In the end the
products are added to the weights, and nothing is left of the adapters: a layer costs what it did. What a task of its
own has to store is r (in + out) numbers per layer.

Deviations. Adapters are made for what pruning has left, which is what those of the whole network are without the rows
and columns of what has gone, before any of them is trained. C begins with zeros and R uniform in +-1 / sqrt(in), as in
LoRA (Hu et al., arXiv 2106.09685), so that the first step starts from exactly the network that was given; the authors'
program draws C in +-1e-4, and a smaller R. A kernel of even size has its middle at size // 2. The rank of a layer is at
most its number of rows or columns. Of a convolution with groups, `in` is that of one group. Weights that a module does
not call `weight`, those that modules share, embeddings and recurrent layers have no adapters, and stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from training.regimes.regime import Regime, Settings

if TYPE_CHECKING:
    from torch import nn

    from nas_core.batch import Batch
    from training.compute import Forward
    from training.teacher import Teacher


class Adapters(Settings):
    """Train low-rank adapters, biases and normalisations; all other weights stay."""

    rank: int = Field(default=16, ge=1, le=4096, description="of the correction of every weight")

    def regime(self, teacher: Teacher | None) -> Regime:
        return LowRankAdapters(self.rank)


class LowRankAdapters(Regime):
    """Between `begin` and `end` the weights of the network have adapters, and only these and vectors are trained."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def begin(self, network: nn.Module, forward: Forward, example: Batch, seed: int) -> None:
        from training.adapter import Adapted

        self._adapted = Adapted(network, self._rank, seed)

    def end(self) -> None:
        self._adapted.merge()
