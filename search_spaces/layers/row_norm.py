"""Batch normalisation of rows, of which there may be one or none."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class RowNorm(nn.BatchNorm1d):
    """Batch normalisation; of a single row, a last batch of one graph say, or of none, by the running moments, where
    there are some."""

    def plain(self) -> nn.Module:
        return nn.BatchNorm1d(self.num_features, affine=self.affine)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.size(0) < 2 and self.running_mean is not None:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(x)
