"""How a block is made, read off the block: its base class, plain attributes that its methods read, parts, tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training.export.python.layers import base_call, layer, public_place
from training.export.python.methods import Methods
from training.export.python.symbols import function_name
from training.export.python.terms import Argument, Build, Group, Name, Term, Unwritable, Value, is_literal
from training.export.python.unify import Record

CONTAINERS: Mapping[type, str] = {
    nn.Sequential: "nn.Sequential",
    nn.ModuleList: "nn.ModuleList",
    nn.ModuleDict: "nn.ModuleDict",
}
LITTLE = 64
"""Numbers of a tensor that are written out."""


def base_of(kind: type, own: Callable[[Any], bool]) -> type:
    """The class of a package that a block derives from in the end."""
    return next(each for each in kind.__mro__ if not own(each))


@dataclass
class Reader:
    """Reads blocks. `made`: the calls of those blocks that have a class by now, by `id`; `passes`: whether a module
    computes nothing; `imports`: the statement for each name of a package that was met."""

    own: Callable[[Any], bool]
    passes: Callable[[nn.Module], bool]
    paths: Mapping[int, str]
    made: Mapping[int, Build]
    imports: dict[str, str] = field(default_factory=dict)

    def record(self, block: nn.Module, methods: Methods) -> Record:
        """The parts of a block with these methods; the first, without a name, is its base.

        Raises Unwritable for what has no source form.
        """
        base = base_of(type(block), self.own)
        if base in CONTAINERS:
            return (("", self._group(block, CONTAINERS[base], methods)), *self._attributes(block, methods.reads))
        call, inherited = base_call(block, base, self.paths[id(block)])
        parts = (*self._attributes(block, methods.reads), *self._modules(block, methods), *self._tensors(block))
        return (("", call), *((name, term) for name, term in parts if name not in inherited))

    def _attributes(self, block: nn.Module, reads: frozenset[str]) -> Iterator[tuple[str, Term]]:
        for name in sorted(reads - {"training"}):
            if name in block._modules or name in block._parameters or name in block._buffers:
                continue
            if not hasattr(block, name):
                raise Unwritable(f"it reads self.{name}, which it does not have here")
            value = inspect.getattr_static(block, name)
            if isinstance(value, property) or (callable(value) and name not in vars(block)):
                continue
            if is_literal(value):
                yield name, Value(value)
            elif (text := function_name(value)) is not None:
                yield name, Name(text)
            else:
                raise Unwritable(f"it keeps a {type(value).__name__} in self.{name}")

    def _modules(self, block: nn.Module, methods: Methods) -> Iterator[tuple[str, Term]]:
        for name, child in block._modules.items():
            if child is None:
                if name in methods.reads:
                    yield name, Value(None)
            elif name in methods.reads or child.state_dict():
                yield name, self._term(child, methods)

    def _tensors(self, block: nn.Module) -> Iterator[tuple[str, Term]]:
        for name, parameter in block._parameters.items():
            data = None if parameter is None else Argument("data", _zeros(parameter), positional=True)
            yield name, Value(None) if data is None else Build("nn.Parameter", (data,))
        for name, buffer in block._buffers.items():
            if buffer is None:
                continue
            if name not in block._non_persistent_buffers_set:
                yield name, Build("buffer", (Argument("tensor", _zeros(buffer), positional=True),))
            elif buffer.numel() <= LITTLE:
                values = Build("torch.tensor", (Argument("data", Value(_plain(buffer.tolist())), positional=True),))
                arguments = (Argument("tensor", values, positional=True), Argument("persistent", Value(False)))
                yield name, Build("buffer", arguments)
            else:
                raise Unwritable(f"it keeps {buffer.numel()} numbers in self.{name} that are no part of its state")

    def _term(self, module: nn.Module, methods: Methods) -> Term:
        path = self.paths[id(module)]
        if self.passes(module):
            return Build("nn.Identity")
        if id(module) in self.made:
            return self.made[id(module)]
        if type(module) in CONTAINERS:
            return self._group(module, CONTAINERS[type(module)], methods)
        if isinstance(module, nn.ParameterList | nn.ParameterDict):
            raise Unwritable(f"'{path}' is a {type(module).__name__}")
        found = layer(module, path)
        if not found.callee.startswith("nn."):
            self.imports[found.callee] = f"from {public_place(type(module))} import {found.callee}"
        return found

    def _group(self, module: nn.Module, callee: str, methods: Methods) -> Group:
        items = []
        for name, child in module._modules.items():
            if child is None:
                raise Unwritable(f"'{self.paths[id(module)]}' has an empty place")
            # What computes nothing, or is not computed, holds a place only where places are counted.
            unused = self.passes(child) or (not child.state_dict() and not methods.calls(name))
            if callee != "nn.ModuleDict" or not unused:
                items.append((name, self._term(child, methods)))
        return Group(callee, tuple(items))


def _zeros(tensor: Tensor) -> Build:
    """A tensor of that shape, to be filled from the weights."""
    sizes = [Argument(f"size{n}", Value(size), positional=True, role="width") for n, size in enumerate(tensor.shape)]
    if not sizes:
        sizes = [Argument("size", Value(()), positional=True)]
    dtype = [] if tensor.dtype == torch.float32 else [Argument("dtype", Name(str(tensor.dtype)))]
    return Build("torch.zeros", (*sizes, *dtype))


def _plain(values: Any) -> Any:
    """Nested lists as tuples, which can be told apart by their hash where blocks of one class have others."""
    return tuple(map(_plain, values)) if isinstance(values, list) else values
