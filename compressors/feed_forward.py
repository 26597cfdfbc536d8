"""Feed-forward layers of a network, found by what is computed: two linear maps with an activation between them.

The network is traced once by `torch.export`. Where a linear map reads `act(gate(x))`, or `act(gate(x)) * up(x)`, with
dropout or without, the three are a layer, whatever they are called; gate and up may be the halves of one map (`chunk`).
A layer can be replaced where its place is known:

- a module that computes this and nothing else (`Mlp(x) = down(act(gate(x)) * up(x))`): the module itself;
- where it is not gated, and the activation and the dropout are modules, each used once there: the first linear map; the
  others become `nn.Identity`. Neighbours in a `nn.Sequential` are such;
- in `nn.TransformerEncoderLayer` and `nn.TransformerDecoderLayer`, whose activation may be a function.

Every other one stays as it is, and is said to, with the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import getitem
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from compressors.groups.groups import Fixed
from nas_core.errors import UsageError
from search_spaces.layers.carved import ACTIVATIONS
from search_spaces.unfused import unfused

aten = torch.ops.aten

TRANSFORMER_LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows `start` to `stop` of the linear map `module`."""

    module: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class FeedForward:
    """`down(dropout(act(gate(x)) * up(x)))`; without `up` it is not gated. `place` is the module in whose place one
    that computes all of it can stand, `emptied` are those that do nothing then. `positions`: how often it is applied
    for the inputs that the network was traced with (tokens)."""

    gate: Rows
    up: Rows | None
    down: str
    activation: str
    dropout: float
    positions: int
    place: str
    emptied: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the module in whose place it is."""
        return self.place

    @property
    def width(self) -> int:
        """Hidden units."""
        return self.gate.stop - self.gate.start

    def layers(self, network: nn.Module) -> dict[str, nn.Linear]:
        """Linear maps that hold its weights: "gate", "up" (of a gated one) and "down"."""
        rows = {"gate": self.gate, "up": self.up}
        held = {name: cut(network, one) for name, one in rows.items() if one is not None}
        return {**held, "down": _linear(network, self.down)}

    def replace(self, network: nn.Module, layer: nn.Module) -> None:
        """Put a layer that computes the same in its place."""
        above, _, name = self.place.rpartition(".")
        owner = network.get_submodule(above)
        setattr(owner, name, layer)
        for path in self.emptied:
            within, _, name = path.rpartition(".")
            setattr(network.get_submodule(within), name, nn.Identity())
        if isinstance(owner, nn.TransformerEncoderLayer):
            owner.activation_relu_or_gelu = 0  # its fused path would look for the two linear maps
            for module in network.modules():
                if isinstance(module, nn.TransformerEncoder):
                    module.use_nested_tensor = False


def cut(network: nn.Module, rows: Rows) -> nn.Linear:
    """A linear map of some rows of another, which share its memory."""
    whole = _linear(network, rows.module)
    part = nn.Linear(whole.in_features, rows.stop - rows.start, whole.bias is not None, device="meta")
    part.weight = nn.Parameter(whole.weight.detach()[rows.start : rows.stop])
    if whole.bias is not None:
        part.bias = nn.Parameter(whole.bias.detach()[rows.start : rows.stop])
    return part


def feed_forwards(
    network: nn.Module, inputs: Sequence[Tensor], ignored: Collection[str] = ()
) -> tuple[tuple[FeedForward, ...], tuple[Fixed, ...]]:
    """Those of a network in evaluation mode that can be replaced, in the order of computation; and those that cannot.

    `ignored`: modules that stay, with all that is within them. Raises UsageError where it cannot be traced.
    """
    try:
        with torch.no_grad(), unfused():
            program = torch.export.export(network, tuple(inputs), strict=False)
    except Exception as error:  # whatever the user's code, or the tracer, raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UsageError(f"the network cannot be traced, so that its layers are not known: {reason}") from error
    return _Search(network, program, _called_with_one(network, inputs), ignored).found()


def _called_with_one(network: nn.Module, inputs: Sequence[Tensor]) -> frozenset[str]:
    """The modules that are called with one value and nothing else."""
    more: set[str] = set()

    def called(path: str, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if len(args) != 1 or named:
            more.add(path)

    hooks = [
        module.register_forward_pre_hook(lambda _, args, named, path=path: called(path, args, named), with_kwargs=True)
        for path, module in network.named_modules()
    ]
    try:
        with torch.no_grad(), unfused():
            network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return frozenset(path for path, _ in network.named_modules()) - more


class _Search:
    """The walk through a traced program."""

    def __init__(self, network: nn.Module, program: Any, of_one: Collection[str], ignored: Collection[str]) -> None:
        self._network, self._of_one, self._ignored = network, of_one, tuple(ignored)
        self._nodes = [node for node in program.graph.nodes if node.op == "call_function"]
        self._parameters: Mapping[str, str] = program.graph_signature.inputs_to_parameters
        self._calls: dict[str, list[Node]] = {}
        for node in self._nodes:
            for path in {path for path, _ in _stack(node)}:
                self._calls.setdefault(path, []).append(node)

    def found(self) -> tuple[tuple[FeedForward, ...], tuple[Fixed, ...]]:
        layers: list[FeedForward] = []
        fixed: list[Fixed] = []
        taken: set[Node] = set()
        for down in filter(self._is_linear, self._nodes):
            parts = self._parts(down)
            if parts is None or taken & {parts.gate, down} or (parts.up is not None and parts.up in taken):
                continue
            taken |= {parts.gate, down, *([] if parts.up is None else [parts.up])}
            layer = self._layer(parts)
            (layers if isinstance(layer, FeedForward) else fixed).append(layer)  # type: ignore[arg-type]
        return tuple(layers), tuple(dict.fromkeys(fixed))

    def _is_linear(self, node: Node) -> bool:
        """Whether a node is an `nn.Linear` of the network."""
        if node.target is not aten.linear.default or str(node.args[1]) not in self._parameters:
            return False
        return type(self._network.get_submodule(self._module(node))) is nn.Linear

    def _module(self, node: Node) -> str:
        """The module that holds the weights of a linear map."""
        return self._parameters[str(node.args[1])].rpartition(".")[0]

    def _parts(self, down: Node) -> _Parts | None:
        """What a linear map reads, where it is a feed-forward layer's hidden value."""
        between: list[Node] = []
        dropout, node = 0.0, _read(down)
        while node is not None and node.target is aten.dropout.default:
            rate = float(node.args[1])
            dropout = rate if not between else 1 - (1 - dropout) * (1 - rate)
            between.append(node)
            node = _read(node)
        if node is None:
            return None
        if node.target is aten.mul.Tensor:
            between.append(node)
            for act, other in (node.args, node.args[::-1]):
                if not isinstance(act, Node) or not isinstance(other, Node) or act.target not in _FUNCTIONS:
                    continue
                gate, up = self._half(_read(act), between), self._half(other, between)
                if gate is not None and up is not None:
                    between.append(act)
                    return _Parts(down, gate[0], gate[1], up[0], up[1], act, dropout, tuple(dict.fromkeys(between)))
            return None
        gate_node = _read(node) if node.target in _FUNCTIONS else None
        if gate_node is None or not self._is_linear(gate_node):
            return None
        between.append(node)
        return _Parts(down, gate_node, None, None, None, node, dropout, tuple(between))

    def _half(self, node: Node | None, between: list[Node]) -> tuple[Node, int | None] | None:
        """A linear map, or one of the two halves of its answer (0 or 1)."""
        if node is None:
            return None
        if self._is_linear(node):
            return node, None
        if node.target is not getitem or not isinstance(node.args[0], Node):
            return None
        halved = node.args[0]
        linear = _read(halved)
        if linear is None or not self._is_linear(linear) or not _halves(halved, linear):
            return None
        between += [halved, node]
        return linear, int(node.args[1])

    def _layer(self, parts: _Parts) -> FeedForward | Fixed:
        gate, down = self._module(parts.gate), self._module(parts.down)
        wide = _linear(self._network, gate).out_features

        def rows(linear: Node, half: int | None) -> Rows:
            start = 0 if half is None else half * (wide // 2)
            return Rows(self._module(linear), start, start + wide // (1 if half is None else 2))

        first = rows(parts.gate, parts.gate_half)
        up = None if parts.up is None else rows(parts.up, parts.up_half)

        def fixed(operator: str, at: str, reason: str) -> Fixed:
            return Fixed(gate, first.stop - first.start, operator, at, reason)

        modules = {gate, down, *([] if up is None else [up.module])}
        for path in self._ignored:
            if any(one == path or one.startswith(f"{path}.") for one in modules):
                return fixed("linear", path, "it is ignored")
        activation = _activation(parts.act)
        if activation is None:
            return fixed(_name(parts.act), _within(parts.act), "no layer is known with this activation")
        for path in modules:
            if len(self._calls[path]) > 1:
                return fixed("linear", path, "the module is used more than once")
        inputs = {parts.gate.args[0], *([] if parts.up is None else [parts.up.args[0]])}
        if len(inputs) > 1:
            return fixed("linear", down, "gate and up read different values")
        inside = {parts.gate, *parts.between, *([] if parts.up is None else [parts.up])}
        for node in inside:
            if not set(node.users) <= {*inside, parts.down}:
                return fixed(_name(node), _within(node), "something else reads it too")
        place = self._place(parts, {*inside, parts.down})
        if place is None:
            loose = parts.act if parts.up is None else parts.between[0]
            reason = "it is no module of its own: make one of the layer that does nothing else"
            return fixed(_name(loose), _within(loose), reason)
        answer = parts.down.meta["val"]
        positions = answer.numel() // answer.shape[-1]
        return FeedForward(first, up, down, activation, parts.dropout, positions, *place)

    def _place(self, parts: _Parts, nodes: Collection[Node]) -> tuple[str, tuple[str, ...]] | None:
        """Where the layer of these nodes can be replaced, and what is emptied then."""
        around = [path for path, _ in _stack(parts.down) if path and set(self._calls[path]) == set(nodes)]
        if around and around[-1] in self._of_one:
            return around[-1], ()
        if parts.up is not None:
            return None
        gate, down = self._module(parts.gate), self._module(parts.down)
        emptied = []
        for node in parts.between:
            path = _within(node)
            if isinstance(self._network.get_submodule(path), TRANSFORMER_LAYERS) and node is parts.act:
                emptied.append(f"{path}.activation")
            elif len(self._calls[path]) == 1 and not list(self._network.get_submodule(path).children()):
                emptied.append(path)
            else:
                return None
        return gate, (*emptied, down)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Nodes of a feed-forward layer; `between` lie between its linear maps."""

    down: Node
    gate: Node
    gate_half: int | None
    up: Node | None
    up_half: int | None
    act: Node
    dropout: float
    between: tuple[Node, ...]


_FUNCTIONS = {
    getattr(aten, name).default: name
    for name in (
        *("relu", "relu_", "gelu", "silu", "silu_", "tanh", "tanh_", "sigmoid", "sigmoid_", "elu", "leaky_relu"),
        *("hardswish", "hardswish_", "hardtanh", "hardsigmoid", "mish", "softplus", "relu6", "celu", "selu"),
    )
}
"""Operators that are activations, of which `search_spaces.layers.carved.ACTIVATIONS` has some."""


def _activation(node: Node) -> str | None:
    """The name of an activation in `ACTIVATIONS`."""
    name = _FUNCTIONS.get(node.target, "").removesuffix("_")
    if name == "gelu" and node.kwargs.get("approximate", "none") == "tanh":
        name = "gelu_tanh"
    return name if name in ACTIVATIONS else None


def _halves(node: Node, linear: Node) -> bool:
    """Whether a node cuts the last dimension of a linear map's answer into two equal parts."""
    width = linear.meta["val"].shape[-1]
    last = (-1, linear.meta["val"].dim() - 1)
    dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    if dim not in last:
        return False
    if node.target is aten.chunk.default:
        return node.args[1] == 2 and width % 2 == 0
    if node.target is aten.split.Tensor:
        return node.args[1] == width / 2
    return node.target is aten.split_with_sizes.default and list(node.args[1]) == [width / 2] * 2


def _stack(node: Node) -> list[tuple[str, Any]]:
    """The modules around a node with their types, the innermost one last."""
    return list((node.meta.get("nn_module_stack") or {}).values())


def _within(node: Node) -> str:
    """The innermost module around a node."""
    stack = _stack(node)
    return str(stack[-1][0]) if stack else ""


def _name(node: Node) -> str:
    return str(node.target)


def _read(node: Node) -> Node | None:
    first = node.args[0] if node.args else None
    return first if isinstance(first, Node) and first.op == "call_function" else None


def _linear(network: nn.Module, path: str) -> nn.Linear:
    found = network.get_submodule(path)
    assert isinstance(found, nn.Linear)
    return found
