"""The groups of a network, read off the graph that `torch.export` traces.

The graph is walked once per choice of what views split (`compressors.groups.walk`), classes of united ids become units,
and what was found is tried on a copy with half of every group removed: a network whose own code holds a size fails
there, and what it fails for is fixed.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor, fx, nn

from compressors.comparison import answers
from compressors.groups.groups import Factor, Fixed, Group, Groups, Product, Slice, Unit
from compressors.groups.operators import RULES
from compressors.groups.program import Program, program_of
from compressors.groups.removal import first_names, tensors_of
from compressors.groups.rules.call import Call, Result, plain, unknown
from compressors.groups.trial import FORWARD, tried
from compressors.groups.walk import Axis, Event, Ids, Reason, Value, Walk
from nas_core.errors import UsageError, nearest

OUTPUT, IGNORED = "output", "ignored"


def trace(network: nn.Module, inputs: Sequence[Tensor], ignored: Collection[str] = ()) -> Groups:
    """All groups of a network that is called with `inputs`; `ignored` modules stay, with all that is within them. The
    network is left as it is.

    Raises UsageError for a network that cannot be traced and for a module that it does not have.
    """
    began = time.perf_counter()
    modules = [name for name, _ in network.named_modules() if name]
    for name in ignored:
        if name not in modules:
            raise UsageError(f"there is no module '{name}' to be ignored{nearest(name, modules)}")
    twin = copy.deepcopy(network).eval()
    program = program_of(twin, inputs)
    found = tried(twin, graph_groups(twin, program, ignored), inputs)
    if lost := _lost(found):
        other = tried(twin, graph_groups(twin, program, ignored, finest=False), inputs)
        found = other if _lost(other) < lost else found
    return replace(found, seconds=time.perf_counter() - began)


def _lost(groups: Groups) -> int:
    """How many units could not be removed in truth."""
    return sum(one.units for one in groups.fixed if one.operator == FORWARD)


def graph_groups(network: nn.Module, program: Program, ignored: Collection[str] = (), finest: bool = True) -> Groups:
    """The groups that the graph of a program of this network says, untried; `finest`: of what a view splits a dimension
    into, the one of the most units goes on, where several could, else the last."""
    walk, used = _walked(network, program, ignored, None)
    if walk.splits or walk.undecided:
        walk, used = _walked(network, program, ignored, _choices(walk, finest))
    return _grouped(walk, used)


@dataclass
class Used:
    """Ids of tensors by the first name; `order`: which node reads it first."""

    ids: dict[str, list[Ids | None]]
    order: dict[str, int]


def _walked(
    network: nn.Module, program: Program, ignored: Collection[str], choices: Mapping[str, int] | None
) -> tuple[Walk, Used]:
    walk = Walk(choices)
    used = Used({}, {})
    first, held = first_names(network), tensors_of(network)
    for name, tensor in held.items():
        used.ids[name] = [walk.fresh(size) if size > 1 else None for size in tensor.shape]
    signature = program.exported.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    values: dict[fx.Node, Any] = {}
    places = {node: place for place, node in enumerate(program.exported.graph.nodes)}
    for node in places:
        walk.operator, walk.at = _operator(node), _module(node)
        if node.op == "placeholder":
            source = first.get(names.get(node.name, ""))
            values[node] = (
                _plain_value(program.met.get(node)) if source is None else _held_value(held[source], used.ids[source])
            )
            if source is not None and node.users:
                first_read = min(places[one] for one in node.users)
                used.order[source] = min(first_read, used.order.get(source, first_read))
        elif node.op == "call_function":
            values[node] = _called(walk, node, _shapes(program.met.get(node)), values)
        elif node.op == "output":
            walk.operator = OUTPUT
            for value in _values_of(node.args, values):
                for dim in value.dims:
                    walk.fix(dim, "is an output of the network")
        else:
            values[node] = _plain_value(program.met.get(node))
    walk.operator = IGNORED
    for name in held:
        for module in (module for module in ignored if name.startswith(f"{module}.")):
            walk.at = module
            walk.fixed[:0] = [Event(ids, walk.reason("is to be ignored")) for ids in used.ids[name] if ids is not None]
    return walk, used


def _held_value(tensor: Tensor, ids: Sequence[Ids | None]) -> Value:
    dims = tuple(None if one is None else Axis(one, np.ones(len(one), dtype=bool)) for one in ids)
    return Value(tuple(tensor.shape), dims, parameter=True)


def _plain_value(met: Any) -> Any:
    return plain(tuple(met.shape)) if isinstance(met, Tensor) else met


def _operator(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))


def _module(node: fx.Node) -> str:
    """The path of the module that a node is run in."""
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""


def _shapes(met: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(one.shape) for one in answers(met))


def _values_of(arguments: Any, values: Mapping[fx.Node, Any]) -> Iterator[Value]:
    for one in arguments:
        found = values.get(one) if isinstance(one, fx.Node) else one
        if isinstance(found, Value):
            yield found
        elif isinstance(found, list | tuple):
            yield from _values_of(found, values)


def _called(walk: Walk, node: fx.Node, shapes: tuple[tuple[int, ...], ...], values: dict[fx.Node, Any]) -> Any:
    def known(argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return values.get(argument)
        if isinstance(argument, list | tuple):
            return [known(one) for one in argument]
        return argument

    target: Any = node.target
    if getattr(target, "__name__", "") == "getitem":
        held = known(node.args[0])
        return held[node.args[1]] if isinstance(held, list) else held
    schema = getattr(target, "_schema", None)
    if schema is None:  # a region of operators that is run as one
        values_in = list(_values_of(node.all_input_nodes, values))
        return unknown(walk, Call(node.name, {"inputs": values_in}, shapes)) if shapes else None
    names = [argument.name for argument in schema.arguments]
    given: dict[str, Any] = {
        argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()
    }
    given |= dict(zip(names, map(known, node.args), strict=False))
    given |= {name: known(value) for name, value in node.kwargs.items()}
    if not shapes:
        return None
    name = schema.name.rpartition("::")[2]
    in_place = name.endswith("_")
    walk.operator = name
    call = Call(node.name, given, shapes)
    made: Result = RULES.get(name.rstrip("_") if in_place else name, unknown)(walk, call)
    if in_place and isinstance(node.args[0], fx.Node):
        values[node.args[0]] = made
    return made


def _choices(walk: Walk, finest: bool) -> dict[str, int]:
    """Which of its new dimensions each split goes on in: one that nothing fixes, where it can be one whose removal is
    exact, one that other splits have chosen, the one of the most units, the last; not `finest`: the last that nothing
    fixes."""
    labels = walk.classes()
    fixed = set(np.concatenate([labels[event.ids] for event in walk.fixed]).tolist()) if walk.fixed else set()
    blurred = set(np.concatenate([labels[event.ids] for event in walk.inexact]).tolist()) if walk.inexact else set()

    def hit(ids: Ids, classes: set[int]) -> bool:
        return bool(classes.intersection(labels[ids].tolist()))

    chosen: set[int] = set()
    choices: dict[str, int] = {}

    def options(name: str) -> list[int]:
        ids = walk.splits[name].ids
        ranks = {place: (hit(one, fixed), finest and hit(one, blurred)) for place, one in ids.items()}
        return [place for place, rank in ranks.items() if rank == min(ranks.values())]

    for name in sorted(walk.splits, key=lambda name: len(options(name))):
        ids = walk.splits[name].ids
        ranks = {place: (hit(ids[place], chosen), len(ids[place]), place) for place in options(name)}
        choices[name] = max(ranks, key=lambda place: ranks[place]) if finest else max(ranks)
        chosen.update(labels[ids[choices[name]]].tolist())
    return choices


# Classes of ids become units, units become groups.

Key: TypeAlias = tuple[int, int, bool]
"""Tensor, dimension, and whether it is produced (else consumed) there."""


@dataclass(frozen=True, slots=True)
class _Class:
    """A set of ids that go together; `root`: order, number and position of what produces it first."""

    label: int
    slices: Mapping[Key, tuple[int, ...]]
    root: tuple[int, int, int]

    @property
    def kind(self) -> tuple[tuple[int, int, bool, int], ...]:
        return tuple(sorted((*key, len(places)) for key, places in self.slices.items()))


def _grouped(walk: Walk, used: Used) -> Groups:
    names = list(used.ids)
    owners = [name.rpartition(".")[0] or name for name in names]
    labels = walk.classes()
    fixed, inexact = (_by_class(events, labels) for events in (walk.fixed, walk.inexact))
    kinds: dict[Any, list[_Class]] = {}
    stays: dict[tuple[str, Reason], int] = {}
    for one in sorted(_classes(walk, used, labels), key=lambda one: one.root):
        if one.label in fixed:
            _, root, _ = one.root
            rows = sum(len(places) for key, places in one.slices.items() if key[0] == root and key[2])
            key = owners[root], fixed[one.label]
            stays[key] = stays.get(key, 0) + rows
        else:
            kinds.setdefault((one.kind, one.label in inexact), []).append(one)
    groups: list[Group] = []
    alone: list[Fixed] = []
    number: dict[str, int] = {}
    group_of = np.full(int(labels.max(initial=-1)) + 1, -1, dtype=np.int64)
    for classes in kinds.values():
        owner = owners[classes[0].root[1]]
        if len(classes) == 1:
            text = "all of it can only go together"
            alone.append(Fixed(owner, sum(len(one) for one in classes[0].slices.values()), "", owner, text))
            continue
        number[owner] = number.get(owner, 0) + 1
        reason = inexact.get(classes[0].label)
        group_of[[one.label for one in classes]] = len(groups)
        groups.append(
            Group(
                name=owner if number[owner] == 1 else f"{owner}#{number[owner]}",
                units=tuple(_unit(names, one) for one in classes),
                exact=reason is None,
                why="" if reason is None else f"{reason.operator} in '{reason.at}' {reason.text}",
            )
        )
    found = [Fixed(owner, count, reason.operator, reason.at, reason.text) for (owner, reason), count in stays.items()]
    return Groups(tuple(groups), (*found, *alone), 0.0, _products(walk, labels, group_of, groups))


def _classes(walk: Walk, used: Used, labels: Ids) -> Iterator[_Class]:
    """All sets of ids that a value which is read is produced by."""
    tensor, dim, position = (np.full(walk.size, -1, dtype=np.int64) for _ in range(3))
    for number, (name, dims) in enumerate(used.ids.items()):
        for place, ids in enumerate(dims):
            if ids is not None and name in used.order:
                tensor[ids], dim[ids], position[ids] = number, place, np.arange(len(ids))
    consumed, still = (np.zeros(walk.size, dtype=bool) for _ in range(2))
    for ids in walk.consumed:
        consumed[ids] = True
    for ids in walk.produced:  # a table that is an embedding and a map at once
        consumed[ids] = False
    for one, other in reversed(walk.tied):
        consumed[other] |= consumed[one]
    for ids in walk.still:
        still[ids] = True
    order = [used.order.get(name, 0) for name in used.ids]
    members = np.flatnonzero((tensor >= 0) & ~still)
    members = members[np.argsort(labels[members], kind="stable")]
    for label, group in groupby(members.tolist(), key=lambda one: int(labels[one])):
        slices: dict[Key, list[int]] = {}
        for each in group:
            key = int(tensor[each]), int(dim[each]), not consumed[each]
            slices.setdefault(key, []).append(int(position[each]))
        roots = [(order[key[0]], key[0], min(places)) for key, places in slices.items() if key[2]]
        if roots:
            yield _Class(label, {key: tuple(places) for key, places in slices.items()}, min(roots))


def _by_class(events: Sequence[Event], labels: Ids) -> dict[int, Reason]:
    """The first event of every class."""
    found: dict[int, Reason] = {}
    for event in events:
        for label in np.unique(labels[event.ids]).tolist():
            found.setdefault(label, event.reason)
    return found


def _unit(names: Sequence[str], one: _Class) -> Unit:
    made: dict[bool, list[Slice]] = {True: [], False: []}
    for (tensor, dim, produced), places in one.slices.items():
        made[produced].append(Slice(names[tensor], dim, places))
    return Unit(produced=tuple(made[True]), consumed=tuple(made[False]))


def _products(walk: Walk, labels: Ids, group_of: Ids, groups: Sequence[Group]) -> tuple[Product, ...]:
    """What is multiplied, by the units that are kept."""
    made: dict[tuple[Any, ...], int] = {}
    for counted in walk.counted:
        constant, factors = counted.constant, []
        for ids in counted.axes:
            whose = group_of[labels[ids]]
            per = {
                groups[one].name: int((whose == one).sum()) // len(groups[one].units)
                for one in np.unique(whose[whose >= 0])
            }
            if per:
                factors.append((len(ids), tuple(per.items())))
            else:
                constant *= len(ids)
        key = tuple(sorted(factors))
        made[key] = made.get(key, 0) + constant
    return tuple(
        Product(constant, tuple(Factor(size, dict(per)) for size, per in factors)) for factors, constant in made.items()
    )


# What was found is tried.
