"""Low-rank adapters of a network's weights, as parametrisations of torch (`training.regimes.adapters`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nas_core.errors import UsageError
from nas_core.seeds import derive

WITHOUT = (nn.Embedding, nn.EmbeddingBag, nn.RNNBase)
NORMALISATIONS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
NAMES = ("weight", "in_proj_weight")  # the second is that of attention


class Adapter(nn.Module):
    """A weight [out, in, kernel ...] plus C R at the middle of its kernel: C [out, r], zeros at first, R [r, in]."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        rank, bound = fitting(weight, rank), weight.shape[1] ** -0.5
        drawn = (2 * torch.rand(rank, weight.shape[1], generator=generator) - 1) * bound
        self.C = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.R = nn.Parameter(drawn.to(weight))
        self.middle = tuple(size // 2 for size in weight.shape[2:])

    def forward(self, weight: Tensor) -> Tensor:
        corrected = weight.clone()
        corrected[(..., *self.middle)] += self.C @ self.R
        return corrected


def fitting(weight: Tensor, rank: int) -> int:
    """The rank of a weight's adapter."""
    return min(rank, *weight.shape[:2])


def places(network: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """The weights that get adapters: the name of the parameter, its module, and its name there."""
    names = Counter(id(one) for _, one in network.named_parameters(remove_duplicate=False))
    for path, module in network.named_modules():
        if isinstance(module, (*WITHOUT, *NORMALISATIONS)):
            continue
        for name in NAMES:
            weight = module._parameters.get(name)
            if weight is not None and weight.dim() > 1 and weight.requires_grad and names[id(weight)] == 1:
                yield f"{path}.{name}".lstrip("."), module, name


def vectors(network: nn.Module) -> Iterator[nn.Parameter]:
    """Biases and the parameters of normalisations, which are trained as they are."""
    within = {
        id(one) for module in network.modules() if isinstance(module, NORMALISATIONS) for one in module.parameters()
    }
    return (one for one in network.parameters() if one.requires_grad and (one.dim() < 2 or id(one) in within))


def share(network: nn.Module, rank: int) -> float:
    """How many parameters are trained with adapters of this rank, in terms of all that the network has."""
    weights = (module.get_parameter(name) for _, module, name in places(network))
    adapters = sum(fitting(one, rank) * sum(one.shape[:2]) for one in weights)
    return (adapters + sum(one.numel() for one in vectors(network))) / sum(one.numel() for one in network.parameters())


class Adapted:
    """A network whose weights have adapters, until they are merged. Raises UsageError where none can have one."""

    def __init__(self, network: nn.Module, rank: int, seed: int) -> None:
        found, trained = list(places(network)), {id(one) for one in vectors(network)}
        if not found:
            raise UsageError("recipe: adapters: the network has no linear map and no convolution that could have one")
        self._places = [(module, name) for _, module, name in found]
        self._frozen = [one for one in network.parameters() if one.requires_grad and id(one) not in trained]
        for one in self._frozen:
            one.requires_grad_(False)
        for path, module, name in found:
            generator = torch.Generator().manual_seed(derive(seed, "adapters", path))
            parametrize.register_parametrization(module, name, Adapter(module.get_parameter(name), rank, generator))

    def merge(self) -> None:
        """Add the products to the weights; the network is a plain one again."""
        for module, name in self._places:
            parametrize.remove_parametrizations(module, name)
        for one in self._frozen:
            one.requires_grad_(True)
