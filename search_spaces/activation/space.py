"""Activation functions, each after a plain normalisation.

An architecture is a tree of one to three core units (Ramachandran, Zoph and Le, "Searching for Activation Functions",
2018; `units`), or a rational function with trained coefficients (Molina et al., ICLR 2020; `layers/rational.py`), its
own in every layer or shared by all. Its network is a host (`search_spaces.hosts`) with both in all of its slots.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.graph import ArchGraph
from nas_core.space import SearchSpace, check_legal
from nas_core.task import Task
from search_spaces.activation import formula
from search_spaces.activation.units import BINARY, CONSTANT, FIRST, UNARY, Operand, Tree, Unit, live
from search_spaces.hosts import HOSTS
from search_spaces.hosts.network import HostSize, host_network, known_hosts

if TYPE_CHECKING:
    from torch import nn

UNITS = 3
TREE, RATIONAL = FAMILIES = ("tree", "rational")
DEGREES = ("3/2", "5/4", "7/6")
VERSIONS = ("A", "B", "C", "D")
STARTS = ("leaky-relu", "silu", "gelu", "tanh", "identity")
OWN, SHARED = "own", "shared"

FORMULAS: Mapping[str, str] = {
    "relu": "relu(x)",
    "leaky-relu": "max(x, leak(x))",
    "silu": "mul(x, sigmoid(x))",
    "gelu": "mul(x, phi(x))",
    "tanh": "tanh(x)",
    "mish": "mul(x, tanh(softplus(x)))",
    "swish": "mul(x, sigmoid(scale(x)))",
    "rational": "rational(5/4, A, leaky-relu, own)",
    "recurrent-rational": "rational(5/4, A, leaky-relu, shared)",
}
"""Known activations. Swish is SiLU with a trained b per channel."""


class ActivationSpace(SearchSpace):
    """Trees of up to three units and rational functions, after batch normalisation; `batch=False`: after group
    normalisation."""

    name = "activation"
    tasks = frozenset().union(*(host.kinds for host in HOSTS.values()))
    Size = HostSize
    why_not_relaxable = (
        "a mixture of unary and binary functions, each on what others have made, is no tree of the space"
    )

    def __init__(self, batch: bool = True) -> None:
        if type(batch) is not bool:
            raise UsageError(f"activation: batch is {batch!r}; use true or false")
        self._batch = batch
        self.choices = tuple(_choices())
        self.named: Mapping[str, Architecture] = MappingProxyType({n: self.from_text(t) for n, t in FORMULAS.items()})

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        """The size's host with normalisation and activation, untrained (`search_spaces.hosts.network`).

        Raises UsageError for an illegal architecture, a host that does not learn the task, or another space's size.
        """
        from search_spaces.activation.layer import NormalisedActivation

        check_legal(self, arch)
        activation = self._activation(arch)
        return host_network(
            HostSize.own(size, self.name),
            task,
            lambda channels: NormalisedActivation(channels, activation(channels), self._batch),
            self._batch,
        )

    def hosts(self, task: Task) -> Sequence[str]:
        """Those that learn the task."""
        return known_hosts(task)

    def _activation(self, arch: Architecture) -> Callable[[int], nn.Module]:
        from search_spaces.activation.layer import TreeActivation
        from search_spaces.layers.rational import Rational

        if (tree := self.tree(arch)) is not None:
            return lambda channels: TreeActivation(tree, channels)
        values: Mapping[str, Any] = arch.values
        above, below = map(int, values["degrees"].split("/"))

        def made() -> nn.Module:
            return Rational((above, below), values["version"], values["start"])

        if values["coefficients"] == OWN:
            return lambda channels: made()
        one = made()
        return lambda channels: one

    def tree(self, arch: Architecture) -> Tree | None:
        """The live units of a legal architecture; None for a rational function."""
        values: Mapping[str, Any] = arch.values
        if values["family"] == RATIONAL:
            return None
        units = []
        for number in range(1, values["units"] + 1):
            operands = []
            for side in (1, 2):
                if (unary := values.get(f"unit{number}/unary{side}")) is not None:
                    operands.append(Operand(unary, _place(values.get(f"unit{number}/in{side}", "x"))))
            units.append(Unit(values[f"unit{number}/binary"], *operands))
        return live(tuple(units))

    def architecture(self, tree: Tree) -> Architecture:
        """The architecture of a tree of at most three units."""
        partial: dict[str, Value] = {"family": TREE, "units": len(tree)}
        for number, unit in enumerate(tree, 1):
            partial[f"unit{number}/binary"] = unit.binary
            for side, each in enumerate(unit.operands, 1):
                partial[f"unit{number}/unary{side}"] = each.unary
                if number > 1 and each.unary != CONSTANT:
                    partial[f"unit{number}/in{side}"] = _named(each.place)
        return moves.complete(self, partial, moves.first)

    def identity(self, arch: Architecture) -> str:
        """Of a tree see `screens.identity`; a rational function is what its choices are."""
        from search_spaces.activation import screens

        tree = self.tree(arch)
        return arch.key if tree is None else screens.identity(tree)

    def unsound(self, arch: Architecture) -> str | None:
        """See `screens.unsound`; every rational function may be worth a training."""
        from search_spaces.activation import screens

        tree = self.tree(arch)
        return None if tree is None else screens.unsound(tree)

    def to_text(self, arch: Architecture) -> str:
        """`mul(x, sigmoid(x))` (`formula`), or `rational(5/4, A, silu, own)`: degrees, version, start, coefficients."""
        tree = self.tree(arch)
        if tree is not None:
            return formula.to_text(tree)
        return f"rational({', '.join(str(arch.values[name]) for name in _RATIONAL)})"

    def from_text(self, text: str) -> Architecture:
        """The activation of a formula. Raises ValueError with what is wrong with it, and its position."""
        found = re.fullmatch(r"\s*rational\s*\((.*)\)\s*", text)
        if found is None:
            return self.architecture(formula.from_text(text, UNITS))
        words = [word.strip() for word in found[1].split(",")]
        if len(words) != len(_RATIONAL):
            raise ValueError(f"'{text}' is not rational({', '.join(_RATIONAL)})")
        for word, (name, options) in zip(words, _RATIONAL.items(), strict=True):
            if word not in options:
                raise ValueError(f"'{text}': {name} is {word!r}, not one of {', '.join(options)}")
        return moves.complete(self, {"family": RATIONAL, **dict(zip(_RATIONAL, words, strict=True))}, moves.first)

    def graph(self, arch: Architecture) -> ArchGraph:
        """Of a tree its functions, each reading what it is applied to; of a rational function its choices in a row."""
        tree = self.tree(arch)
        if tree is None:
            return super().graph(arch)
        labels, edges = ["input"], []
        places = [0]
        for unit in tree:
            sources = []
            for each in unit.operands:
                source = 0 if each.unary == CONSTANT else places[each.place]
                labels.append(each.unary)
                edges.append((source, len(labels) - 1))
                sources.append(len(labels) - 1)
            if unit.binary != FIRST:
                labels.append(unit.binary)
                edges += [(source, len(labels) - 1) for source in sources]
            places.append(len(labels) - 1)
        return ArchGraph((*labels, "output"), (*edges, (len(labels) - 1, len(labels))))


_RATIONAL: Mapping[str, tuple[str, ...]] = {
    "degrees": DEGREES,
    "version": VERSIONS,
    "start": STARTS,
    "coefficients": (OWN, SHARED),
}


def _choices() -> Iterator[Choice]:
    yield Choice("family", FAMILIES, "family")
    yield Choice("units", tuple(range(1, UNITS + 1)), "units", (When("family", (TREE,)),), ordered=True)
    for number in range(1, UNITS + 1):
        name, there = f"unit{number}", When("units", tuple(range(number, UNITS + 1)))
        yield Choice(f"{name}/binary", tuple(BINARY), "binary", (there,))
        for side in (1, 2):
            applied = (there,) if side == 1 else (When(f"{name}/binary", tuple(op for op in BINARY if op != FIRST)),)
            yield Choice(f"{name}/unary{side}", tuple(UNARY), "unary", applied)
            if number > 1:
                reads = When(f"{name}/unary{side}", tuple(op for op in UNARY if op != CONSTANT))
                yield Choice(f"{name}/in{side}", tuple(_named(place) for place in range(number)), "input", (reads,))
    for name, options in _RATIONAL.items():
        yield Choice(name, options, name, (When("family", (RATIONAL,)),))


def _named(place: int) -> str:
    return f"unit{place}" if place else "x"


def _place(name: str) -> int:
    return int(name.removeprefix("unit")) if name != "x" else 0
