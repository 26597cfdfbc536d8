"""Which tensors of a network can be masked, and how many of their entries are not zero.

*Prunable* are the weights of linear maps, convolutions, attention and recurrent layers: parameters with at least two
dimensions that are called `weight`, `weight_...` or `..._weight`. Biases are none, nor is anything of a normalisation
or an embedding, a tensor that an embedding shares with a linear map included. The last linear map, the classifier,
counts.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

_OTHERS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.EmbeddingBag)


def prunable(network: nn.Module) -> dict[str, nn.Parameter]:
    """The prunable weights by their first names, in the order of the network."""
    others = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, _OTHERS)
        for parameter in module.parameters(recurse=False)
    }
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if parameter.dim() >= 2 and id(parameter) not in others and _is_weight(name.rpartition(".")[2])
    }


def _is_weight(name: str) -> bool:
    return name.startswith("weight") or name.endswith("_weight")


def density(network: nn.Module) -> float:
    """The share of the prunable weights that are not zero; 1 for a network without any."""
    found = counts(prunable(network))
    total = sum(entries for _, entries in found.values())
    return sum(nonzero for nonzero, _ in found.values()) / total if total else 1.0


def counts(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """By name how many entries are not zero, and how many there are."""
    return {name: (int(tensor.count_nonzero()), tensor.numel()) for name, tensor in tensors.items()}
