"""What blocks of all backbones are made of."""

from __future__ import annotations

from torch import Tensor, nn


class PreNorm(nn.Module):
    """`x + layer(norm(x))`, `[n, t, width]` to the same. `across`: the layer maps the tokens of each channel,
    `[n, width, t]`, as the token mixing of MLP-Mixer (Tolstikhin et al., NeurIPS 2021, arXiv 2105.01601, equation 1).
    """

    def __init__(self, width: int, layer: nn.Module, across: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layer = layer
        self.across = across

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(x)
        if self.across:
            return x + self.layer(inner.transpose(1, 2)).transpose(1, 2)
        return x + self.layer(inner)
