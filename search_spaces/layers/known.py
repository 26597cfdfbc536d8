"""Layers that a host takes by name: what stands in the place of a normalisation with its activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from search_spaces.evonorm.formula import from_text
from search_spaces.evonorm.layer import EvoNormLayer
from search_spaces.evonorm.named import FORMULAS
from search_spaces.evonorm.primitives import of_batch
from search_spaces.evonorm.space import NODES
from search_spaces.layers.gdn import GDN


@dataclass(frozen=True)
class KnownLayer:
    """`made(channels)` maps `[n, channels, *positions]` to the same shape; `batch`: whether it takes moments of the
    batch, which `hosts.network.host_network` asks for."""

    made: Callable[[int], nn.Module]
    batch: bool = False


def _of_formula(text: str) -> KnownLayer:
    graph = from_text(text, NODES)
    return KnownLayer(lambda channels: EvoNormLayer(graph, channels), any(of_batch(node.op) for node in graph.nodes))


LAYERS: Mapping[str, KnownLayer] = {
    **{name: _of_formula(text) for name, text in FORMULAS.items()},
    "gdn": KnownLayer(GDN),
    "gdn1": KnownLayer(lambda channels: GDN(channels, alpha=1.0, epsilon=1.0)),
}
