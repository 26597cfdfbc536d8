"""The forward pass of one block as straight lines: it is run on symbols, and what it computes is written down.

For blocks that interpret an architecture, or share work between the candidates of a search: what is left is what this
network computes. The blocks inside are called, not looked into. The local variables of the method give the names.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from torch import Tensor, nn

from search_spaces.layers.features import Shared
from training.export.python.lines import lines_of, names_of
from training.export.python.symbols import Tape, recorder, written
from training.export.python.terms import Unwritable


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


class Call(nn.Module):
    """A block inside of the one that is traced: it answers what the written block will be called for."""

    def __init__(self, tape: Tape, module: nn.Module, place: ast.expr, tracer: Tracer) -> None:
        super().__init__()
        self.__dict__.update(_tape=tape, _module=module, _place=place, _tracer=tracer)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # what asks for its class is told that of the block
        return type(vars(self)["_module"])

    def __getattr__(self, name: str) -> Any:
        mine = vars(self)
        value = getattr(mine["_module"], name)
        return mine["_tape"].add(_attribute(mine["_place"], name), cheap=True) if isinstance(value, Tensor) else value

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


def _arity(module: nn.Module) -> int | None:
    """How many inputs a block takes; a plain layer may take fewer than the one it stands for. None: any number."""
    parameters = inspect.signature(module.forward).parameters.values()
    return None if any(each.kind is each.VAR_POSITIONAL for each in parameters) else len(parameters)


def _wraps(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Shared)


@dataclass
class Tracer:
    """Traces blocks; `own` says which classes are blocks to be written, rather than layers of a package."""

    own: Callable[[Any], bool]
    traced: Callable[[nn.Module], bool]
    _known: dict[int, Pass] = field(default_factory=dict)

    def trace(self, module: nn.Module) -> Pass:
        """The forward pass of a block. Raises Unwritable where it cannot be written as straight lines."""
        if id(module) not in self._known:
            self._known[id(module)] = self._trace(module)
        return self._known[id(module)]

    def passes(self, module: nn.Module) -> bool:
        """Whether it computes nothing: it answers None, or hands its input on."""
        if type(module) is nn.Identity or (type(module) is nn.Dropout and module.p == 0):
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
            try:
                inputs[name] = kind(symbol) if _wraps(kind) else symbol
            except TypeError as error:
                raise Unwritable(f"its input '{name}' is more than a tensor ({error})") from error
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
        names = names_of(variables, set(inputs))
        lines, answer = lines_of(tape, result, names)
        return Pass(tuple(inputs), lines, answer, frozenset(tape.imports))

    def _replica(self, module: nn.Module, tape: Tape) -> nn.Module:
        """The block with symbols for its parameters and calls for its parts."""
        for name, value in vars(module).items():
            if isinstance(value, types.FunctionType) and value.__closure__:  # what it sees there is not followed
                raise Unwritable(f"the function in self.{name} uses variables of the function that it is defined in")
        replica = copy.copy(module)
        vars(replica).update(_modules={}, _parameters={}, _buffers={})
        this = ast.Name("self", ast.Load())
        for name, child in module._modules.items():
            inside = isinstance(module, nn.Sequential | nn.ModuleList)
            place = ast.Subscript(this, written(int(name)), ast.Load()) if inside else _attribute(this, name)
            replica._modules[name] = None if child is None else self._part(child, tape, place)
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            vars(replica)[name] = None if tensor is None else tape.add(_attribute(this, name), cheap=True)
        vars(replica)["training"] = tape.add(_attribute(this, "training"), cheap=True)
        for name in _inherited(type(module), self.own):
            vars(replica)[name] = recorder(_attribute(this, name), tape)
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
        """Functions of other packages are written as calls while the block below is run, also by what it is given."""
        modules = {sys.modules[each.__module__] for each in kind.__mro__ if self.own(each)}
        given = (value for module in modules for value in vars(module).values() if _wraps(value))
        modules = modules | {sys.modules[each.__module__] for each in given}
        with contextlib.ExitStack() as stack:
            for module in modules:
                foreign = {
                    name: recorder(ast.Name(name, ast.Load()), tape, value)
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
