"""The forward pass of one block as straight lines: it is run on symbols, and what it computes is written down.

For blocks that interpret an architecture, or share work between the candidates of a search: what is left is what this
network computes. The blocks inside are called, not looked into. The local variables of the method give the names.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import dis
import inspect
import io
import re
import sys
import tokenize
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn import functional

from search_spaces.modules.features import Shared
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


@dataclass(frozen=True)
class Pass:
    """A forward pass: the names of its inputs, its statements in order, what it returns."""

    inputs: tuple[str, ...]
    lines: tuple[str, ...]
    result: str | None
    imports: frozenset[tuple[str, str]]
    """Functions that it calls by their own name, with the packages they come from."""

    @property
    def same(self) -> bool:
        """It hands its first input on."""
        return not self.lines and self.result == self.inputs[0]


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
        return _tape(args, kwargs or {}).call(_function(func), *_given(func, args, kwargs or {}))

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
        raise Unwritable("it decides by the values of a tensor")

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
    found = next(_symbols(list(places)), None)
    assert found is not None
    return found._tape


def _symbols(value: Any) -> Iterator[Symbol]:
    if isinstance(value, Symbol):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _symbols(item)
    elif isinstance(value, dict):
        yield from _symbols(list(value.values()))


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


def _given(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
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


class Call(nn.Module):
    """A block inside of the one that is traced: it answers what the written block will be called for."""

    def __init__(self, tape: Tape, module: nn.Module, place: ast.expr, tracer: Tracer) -> None:
        super().__init__()
        vars(self).update(_tape=tape, _module=module, _place=place, _tracer=tracer)

    @property
    def __class__(self) -> Any:
        return type(vars(self)["_module"])

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_module"], name)

    def __getitem__(self, key: Any) -> Call:
        mine = vars(self)
        place = ast.Subscript(mine["_place"], written(key), ast.Load())
        return Call(mine["_tape"], mine["_module"][key], place, mine["_tracer"])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        mine = vars(self)
        module, tracer = mine["_module"], mine["_tracer"]
        real = getattr(module, "stands_for", module)
        empty = any(isinstance(argument, Shared) and argument.empty for argument in args)
        if tracer.passes(module) or (empty and not module.state_dict() and real(*args, **kwargs) is None):
            return real(*args, **kwargs)
        tensors = [argument.tensor if isinstance(argument, Shared) else argument for argument in args]
        return mine["_tape"].call(mine["_place"], tensors[: _arity(module)], kwargs)


def _arity(module: nn.Module) -> int:
    """How many inputs a block takes; a plain layer may take fewer than the one it stands for."""
    parameters = inspect.signature(module.forward).parameters.values()
    return 99 if any(each.kind == each.VAR_POSITIONAL for each in parameters) else len(parameters)


@dataclass
class Tracer:
    """Traces blocks; `own` says which classes are blocks to be written, rather than layers of a package."""

    own: Callable[[type], bool]
    traced: Callable[[nn.Module], bool]
    _known: dict[int, Pass] = field(default_factory=dict)

    def trace(self, module: nn.Module) -> Pass:
        """The forward pass of a block. Raises Unwritable where it cannot be written as straight lines."""
        if id(module) not in self._known:
            self._known[id(module)] = self._trace(module)
        return self._known[id(module)]

    def passes(self, module: nn.Module) -> bool:
        """Whether it computes nothing: it answers None, or hands its input on."""
        if isinstance(module, nn.Identity) or (isinstance(module, nn.Dropout) and module.p == 0):
            return True
        if not self.own(type(module)) or not self.traced(module):
            return False
        found = self.trace(module)
        return found.result is None or found.same

    def _trace(self, module: nn.Module) -> Pass:
        tape = Tape()
        replica = self._replica(module, tape)
        forward: Any = type(module).forward
        inputs: dict[str, Any] = {}
        for name, parameter in list(inspect.signature(forward).parameters.items())[1:]:
            symbol = tape.add(ast.Name(name, ast.Load()), cheap=True)
            kind = forward.__globals__.get(parameter.annotation)
            inputs[name] = kind(symbol) if isinstance(kind, type) and issubclass(kind, Shared) else symbol
        variables: dict[str, Any] = {}
        with self._recorded(type(module), tape), _locals_of(forward, variables):
            try:
                result = forward(replica, **inputs)
            except Unwritable:
                raise
            except Exception as error:
                raise Unwritable(f"its forward pass cannot be followed ({type(error).__name__}: {error})") from error
        if isinstance(result, Shared):
            result = result.tensor
        names = _names(variables, set(inputs))
        lines, answer = _lines(tape, result, names)
        return Pass(tuple(inputs), lines, answer, frozenset(tape.imports))

    def _replica(self, module: nn.Module, tape: Tape) -> nn.Module:
        """The block with symbols for its parameters and calls for its parts."""
        replica = copy.copy(module)
        vars(replica).update(_modules={}, _parameters={}, _buffers={})
        this = ast.Name("self", ast.Load())
        for name, child in module._modules.items():
            inside = isinstance(module, nn.Sequential | nn.ModuleList)
            place = ast.Subscript(this, written(int(name)), ast.Load()) if inside else _attribute(this, name)
            replica._modules[name] = None if child is None else self._part(child, tape, place)
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            vars(replica)[name] = None if tensor is None else tape.add(_attribute(this, name), cheap=True)
        for name in _inherited(type(module), self.own):
            vars(replica)[name] = _recorder(_attribute(this, name), tape)
        return replica

    def _part(self, child: nn.Module, tape: Tape, place: ast.expr) -> nn.Module:
        if type(child) is nn.ModuleList:
            parts = (self._part(part, tape, _item(place, number)) for number, part in enumerate(child))
            return nn.ModuleList(parts)
        if type(child) is nn.ModuleDict:
            return nn.ModuleDict({name: self._part(part, tape, _item(place, name)) for name, part in child.items()})
        return Call(tape, child, place, self)

    @contextmanager
    def _recorded(self, kind: type, tape: Tape) -> Iterator[None]:
        """Functions of other packages are written as calls while the block below is run."""
        modules = {sys.modules[each.__module__] for each in kind.__mro__ if self.own(each)}
        with contextlib.ExitStack() as stack:
            for module in modules:
                foreign = {
                    name: _recorder(ast.Name(name, ast.Load()), tape, value)
                    for name, value in vars(module).items()
                    if isinstance(value, types.FunctionType) and self._foreign(value)
                }
                stack.enter_context(mock.patch.dict(vars(module), foreign))
            yield

    def _foreign(self, function: types.FunctionType) -> bool:
        root = function.__module__.partition(".")[0]
        return root != "torch" and root not in sys.stdlib_module_names and not self.own(function)


def _attribute(of: ast.expr, name: str) -> ast.expr:
    return ast.Attribute(of, name, ast.Load())


def _item(of: ast.expr, key: Any) -> ast.expr:
    return ast.Subscript(of, written(key), ast.Load())


def _inherited(kind: type, own: Callable[[type], bool]) -> set[str]:
    """Methods of the package that a block derives from, beyond those of every module."""
    theirs = (each for each in kind.__mro__ if not own(each) and each not in nn.Module.__mro__)
    found = {name for each in theirs for name, value in vars(each).items() if isinstance(value, types.FunctionType)}
    return {name for name in found if not name.startswith("__") and not hasattr(nn.Sequential, name)}


def _recorder(place: ast.expr, tape: Tape, function: Callable[..., Any] | None = None) -> Callable[..., Any]:
    def record(*args: Any, **kwargs: Any) -> Any:
        if function is None:
            return tape.call(place, args, kwargs)
        if next(_symbols([list(args), kwargs]), None) is None:
            return function(*args, **kwargs)
        tape.imports.add((public_place(function), function.__name__))
        return tape.call(place, *_given(function, args, kwargs))

    return record


@contextmanager
def _locals_of(function: Any, variables: dict[str, Any]) -> Iterator[None]:
    """Fill in the local variables that a function has when it returns."""

    def watch(frame: types.FrameType, event: str, argument: Any) -> None:
        if event == "return" and frame.f_code is function.__code__:
            variables.update(frame.f_locals)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before)


NUMBERED = {"nodes": "node", "states": "state"}
"""Local lists and dictionaries whose values are named after their place, in a cell."""


def _names(variables: Mapping[str, Any], taken: set[str]) -> dict[int, tuple[str, bool]]:
    """Names of values by their number, and whether they are named even where they are read once."""
    found: dict[int, tuple[str, bool]] = {}

    def name(value: Any, text: str, always: bool) -> None:
        if isinstance(value, Shared):
            value = None if value.empty else value.tensor
        if isinstance(value, Symbol) and text not in taken:
            found.setdefault(value._node.number, (text, always))

    for local, prefix in NUMBERED.items():
        values = variables.get(local, ())
        pairs = values.items() if isinstance(values, dict) else enumerate(values)
        for key, value in pairs:
            name(value, f"{prefix}{key}", True)
    for local, value in variables.items():
        name(value, local, False)
    return found


def _lines(tape: Tape, result: Any, hints: Mapping[int, tuple[str, bool]]) -> tuple[tuple[str, ...], str | None]:
    """Statements for what the result reads. A value that is read once is written where it is read."""
    if result is None:
        return (), None
    answer = written(result)
    uses = Counter(_read(answer))
    for node in reversed(tape.nodes):
        if uses[node.number]:
            uses.update(_read(node.expression))
    names: dict[int, str] = {}
    lines: list[str] = []

    def final(expression: ast.expr) -> ast.expr:
        class Put(ast.NodeTransformer):
            def visit_Name(self, name: ast.Name) -> ast.expr:
                if not name.id.startswith("%"):
                    return name
                number = int(name.id[1:])
                if number in names:
                    return ast.Name(names[number], ast.Load())
                return final(tape.nodes[number].expression)

        return Put().visit(copy.deepcopy(expression))

    def named(node: Node) -> str:
        wish = hints[node.number][0] if node.number in hints else _wish(node, names)
        free, count = wish, 1
        while free in names.values():
            count += 1
            free = f"{wish}{count}"
        return free

    last = int(answer.id[1:]) if isinstance(answer, ast.Name) else -1
    for node in tape.nodes:
        if not uses[node.number] or node.cheap or node.whole is not None:
            continue
        if node.items:
            text = unparsed(final(node.expression))
            for item in node.items:
                names[item.number] = named(item)
            lines.append(f"{', '.join(names[item.number] for item in node.items)} = {text}")
            continue
        always = node.number in hints and hints[node.number][1]
        if uses[node.number] > 1 or (always and node.number != last):
            text = unparsed(final(node.expression))
            names[node.number] = named(node)
            lines.append(f"{names[node.number]} = {text}")
    return tuple(lines), unparsed(final(answer))


def _read(expression: ast.expr) -> list[int]:
    found = (node.id for node in ast.walk(expression) if isinstance(node, ast.Name))
    return [int(name[1:]) for name in found if name.startswith("%")]


def _wish(node: Node, names: Mapping[int, str]) -> str:
    """A name for a value after the function that it comes from: `node0_relu`."""
    call = node.expression
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute | ast.Name):
        return "h"
    function = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
    read = [number for number in _read(call) if number in names]
    return f"{names[read[0]]}_{function}" if len(read) == 1 else function


def unparsed(tree: ast.AST) -> str:
    """Source of a tree, with strings in double quotes and bare tuples as they are usually written."""
    text = requoted(ast.unparse(ast.fix_missing_locations(tree)))
    return "\n".join(_bare_tuple(line) for line in text.split("\n"))


def _bare_tuple(line: str) -> str:
    """Without the brackets of a tuple that is assigned to several names, or returned."""
    match = re.fullmatch(r"(\s*(?:return |\w+(?:, \w+)+ = ))\((.*,.*)\)", line)
    if match is None:
        return line
    try:
        whole, inner = ast.parse(f"({match[2]})", mode="eval").body, ast.parse(match[2], mode="eval").body
    except SyntaxError:
        return line
    return match[1] + match[2] if isinstance(inner, ast.Tuple) and ast.dump(whole) == ast.dump(inner) else line


def requoted(text: str) -> str:
    """Source with its simple strings in double quotes."""
    lines = text.split("\n")
    for token in reversed(list(tokenize.generate_tokens(io.StringIO(text).readline))):
        if token.type == tokenize.STRING and token.string.startswith("'") and token.start[0] == token.end[0]:
            row, start, end = token.start[0] - 1, token.start[1], token.end[1]
            lines[row] = lines[row][:start] + literal(ast.literal_eval(token.string)) + lines[row][end:]
    return "\n".join(lines)
