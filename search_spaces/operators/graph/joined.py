"""Encodings that join the features of the nodes in every network of a space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search_spaces.operators.graph.counted import encoding_costs
from search_spaces.operators.operator import Operator

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Joined:
    """By their labels, in the order in which they were named (`parts`)."""

    encodings: Mapping[str, Operator]

    @property
    def suffix(self) -> str:
        """What a space's name ends in, by labels: several such spaces may be in one database."""
        said = json.dumps(list(self.encodings))
        return f"-{hashlib.sha256(said.encode()).hexdigest()[:8]}" if self.encodings else ""

    def make(self) -> list[nn.Module]:
        return [one.make() for one in self.encodings.values()]

    def costs(self, nodes: int, edges: int) -> tuple[int, int, int]:
        """Features of all of them, their parameters and multiply-accumulates."""
        if not self.encodings:
            return 0, 0, 0
        found = [encoding_costs(one, nodes, edges) for one in self.encodings.values()]
        features, params, macs = (sum(column) for column in zip(*found, strict=True))
        return features, params, macs
