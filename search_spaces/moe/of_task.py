"""The network of one task, out of one whose routers go by the task alone: its experts, its head, nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from search_spaces.layers.assigned import Merged
from search_spaces.layers.dispatch import Averaged, Chosen
from search_spaces.layers.moe import MixtureOfExperts
from search_spaces.moe.patches import PatchNetwork
from search_spaces.moe.residual import InTurn, PreNorm, Untold
from search_spaces.moe.tasks import TaskNetwork
from search_spaces.operators.experts.mixed import Mixed
from search_spaces.operators.routers.fixed import FixedExperts


def of_task(network: TaskNetwork, number: int) -> PatchNetwork:
    """Images `[n, channels, h, w]` to the logits of one head, `[n, outputs]`, as the network gives them for this task.

    The experts that the router chooses for the task stay, those that it merges become one. Bit for bit the same where
    experts are chosen and the sizes of products are; merged experts are one product for all samples here, and one per
    sample there, which rounds otherwise.
    """
    blocks: list[nn.Module] = []
    for block in network.blocks:
        assert isinstance(block, PreNorm)
        made = PreNorm(block.norm.normalized_shape[0], _layer(block.layer, number), block.across)
        made.norm = copy.deepcopy(block.norm)
        blocks.append(made)
    stem, width = network.stem, network.norm.normalized_shape[0]
    head = network.heads[number]
    found = PatchNetwork(stem.in_channels, stem.kernel_size[0], width, blocks, head.out_features)
    found.stem, found.norm, found.head = copy.deepcopy(stem), copy.deepcopy(network.norm), copy.deepcopy(head)
    return found.train(network.training)


def _layer(layer: nn.Module, number: int) -> nn.Module:
    if isinstance(layer, Untold):
        return copy.deepcopy(layer.layer)
    if isinstance(layer, InTurn):
        return nn.Sequential(*(_layer(one, number) for one in layer.layers))
    assert isinstance(layer, MixtureOfExperts)
    with torch.no_grad():
        return _of_experts(layer, number)


def _of_experts(layer: MixtureOfExperts, number: int) -> MixtureOfExperts:
    first, decides = next(layer.router.parameters()), copy.deepcopy(layer.router).eval()
    routing = decides(first.new_zeros(1, 1, 1), torch.tensor([number], device=first.device))
    experts = copy.deepcopy(layer.experts)
    if isinstance(routing, Chosen):
        chosen, weights = routing.chosen[0, 0], routing.weights[0, 0]
        kept = chosen.sort().values  # in their order, as the products of the whole network are
        router = FixedExperts(len(kept), len(kept))
        router.chosen, router.weights = torch.searchsorted(kept, chosen), weights.clone()
        _keep(experts, kept)
    else:
        assert isinstance(routing, Averaged)
        assert routing.of_tasks is not None
        merged, router = Merged(routing.of_tasks[0]), FixedExperts(1, 1)
        _replace(experts, lambda values: merged.mean(values)[number : number + 1])
    shared = copy.deepcopy(layer.shared)
    return MixtureOfExperts(router, experts, shared)


def _keep(experts: nn.Module, kept: Tensor) -> None:
    """These numbers of the experts alone; of mixed ones the kinds that are left."""
    if not isinstance(experts, Mixed):
        _replace(experts, lambda values: values[kept])
        return
    first = 0
    for (kind, own), size in zip(list(experts.kinds.items()), experts.sizes, strict=True):
        of_kind = kept[(kept >= first) & (kept < first + size)] - first
        first += size
        if len(of_kind):
            _keep(own, of_kind)
        else:
            del experts.kinds[kind]


def _replace(experts: nn.Module, made: Callable[[Tensor], Tensor]) -> None:
    """All tensors of stacked experts by what is made of them."""
    for module in experts.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(made(value.detach()).clone()))
