"""The constructor call of a layer that a package holds (`torch.nn`, PyTorch Geometric), read off the layer itself."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from training.export.python.terms import Argument, Build, Role, Unwritable, Value, is_literal

ROLES: Mapping[str, Role] = {
    "in_channels": "in",
    "in_features": "in",
    "input_size": "in",
    "out_channels": "out",
    "out_features": "out",
    "num_features": "width",
    "num_channels": "width",
    "normalized_shape": "width",
    "hidden_size": "width",
    "embed_dim": "width",
}

_PAIRED = frozenset({"kernel_size", "stride", "padding", "dilation", "output_size", "output_padding", "scale_factor"})
_PLACES = frozenset({"device", "dtype"})


def layer(module: nn.Module, path: str) -> Build:
    """The call that makes such a layer; only what differs from the defaults is written.

    Raises Unwritable where the layer does not show what it was made of.
    """
    kind = type(module)
    arguments = _arguments(module, kind)
    build = Build(qualified(kind), arguments)
    try:
        again = _made(kind, arguments)
    except Exception as error:
        raise Unwritable(f"'{path}', a {kind.__name__}, does not show what it was made of ({error})") from error
    if _facts(again) != _facts(module):
        raise Unwritable(f"'{path}', a {kind.__name__}, was changed after it was made, or does not show how it was")
    return replace(build, arguments=tuple(_without_need(kind, arguments)))


def _without_need(kind: type[nn.Module], arguments: tuple[Argument, ...]) -> Iterator[Argument]:
    """The arguments, where those count as defaults that the layer would have anyway (the stride of a pooling)."""
    facts = _facts(_made(kind, arguments))
    for argument in arguments:
        if argument.default is not None and argument.default != argument.term:
            others = tuple(each for each in arguments if each is not argument)
            if _facts(_made(kind, others)) == facts:
                argument = replace(argument, default=argument.term)
        yield argument


def base_call(module: nn.Module, base: type[nn.Module], path: str) -> tuple[Build, frozenset[str]]:
    """The call of a base class by which a block's `__init__` begins, and the names that this call sets up."""
    if base is nn.Module:
        return Build("super().__init__"), frozenset()
    arguments = _arguments(module, base)
    try:
        made = _made(base, arguments)
    except Exception as error:
        raise Unwritable(
            f"'{path}' derives from {base.__name__}, whose arguments it does not show ({error})"
        ) from error
    names = {*made._modules, *made._parameters, *made._buffers, *vars(made)}
    return Build("super().__init__", arguments), frozenset(names)


def qualified(kind: type) -> str:
    """The name that a class is written by: `nn.Conv2d`, or its own, imported from the shortest public place."""
    return f"nn.{kind.__name__}" if getattr(nn, kind.__name__, None) is kind else kind.__name__


def public_place(thing: Any) -> str:
    """The outermost loaded package that exports a class or function under its name."""
    parts = thing.__module__.split(".")
    for length in range(1, len(parts) + 1):
        place = ".".join(parts[:length])
        if getattr(sys.modules.get(place), thing.__name__, None) is thing:
            return place
    return str(thing.__module__)


def _arguments(module: nn.Module, kind: type[nn.Module]) -> tuple[Argument, ...]:
    found = []
    for parameter in list(inspect.signature(kind.__init__).parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.name in _PLACES:
            continue
        required = parameter.default is parameter.empty
        value = _value(module, parameter.name, parameter.default)
        if value is _UNKNOWN:
            if required:
                raise Unwritable(f"{kind.__name__} does not keep its '{parameter.name}'")
            continue
        default = (
            None if required or not is_literal(parameter.default) else Value(_narrow(parameter.name, parameter.default))
        )
        found.append(
            Argument(
                parameter.name,
                Value(value),
                default,
                required and parameter.kind != parameter.KEYWORD_ONLY,
                ROLES.get(parameter.name, "other"),
            )
        )
    return tuple(found)


_UNKNOWN = object()


def _value(module: nn.Module, name: str, default: Any) -> Any:
    """What the layer was given, as it keeps it: an attribute of that name, or whether it has such a part."""
    if name in module._parameters or name in module._modules:
        part = module._parameters.get(name) if name in module._parameters else module._modules[name]
        return part is not None if isinstance(default, bool) else _UNKNOWN
    value = getattr(module, name, _UNKNOWN)
    if value is _UNKNOWN or not is_literal(value):
        return _UNKNOWN
    return _narrow(name, value)


def _narrow(name: str, value: Any) -> Any:
    """One number for equal ones along all sides."""
    if name in _PAIRED and isinstance(value, tuple) and len(set(value)) == 1 and type(value[0]) is int:
        return value[0]
    if name == "normalized_shape" and isinstance(value, tuple) and len(value) == 1:
        return value[0]
    return value


def _made(kind: type[nn.Module], arguments: tuple[Argument, ...]) -> nn.Module:
    values: dict[str, Any] = {}
    for argument in arguments:
        assert isinstance(argument.term, Value)
        values[argument.name] = argument.term.value
    with torch.device("meta"):
        return kind(**values)


def _facts(module: nn.Module) -> Any:
    """What two layers that were made alike have in common."""
    plain = {
        name: _narrow(name, value)
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and is_literal(value)
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    return plain, shapes, [(name, type(part)) for name, part in module.named_modules()]
