"""Layers of networks for tables: field embeddings, attention over fields, gated streams, residual blocks.

A row `x` `[n, width]` is made of fields: numbers, one value each, and one-hot blocks of k values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
NORMALISATIONS: Mapping[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


def normalised(kind: str, width: int) -> list[nn.Module]:
    """The normalisation over `width` features as a list, empty for "none"."""
    return [NORMALISATIONS[kind](width)] if kind in NORMALISATIONS else []


def dropped(share: float) -> list[nn.Module]:
    """Dropout as a list, empty for none."""
    return [nn.Dropout(share)] if share else []


class FieldEmbedding(nn.Module):
    """A vector per field, `[n, width]` to `[n, fields, size]`: e_m = b_m + sum of x_j v_j over the values j of field m
    (Song et al., AutoInt, CIKM 2019, arXiv 1810.11921, embedding layer).

    A number scales its vector, a one-hot block picks the row of its level. The bias b_m is ours: with it a standardised
    number at its mean is no missing field. Vectors start uniform in +-1/sqrt(size), as in Gorishniy et al.
    (arXiv 2106.11959), instead of normal with deviation 0.01.
    """

    def __init__(self, fields: Sequence[int], size: int) -> None:
        super().__init__()
        self.fields = list(fields)
        self.vectors = nn.Parameter(torch.empty(size, sum(fields)))
        self.bias = nn.Parameter(torch.empty(len(fields), size))
        bound = 1 / math.sqrt(size)
        nn.init.uniform_(self.vectors, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        # One product for all fields instead of one per field: zeros stand where a value is none of the field.
        weight = torch.block_diag(*self.vectors.split(self.fields, 1))  # [fields * size, width]
        return functional.linear(x, weight, self.bias.flatten()).unflatten(1, self.bias.shape)


class FieldAttention(nn.Module):
    """Multi-head self-attention over fields, `[n, fields, inputs]` to `[n, fields, width]` (Song et al., AutoInt, arXiv
    1810.11921, interacting layer): per head the weights a_mk = softmax over k of <Q e_m, K e_k>, the sum of a_mk V e_k;
    heads are concatenated, and e'_m = ReLU(that + R e_m).

    `released` is the form of the authors' program: ReLU and biases on all four projections, scores divided by
    sqrt(width / heads), layer normalisation last. `heads` divides `width`.
    """

    def __init__(self, inputs: int, width: int, heads: int, released: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.released = released
        self.query = nn.Linear(inputs, width, bias=released)
        self.key = nn.Linear(inputs, width, bias=released)
        self.value = nn.Linear(inputs, width, bias=released)
        self.residual = nn.Linear(inputs, width, bias=released)
        self.norm = nn.LayerNorm(width) if released else nn.Identity()

    def forward(self, fields: Tensor) -> Tensor:
        mixed = self.weights(fields) @ self.split(self.projected(self.value, fields))
        mixed = mixed.transpose(1, 2).flatten(2)  # [n, fields, width]
        return self.norm(torch.relu(mixed + self.projected(self.residual, fields)))

    def weights(self, fields: Tensor) -> Tensor:
        """How much each field attends to each, `[n, heads, fields, fields]`; rows sum to 1."""
        query = self.split(self.projected(self.query, fields))
        scores = query @ self.split(self.projected(self.key, fields)).transpose(2, 3)
        return torch.softmax(scores / query.shape[-1] ** 0.5 if self.released else scores, dim=-1)

    def projected(self, layer: nn.Module, fields: Tensor) -> Tensor:
        return torch.relu(layer(fields)) if self.released else layer(fields)

    def split(self, projected: Tensor) -> Tensor:
        """`[n, fields, width]` to `[n, heads, fields, width / heads]`."""
        return projected.unflatten(2, (self.heads, -1)).transpose(1, 2)


class VectorGate(nn.Module):
    """A gate without context, `[n, inputs]` to the same: 2 sigmoid(g) * e with a learnt vector g, at first 0, which
    hands e on (Mao et al., FinalMLP, AAAI 2023, arXiv 2304.00902, stream-specific feature gating).

    The released program makes g by layers on a learnt context that starts at 0; their ReLUs would never wake up.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(inputs))

    def forward(self, x: Tensor) -> Tensor:
        return 2 * torch.sigmoid(self.logits) * x


class InputGate(nn.Module):
    """A gate with all inputs as its context, `[n, inputs]` to the same: 2 sigmoid(MLP(e)) * e, one hidden layer with
    ReLU (Mao et al., FinalMLP, arXiv 2304.00902, stream-specific feature gating)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden)
        self.logits = nn.Linear(hidden, inputs)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * torch.sigmoid(self.logits(torch.relu(self.hidden(x)))) * x


class BilinearFusion(nn.Module):
    """What two streams say together, `[n, one], [n, two]` to `[n, outputs]` (Mao et al., FinalMLP, arXiv 2304.00902,
    multi-head bilinear fusion): b + w_1 o_1 + w_2 o_2 + the sum of o_1j W_j o_2j over `heads` chunks j.

    `heads` divides both widths. A matrix W_j per output, started as Xavier's normal one of all chunks.
    """

    def __init__(self, one: int, two: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(one, outputs)
        self.second = nn.Linear(two, outputs, bias=False)
        self.weight = nn.Parameter(torch.empty(heads, one // heads, outputs * (two // heads)))
        nn.init.normal_(self.weight, std=math.sqrt(2 / (one * two // heads + outputs)))

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        heads = self.weight.shape[0]
        left = one.unflatten(1, (heads, -1)).transpose(0, 1)  # [heads, n, one / heads]
        right = two.unflatten(1, (heads, 1, -1)).transpose(0, 1)  # [heads, n, 1, two / heads]
        products = (left @ self.weight).unflatten(2, (-1, right.shape[3])) * right
        return self.first(one) + self.second(two) + products.sum((0, 3))


class TwoStreams(nn.Module):
    """Two streams on the same values and their fusion, `[n, inputs]` to `[n, outputs]` (FinalMLP, as `BilinearFusion`).
    A stream is a gate and layers."""

    def __init__(self, first: nn.Module, second: nn.Module, fusion: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.fusion = fusion

    def forward(self, x: Tensor) -> Tensor:
        return self.fusion(self.first(x), self.second(x))


class ResidualBlock(nn.Module):
    """`[n, width]` to the same: x + the sum of what `layers` add (Gorishniy et al., NeurIPS 2021, arXiv 2106.11959,
    section 3.2: normalisation, linear, activation, dropout, linear, dropout)."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class TableNetwork(nn.Module):
    """Rows `[n, width]` to `[n, outputs]`: the sum of what the parts say of the embedded row."""

    def __init__(self, embedding: nn.Module, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.embedding = embedding
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        fields = self.embedding(x)
        answers = [part(fields) for part in self.parts]
        return sum(answers[1:], answers[0])
