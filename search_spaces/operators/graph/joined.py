"""Encodings that join the features of the nodes in every network of a space."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search_spaces.operators.graph.parts import parts
from search_spaces.operators.operator import Operator

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Joined:
    """By their labels, in the order in which they were named: `Joined.of(("laplacian(features=20)",))`."""

    encodings: Mapping[str, Operator]

    @classmethod
    def of(cls, names: Sequence[str]) -> Joined:
        """Raises as `parts`."""
        return cls(parts(encodings=names).encodings)

    @property
    def suffix(self) -> str:
        """What a space's name ends in, by labels: several such spaces may be in one database."""
        said = json.dumps(list(self.encodings))
        return f"-{hashlib.sha256(said.encode()).hexdigest()[:8]}" if self.encodings else ""

    def make(self) -> list[nn.Module]:
        return [one.make() for one in self.encodings.values()]

    def costs(self, nodes: int, edges: int) -> tuple[int, int, int]:
        """Features of all of them, their parameters and multiply-accumulates."""
        if not self.encodings:  # or torch is imported
            return 0, 0, 0
        from search_spaces.operators.graph.sample import encoding_counts

        found = [encoding_counts(one, nodes, edges) for one in self.encodings.values()]
        features, params, macs = (sum(column) for column in zip(*found, strict=True))
        return features, params, macs

    def findings(self) -> Iterator[str]:
        """What is wrong with those that are a user's own (`nas_core.space.HasFindings`)."""
        from search_spaces.operators.graph.suite import check

        for one in self.encodings.values():
            if one.own:
                yield from check(one)
