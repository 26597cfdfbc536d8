"""Pairs of a normalisation and an activation in a network that is no host yet, found in its graph and replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from nas_core.errors import UsageError
from search_spaces.hosts.slot import ChannelsLast, Slot

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.LayerNorm)
ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU),
    *(nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Softplus, nn.Tanh),
)
FUNCTIONS: Mapping[Any, str] = {
    getattr(where, name): name
    for where in (functional, torch)
    for name in (
        "relu",
        "relu_",
        "relu6",
        "leaky_relu",
        "elu",
        "celu",
        "selu",
        "gelu",
        "silu",
        "mish",
        "hardswish",
        "tanh",
    )
    if hasattr(where, name)
}
METHODS = ("relu", "relu_", "tanh")
SOUGHT = (
    "a normalisation (batch, group, instance or layer) whose output an activation alone reads (ReLU, SiLU, GELU, ...)"
)


def replaced(network: nn.Module, slot: Slot) -> tuple[nn.Module, list[str], list[str]]:
    """The network with the layer in the place of every pair; the pairs, and normalisations and activations that are in
    none, each in words. Weights of all else are the network's own, under the names that they had.

    Raises UsageError where the network cannot be traced, computes something else while it trains than a trace shows, or
    has no pair.
    """
    graph, modules = _traced(network), dict(network.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    pairs, left = [], []
    found = [
        (node, after)
        for node in graph.nodes
        if _is_norm(node, modules) and calls[node.target] == 1 and len(node.users) == 1
        for after in node.users
        if _activation(after, modules) is not None and after.args[:1] == (node,)
    ]
    paired = {node for pair in found for node in pair}
    for node in graph.nodes:
        if node not in paired and (_is_norm(node, modules) or _activation(node, modules) is not None):
            left.append(_named(node, modules))
    if not found:
        raise UsageError(
            f"has no pair to put a layer in the place of: looked for {SOUGHT}, and found "
            f"{', '.join(left[:6]) or 'neither'}; replace one by hand, as net(task, slot)"
        )
    made = fx.GraphModule(network, graph)
    for node, after in found:
        norm = modules[node.target]
        pairs.append(f"{_named(node, modules)} with {_named(after, modules)}")
        made.set_submodule(node.target, _layer(norm, slot))
        after.replace_all_uses_with(node)
        graph.erase_node(after)
    made.delete_all_unused_submodules()
    made.recompile()
    return made, pairs, left


def _traced(network: nn.Module) -> fx.Graph:
    graphs = []
    training = network.training
    for mode in (False, True):
        network.train(mode)
        try:
            graphs.append(fx.Tracer().trace(network))
        except Exception as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UsageError(f"cannot be traced ({said}); put the layer in by hand, as net(task, slot)") from error
    network.train(training)
    if graphs[0].python_code("self").src != graphs[1].python_code("self").src:
        raise UsageError(
            "computes something else while it trains by itself (such as functional.dropout), which a trace cannot "
            "follow; use modules for it, or put the layer in by hand, as net(task, slot)"
        )
    return graphs[1]


def _is_norm(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op != "call_module" or not isinstance(modules[str(node.target)], NORMS):
        return False
    norm = modules[str(node.target)]
    return not isinstance(norm, nn.LayerNorm) or len(norm.normalized_shape) == 1


def _activation(node: fx.Node, modules: Mapping[str, nn.Module]) -> str | None:
    """What an activation is called; None: it is none."""
    if node.op == "call_module":
        target = str(node.target)
        return target if isinstance(modules[target], ACTIVATIONS) else None
    if node.op == "call_function":
        return FUNCTIONS.get(node.target)
    return str(node.target) if node.op == "call_method" and node.target in METHODS else None


def _named(node: fx.Node, modules: Mapping[str, nn.Module]) -> str:
    """`layer1.bn (BatchNorm2d)`, or the name of a function."""
    if node.op != "call_module":
        return str(_activation(node, modules))
    return f"{node.target} ({type(modules[str(node.target)]).__name__})"


def _layer(norm: nn.Module, slot: Slot) -> nn.Module:
    if isinstance(norm, nn.LayerNorm):
        return ChannelsLast(slot(norm.normalized_shape[0]))
    channels = norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features
    return slot(int(channels))
