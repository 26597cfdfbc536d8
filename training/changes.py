"""Networks that differ from what their space builds: told apart, and rebuilt (`nas_core.model.Changes`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nas_core.errors import UsageError, unknown
from nas_core.model import Changes, Layer
from search_spaces.layers.carved import CarvedFeedForward

CONVOLUTION = (
    *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias", "padding_mode"),
)
BATCH_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")
CARVED = (
    *("features", "hidden", "outputs", "experts", "shared", "active", "activation", "gated", "biases", "dropout"),
)


class Select(nn.Module):
    """The entries `indices` of a dimension, in that order: `x.index_select(dim, indices)`."""

    indices: Tensor

    def __init__(self, dim: int, indices: tuple[int, ...]) -> None:
        super().__init__()
        self.dim = dim
        self.kept = tuple(indices)
        self.register_buffer("indices", torch.tensor(self.kept), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(self.dim, self.indices)


LAYERS: Mapping[str, tuple[type[nn.Module], Mapping[str, str]]] = {
    "Linear": (nn.Linear, {name: name for name in ("in_features", "out_features", "bias")}),
    "Conv1d": (nn.Conv1d, {name: name for name in CONVOLUTION}),
    "Conv2d": (nn.Conv2d, {name: name for name in CONVOLUTION}),
    "BatchNorm1d": (nn.BatchNorm1d, {name: name for name in BATCH_NORM}),
    "BatchNorm2d": (nn.BatchNorm2d, {name: name for name in BATCH_NORM}),
    "GroupNorm": (nn.GroupNorm, {name: name for name in ("num_groups", "num_channels", "eps", "affine")}),
    "LayerNorm": (nn.LayerNorm, {name: name for name in ("normalized_shape", "eps", "elementwise_affine", "bias")}),
    "Embedding": (nn.Embedding, {name: name for name in ("num_embeddings", "embedding_dim", "padding_idx")}),
    "Identity": (nn.Identity, {}),
    "ReLU": (nn.ReLU, {}),
    "SiLU": (nn.SiLU, {}),
    "GELU": (nn.GELU, {"approximate": "approximate"}),
    "Sequential": (nn.Sequential, {}),
    "Select": (Select, {"dim": "dim", "indices": "kept"}),
    "CarvedFeedForward": (CarvedFeedForward, {name: name for name in CARVED}),
}
"""The types of modules that may stand in the place of others: arguments by the attributes that hold them."""

_INTERNAL = frozenset(vars(nn.Module()))


def changes_of(base: nn.Module, network: nn.Module) -> Changes:
    """In what `network` differs from `base`, the network that its space builds.

    Raises UsageError for a module that stands in another one's place and is none of `LAYERS`.
    """
    if type(base) is not type(network):
        raise UsageError(
            f"a {type(network).__name__} cannot stand for a whole {type(base).__name__}; change parts of it"
        )
    modules: dict[str, Layer | None] = {}
    attributes: dict[str, dict[str, Any]] = {}
    for path, old, new in _pairs(base, network, ""):
        if new is None or type(old) is not type(new):
            modules[path] = None if new is None else _layer(path, new)
            continue
        before, after = _plain(old), _plain(new)
        differing = {name: _listed(value) for name, value in after.items() if _differs(before, name, value)}
        if differing:
            attributes[path] = differing
    kept = rebuilt(base, Changes(modules=modules, attributes=attributes))
    before_shapes, after_shapes = _shapes(kept), _shapes(network)
    names = dict.fromkeys((*after_shapes, *before_shapes))
    shapes = {name: after_shapes.get(name) for name in names if before_shapes.get(name) != after_shapes.get(name)}
    return Changes(modules=modules, attributes=attributes, shapes=shapes)


def rebuilt(base: nn.Module, changes: Changes) -> nn.Module:
    """A copy of `base` with the changes; tensors of another shape are zeros. Raises as `apply`."""
    import copy

    network = copy.deepcopy(base)
    apply(network, changes)
    return network


def apply(network: nn.Module, changes: Changes, of: str = "the changes") -> None:
    """Change a network as its space builds it, in place; tensors of another shape become zeros.

    Raises UsageError, naming where the changes come from (`of`), for ones that do not fit.
    """
    for path, layer in changes.modules.items():
        parent, name = _parent(network, path, of)
        new = None if layer is None else _made(layer, of).train(parent.training)
        setattr(parent, name, new)  # in the place of a function too
    for path, values in changes.attributes.items():
        module = _module(network, path, of)
        for name, value in values.items():
            if name in _INTERNAL or not hasattr(module, name):
                raise UsageError(f"{of} do not fit: '{path}' ({type(module).__name__}) has no attribute '{name}'")
            setattr(module, name, _like(getattr(module, name), value))
    made: dict[int, Tensor] = {}  # by the tensor in whose place it is: what modules share they share again
    for path, shape in changes.shapes.items():
        parent, name = _parent(network, path, of, tensor=True)
        held = parent._parameters if name in parent._parameters else parent._buffers
        old = held[name]
        if shape is None:
            held[name] = None
        else:
            held[name] = made[id(old)] if id(old) in made else _zeros(shape, old, held is parent._parameters)
            if old is not None:
                made[id(old)] = held[name]


def _zeros(shape: tuple[int, ...], old: Tensor | None, parameter: bool) -> Any:
    """A tensor of another shape in the place of `old`."""
    new = torch.zeros(shape) if old is None else torch.zeros(shape, dtype=old.dtype, device=old.device)
    return nn.Parameter(new, old is None or old.requires_grad) if parameter else new


def _pairs(old: nn.Module, new: nn.Module, path: str) -> Iterator[tuple[str, nn.Module | None, nn.Module | None]]:
    """Modules of the same name in both, and those of one only (the other is None), the outer ones first; what is inside
    of a replaced one is not looked at."""
    yield path, old, new
    for name in dict.fromkeys((*old._modules, *new._modules)):
        inside = f"{path}.{name}" if path else name
        before, after = old._modules.get(name), new._modules.get(name)
        if before is None and after is None:
            continue
        if before is None or after is None or type(before) is not type(after):
            yield inside, before, after
        else:
            yield from _pairs(before, after, inside)


def _plain(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module that are plain data."""
    return {name: value for name, value in vars(module).items() if name not in _INTERNAL and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _differs(before: Mapping[str, Any], name: str, value: Any) -> bool:
    return name not in before or _listed(before[name]) != _listed(value)


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value] if isinstance(value, tuple | list) else value


