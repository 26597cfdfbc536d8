"""The optimisers of recipes, and which parameters they pull to zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from nas_core.traits import HasNoDecay

if TYPE_CHECKING:
    from training.recipe import Recipe


def make_optimizer(recipe: Recipe, groups: list[dict[str, Any]], device: torch.device) -> Optimizer:
    """The recipe's optimiser of groups of parameters; its learning rate is set at the start of every epoch."""
    common: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    common["fused"] = True if device.type in ("cpu", "cuda") else None
    if recipe.optimizer == "sgd":
        return SGD(groups, momentum=recipe.momentum, nesterov=recipe.nesterov, **common)
    kind = Adam if recipe.optimizer == "adam" else AdamW
    return kind(groups, betas=(recipe.momentum, 0.999), **common)


def parameter_groups(network: nn.Module, *, decay_all: bool = True) -> list[dict[str, Any]]:
    """The parameters that decay, and where there are such those that do not: what modules exempt
    (`nas_core.traits.HasNoDecay`) and, without `decay_all`, biases and the weights of normalisations."""
    bringing = [module for module in network.modules() if isinstance(module, HasNoDecay)]
    exempt = {id(parameter) for module in bringing for parameter in module.no_decay()}

    def decays(parameter: nn.Parameter) -> bool:
        return id(parameter) not in exempt and (decay_all or parameter.dim() > 1)

    groups: list[dict[str, Any]] = [{"params": []}, {"params": [], "weight_decay": 0.0}]
    for parameter in network.parameters():
        groups[0 if decays(parameter) else 1]["params"].append(parameter)
    return [group for group in groups if group["params"]]
