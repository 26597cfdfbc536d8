"""What blocks of all backbones are made of. What layers are told beside their tokens goes by name: the `condition` of
samples, the `real` positions of padded sequences (`search_spaces.layers.moe`)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from search_spaces.layers.moe import MixtureOfExperts


class PreNorm(nn.Module):
    """`x + layer(norm(x), **told)`, `[n, t, width]` to the same. `across`: the layer maps the tokens of each channel,
    `[n, width, t]`, as the token mixing of MLP-Mixer (Tolstikhin et al., NeurIPS 2021, arXiv 2105.01601, equation 1).
    """

    def __init__(self, width: int, layer: nn.Module, across: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layer = layer
        self.across = across

    def forward(self, x: Tensor, **told: Tensor) -> Tensor:
        inner = self.norm(x)
        if self.across:
            return x + self.layer(inner.transpose(1, 2), **told).transpose(1, 2)
        return x + self.layer(inner, **told)


class Untold(nn.Module):
    """A layer that sees its tokens alone."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, **told: Tensor) -> Tensor:
        answer: Tensor = self.layer(x)
        return answer


class InTurn(nn.Module):
    """Layers of experts, one after the other."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, **told: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, **told)
        return x


def tellable(layer: nn.Module) -> nn.Module:
    """A feed-forward layer that can be told more than its tokens."""
    if isinstance(layer, MixtureOfExperts):
        return layer
    layers = list(layer) if isinstance(layer, nn.Sequential) else []
    return InTurn(layers) if any(isinstance(one, MixtureOfExperts) for one in layers) else Untold(layer)