def _like(old: Any, value: Any) -> Any:
    """A stored value with lists as the attribute has them; a number of a tuple stays what it is."""
    if isinstance(value, list | tuple) and not isinstance(old, list):
        return tuple(_like(None, one) for one in value)
    return value


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _layer(path: str, module: nn.Module) -> Layer:
    """A module as its type and arguments. Raises UsageError for one that is not in the table."""
    name = type(module).__name__
    known = LAYERS.get(name)
    if known is None or type(module) is not known[0]:
        raise UsageError(
            f"'{path}' was replaced by a {type(module).__name__}, which is no layer that a stored model may hold; "
            f"use {', '.join(LAYERS)}"
        )
    held = {argument: getattr(module, attribute) for argument, attribute in known[1].items()}
    arguments = {name: value is not None if name == "bias" else _listed(value) for name, value in held.items()}
    inside = (_layer(f"{path}.{key}", one) for key, one in module.named_children()) if name == "Sequential" else ()
    return Layer(type=name, arguments=arguments, layers=tuple(inside))


def _made(layer: Layer, of: str) -> nn.Module:
    """Raises UsageError for a type that is not in the table, or for arguments that are none of it."""
    if layer.type not in LAYERS:
        raise unknown(f"layer of {of}", layer.type, LAYERS)
    kind, arguments = LAYERS[layer.type]
    given = {name: _like(None, value) for name, value in layer.arguments.items()}
    make: Callable[..., nn.Module] = kind
    try:
        if extra := set(given) - set(arguments):
            raise TypeError(f"no argument {', '.join(sorted(extra))}")
        with torch.random.fork_rng(devices=[]):
            return make(*(_made(one, of) for one in layer.layers), **given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{of} do not fit: {layer.type} of {layer.arguments}: {error}") from None


def _module(network: nn.Module, path: str, of: str) -> nn.Module:
    try:
        return network.get_submodule(path)
    except AttributeError:
        raise UsageError(f"{of} do not fit: the network has no module '{path}'") from None


def _parent(network: nn.Module, path: str, of: str, tensor: bool = False) -> tuple[nn.Module, str]:
    above, _, name = path.rpartition(".")
    parent = _module(network, above, of)
    held = {**parent._parameters, **parent._buffers} if tensor else parent._modules
    if not name or (tensor and name not in held):
        raise UsageError(f"{of} do not fit: the network has no {'tensor' if tensor else 'module'} '{path}'")
    return parent, name
