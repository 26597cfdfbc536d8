"""Values that stand for tensors: whatever is computed with them is written down as an expression."""

from __future__ import annotations

import ast
import dis
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from training.export.python.layers import public_place
from training.export.python.terms import Unwritable, is_literal, literal

_OPERATORS: Mapping[str, type[ast.operator]] = {
    "add": ast.Add,
    "sub": ast.Sub,
    "mul": ast.Mult,
    "truediv": ast.Div,
    "floordiv": ast.FloorDiv,
    "mod": ast.Mod,
    "matmul": ast.MatMult,
    "pow": ast.Pow,
}
_IN_PLACE = {"add_": "add", "sub_": "sub", "mul_": "mul", "div_": "truediv"}
_SIZES = frozenset({"size", "dim", "numel"})


@dataclass(eq=False)
class Node:
    """A value of the pass; the names `%N` in the expression are other values."""

    number: int
    expression: ast.expr
    cheap: bool = False  # written again wherever it is read
    items: tuple[Node, ...] = ()  # of a tuple that is unpacked
    whole: Node | None = None  # the tuple of such an item

    @property
    def reference(self) -> ast.Name:
        return ast.Name(f"%{self.number}", ast.Load())


@dataclass
class Tape:
    """The values of a pass in the order in which they are computed."""

    nodes: list[Node] = field(default_factory=list)
    imports: set[tuple[str, str]] = field(default_factory=set)

    def add(self, expression: ast.expr, cheap: bool = False) -> Symbol:
        self.nodes.append(Node(len(self.nodes), expression, cheap))
        return Symbol(self, self.nodes[-1])

    def call(self, function: ast.expr, args: Sequence[Any], kwargs: Mapping[str, Any], cheap: bool = False) -> Symbol:
        words = [ast.keyword(name, written(value)) for name, value in kwargs.items()]
        return self.add(ast.Call(function, [written(value) for value in args], words), cheap)


class Symbol:
    """Stands for a tensor."""

    def __init__(self, tape: Tape, node: Node) -> None:
        self._tape, self._node = tape, node

    @classmethod
    def __torch_function__(
        cls, func: Any, kinds: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Symbol:
        return _tape(args, kwargs or {}).call(_function(func), *given(func, args, kwargs or {}))

    def __getattr__(self, name: str) -> Symbol:
        if name.startswith("__"):
            raise AttributeError(name)
        return Attribute(self, name)

    def __getitem__(self, key: Any) -> Symbol:
        return self._tape.add(ast.Subscript(written(self), written(key), ast.Load()))

    def __iter__(self) -> Iterator[Symbol]:
        caller = sys._getframe(1)
        step = next(each for each in dis.get_instructions(caller.f_code) if each.offset == caller.f_lasti)
        if step.opname != "UNPACK_SEQUENCE":
            raise Unwritable("it goes through the items of a tensor")
        items = [self[position] for position in range(int(step.arg or 0))]
        self._node.items = tuple(item._node for item in items)
        for item in items:
            item._node.whole = self._node
        return iter(items)

    def __bool__(self) -> bool:
        raise Unwritable("it decides by a value that is known only when it runs")

    def __neg__(self) -> Symbol:
        return self._tape.add(ast.UnaryOp(ast.USub(), written(self)))


class Attribute(Symbol):
    """An attribute of a tensor, or a method of it that is yet to be called."""

    def __init__(self, of: Symbol, name: str) -> None:
        made = of._tape.add(ast.Attribute(written(of), name, ast.Load()), cheap=True)
        super().__init__(of._tape, made._node)
        self._of, self._name = of, name

    def __call__(self, *args: Any, **kwargs: Any) -> Symbol:
        if self._name in _IN_PLACE and len(args) == 1 and not kwargs:
            self._of._node = _binary(self._of, args[0], _IN_PLACE[self._name])._node
            return self._of
        if self._name.endswith("_"):
            raise Unwritable(f"it changes a tensor in place ({self._name})")
        method = ast.Attribute(written(self._of), self._name, ast.Load())
        return self._tape.call(method, args, kwargs, cheap=self._name in _SIZES)


def _binary(one: Any, other: Any, name: str) -> Symbol:
    return _tape([one, other], {}).add(ast.BinOp(written(one), _OPERATORS[name](), written(other)))


def _install(name: str) -> None:
    setattr(Symbol, f"__{name}__", lambda self, other: _binary(self, other, name))
    setattr(Symbol, f"__r{name}__", lambda self, other: _binary(other, self, name))


for _name in _OPERATORS:
    _install(_name)


def written(value: Any) -> ast.expr:
    """A value as an expression. Raises Unwritable for what has no source form."""
    if isinstance(value, Symbol):
        return value._node.reference
    if isinstance(value, list):
        return ast.List([written(item) for item in value], ast.Load())
    if isinstance(value, tuple):
        return ast.Tuple([written(item) for item in value], ast.Load())
    if isinstance(value, slice):
        return ast.Slice(*(None if part is None else written(part) for part in (value.start, value.stop, value.step)))
    if value is Ellipsis:
        return ast.Constant(...)
    if isinstance(value, torch.dtype):
        return ast.parse(str(value), mode="eval").body
    if is_literal(value):
        return ast.parse(literal(value), mode="eval").body
    raise Unwritable(f"it uses a {type(value).__name__}, which has no source form")


def _tape(*places: Any) -> Tape:
    found = next(symbols(list(places)), None)
    assert found is not None
    return found._tape


def symbols(value: Any) -> Iterator[Symbol]:
    if isinstance(value, Symbol):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from symbols(item)
    elif isinstance(value, dict):
        yield from symbols(list(value.values()))


def function_name(func: Any) -> str | None:
    """The public name of a function of torch; None for anything else."""
    name = getattr(func, "__name__", "")
    places = (("torch", torch), ("functional", functional))
    return next((f"{place}.{name}" for place, module in places if getattr(module, name, None) is func), None)


def _function(func: Any) -> ast.expr:
    name = function_name(func)
    if name is None:
        raise Unwritable(f"it uses the function {func}, which is in neither torch nor torch.nn.functional")
    return ast.parse(name, mode="eval").body


def given(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Arguments without those that are the defaults; torch's functions fill them in before they are seen here."""
    try:
        known = inspect.signature(func).parameters
    except (TypeError, ValueError):
        return args, kwargs
    return args, {
        name: value
        for name, value in kwargs.items()
        if name not in known or known[name].default is inspect.Parameter.empty or known[name].default != value
    }


def recorder(place: ast.expr, tape: Tape, function: Callable[..., Any] | None = None) -> Callable[..., Any]:
    def record(*args: Any, **kwargs: Any) -> Any:
        if function is None:
            return tape.call(place, args, kwargs)
        if next(symbols([list(args), kwargs]), None) is None:
            return function(*args, **kwargs)
        tape.imports.add((public_place(function), function.__name__))
        return tape.call(place, *given(function, args, kwargs))

    return record
