"""The methods of a block as they stand in its own source, with what is settled in this network folded away."""

from __future__ import annotations

import ast
import builtins
import inspect
import symtable
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from search_spaces.layers.features import Shared
from training.export.python.layers import public_place
from training.export.python.layout import STEP, WIDTH, statement
from training.export.python.lines import unparsed
from training.export.python.terms import Unwritable, is_literal, literal

SEARCH = (
    "nas_core",
    "search_spaces.layers.features",
    "search_spaces.supernet.picker",
    "search_spaces.supernet.supernet",
)
"""What only a search needs: source that uses it is not copied."""

_SKIPPED = frozenset({"__init__", "extra_repr", "reset_parameters", "plain", "__module__", "__doc__"})


@dataclass
class Library:
    """Functions, constants and classes that methods use, as source, in an order in which they can stand."""

    own: Callable[[Any], bool]
    sources: dict[str, str] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    """The statement that imports a name."""

    def need(self, name: str, namespace: Mapping[str, Any]) -> None:
        """Provide a global name of a piece of source. Raises Unwritable where it cannot be."""
        if name in self.sources or name in self.imports or hasattr(builtins, name):
            return
        if name not in namespace:
            raise Unwritable(f"it uses '{name}', which is not defined where it stands")
        value = namespace[name]
        home = str(value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", ""))
        if home.startswith(SEARCH) or (isinstance(value, type) and issubclass(value, Shared)):
            raise Unwritable(f"it uses '{name}' of {home}")
        if isinstance(value, types.ModuleType):
            self.imports[name] = _module_import(name, value)
        elif isinstance(value, type | types.FunctionType) and self.own(value):
            if isinstance(value, type) and issubclass(value, nn.Module):
                raise Unwritable(f"it uses the class '{name}' itself")
            self._copy(name, value)
        elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType) and hasattr(value, "__name__"):
            place = public_place(value)
            self.imports[name] = f"from {place} import {_named(value.__name__, name)}"
        elif is_literal(value):
            self.sources[name] = "\n".join(statement(f"{name} = {literal(value)}"))
        else:
            self.imports[name] = _special(name, value)

    def _copy(self, name: str, value: Any) -> None:
        if value.__name__ != name:
            raise Unwritable(f"it uses '{value.__name__}' by another name, '{name}'")
        try:
            text = textwrap.dedent(inspect.getsource(value)).rstrip()
        except (OSError, TypeError) as error:
            raise Unwritable(f"the source of '{name}' is not to be found") from error
        if getattr(value, "__closure__", None):
            raise Unwritable(f"'{name}' is defined inside of another function")
        self.sources[name] = ""  # one that needs itself
        for other in sorted(free_names(text)):
            if other != name:
                self.need(other, vars(sys.modules[value.__module__]))
        del self.sources[name]
        self.sources[name] = text


def _named(name: str, alias: str) -> str:
    return name if name == alias else f"{name} as {alias}"


def _module_import(alias: str, module: types.ModuleType) -> str:
    parent, _, child = module.__name__.rpartition(".")
    if not parent:
        return f"import {_named(child, alias)}"
    return f"from {parent} import {_named(child, alias)}"


def _special(name: str, value: Any) -> str:
    """Objects that `typing` and others export without saying where they are from."""
    for place in ("typing", "torch", "torch.nn", "math"):
        if getattr(sys.modules[place], name, None) is value:
            return f"from {place} import {name}"
    raise Unwritable(f"it uses '{name}', a {type(value).__name__}, which has no source form")


def free_names(text: str) -> set[str]:
    """Names that a piece of source takes from where it stands."""

    def walk(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            outer = symbol.is_global() or (table.get_type() == "module" and not symbol.is_assigned())
            if outer and symbol.is_referenced():
                yield symbol.get_name()
        for child in table.get_children():
            yield from walk(child)

    table = symtable.symtable(text, "<source>", "exec")
    defined = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned()}
    tree = ast.parse(text)
    written = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return {name for name in walk(table) if name not in defined and not hasattr(builtins, name) and name in written}


@dataclass(frozen=True)
class Methods:
    """The methods of a class as source, from `def` on, and which attributes of the block they read. `explicit`: they
    name every part that they call."""

    texts: tuple[str, ...]
    reads: frozenset[str]
    explicit: bool = False

    def calls(self, key: str) -> bool:
        """Whether the part of this name in a dictionary may be called."""
        return not self.explicit or any(f"[{literal(key)}]" in text for text in self.texts)


def methods(kind: type, blocks: Sequence[nn.Module], library: Library, forward: bool = True) -> Methods:
    """`forward` of these blocks of one class, with the methods and properties that it uses, and own methods that a
    package calls by itself (`MessagePassing.message`).

    Raises Unwritable where the source is not enough.
    """
    wanted = ["forward"] * forward + [*(name for name in _overridden(kind, library.own) if name != "forward")]
    texts: dict[str, str] = {}
    reads: set[str] = set()
    while wanted:
        name = wanted.pop(0)
        found = _found(kind, name, library.own)
        if name in texts or found is None:
            continue
        function, text = found
        tree = ast.parse(text)
        if not isinstance(tree.body[0], ast.FunctionDef):
            raise Unwritable(f"its method '{name}' is not written with def")
        if any(isinstance(node, ast.Name) and node.id == "super" for node in ast.walk(tree)):
            following = kind.__mro__[1]
            if library.own(following):
                raise Unwritable(f"its method '{name}' calls that of {following.__name__} by super()")
        folded = Fold(blocks, function.__globals__).fold(tree)
        if folded is not None:
            text = "\n".join(line for each in unparsed(folded).split("\n") for line in _wrapped(each))
        for global_name in sorted(free_names(text)):
            library.need(global_name, function.__globals__)
        texts[name] = text
        attributes = _attributes(text)
        reads |= attributes
        wanted += sorted(each for each in attributes if hasattr(kind, each))
    return Methods(tuple(texts.values()), frozenset(reads))


def _found(kind: type, name: str, own: Callable[[Any], bool]) -> tuple[types.FunctionType, str] | None:
    """A method or property of the block's own classes, and its source."""
    for each in kind.__mro__:
        if name in vars(each):
            value = vars(each)[name]
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if not own(each) or not isinstance(function, types.FunctionType) or function.__module__ != each.__module__:
                return None  # a package's, or one that a package put there
            if set(function.__code__.co_freevars) - {"__class__"}:
                raise Unwritable(f"its method '{name}' uses variables of the function that it is defined in")
            try:
                return function, textwrap.dedent(inspect.getsource(function)).rstrip()
            except (OSError, TypeError) as error:
                raise Unwritable(f"the source of its method '{name}' is not to be found") from error
    return None


def _overridden(kind: type, own: Callable[[Any], bool]) -> list[str]:
    """Own methods in place of a package's, beside those that have no say in the forward pass."""
    theirs = [each for each in kind.__mro__ if not own(each) and each is not object]
    mine = {
        name
        for each in kind.__mro__
        if own(each)
        for name, value in vars(each).items()
        if isinstance(value, types.FunctionType) and value.__module__ == each.__module__
    }
    return sorted(name for name in mine - _SKIPPED if any(name in vars(each) for each in theirs))


def _attributes(text: str) -> set[str]:
    """What source reads of `self`."""
    return {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }


def _wrapped(line: str) -> list[str]:
    bare = line.lstrip()
    return statement(bare, line[: len(line) - len(bare)], WIDTH - len(STEP))


class Fold(ast.NodeTransformer):
    """Takes out what is the same in all blocks of a class: parts that are None or that hand their input on, conditions
    on them; and the objects by which layers share work."""

    def __init__(self, blocks: Sequence[nn.Module], namespace: Mapping[str, Any]) -> None:
        self._blocks = blocks
        self._shared = {name for name, value in namespace.items() if _is_shared(value)}

    def fold(self, tree: ast.Module) -> ast.Module | None:
        """The folded method; None where nothing changes."""
        before = ast.dump(tree)
        mentioned = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        self._unwraps = bool(mentioned & self._shared)
        changed = before
        while True:
            tree = self.visit(tree)
            _forget_nones(tree)
            if ast.dump(tree) == changed:
                break
            changed = ast.dump(tree)
        return None if changed == before else ast.fix_missing_locations(tree)

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        if len(node.ops) != 1 or not isinstance(node.ops[0], ast.Is | ast.IsNot) or not _is_none(node.comparators[0]):
            return node
        known = True if _is_none(node.left) else self._none(node.left)
        if known is None:
            return node
        return ast.Constant(known == isinstance(node.ops[0], ast.Is))

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        self.generic_visit(node)
        ends = isinstance(node.op, ast.Or)  # the value that decides
        values = [value for value in node.values if not _is_bool(value, not ends)]
        if any(_is_bool(value, ends) for value in values):
            return ast.Constant(ends)
        if not values:
            return ast.Constant(not ends)
        return values[0] if len(values) == 1 else ast.BoolOp(node.op, values)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant):
            return ast.Constant(not node.operand.value)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in self._shared and len(node.args) == 1:
            return node if node.keywords else node.args[0]
        name = _of_self(node.func)
        if name is not None and len(node.args) == 1 and not node.keywords and self._all(name, _passes):
            return node.args[0]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        return node.value if self._unwraps and node.attr in ("value", "tensor") else node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return node

    def _none(self, node: ast.expr) -> bool | None:
        name = _of_self(node)
        if name is None or not all(name in _parts(block) for block in self._blocks):
            return None
        nones = {_parts(block)[name] is None for block in self._blocks}
        return nones.pop() if len(nones) == 1 else None

    def _all(self, name: str, holds: Callable[[Any], bool]) -> bool:
        return all(name in _parts(block) and holds(_parts(block)[name]) for block in self._blocks)


def _parts(block: nn.Module) -> Mapping[str, Any]:
    return {**vars(block), **block._parameters, **block._buffers, **block._modules}


def _passes(part: Any) -> bool:
    return type(part) is nn.Identity or (type(part) is nn.Dropout and part.p == 0)


def _is_shared(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Shared)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_bool(node: ast.expr, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _of_self(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr
    return None


def _forget_nones(tree: ast.Module) -> None:
    """Put None for local variables that are never anything else."""
    stores = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for line in list(function.body):
            if not (isinstance(line, ast.Assign) and _is_none(line.value) and len(line.targets) == 1):
                continue
            target = line.targets[0]
            if not isinstance(target, ast.Name) or sum(store.id == target.id for store in stores) > 1:
                continue
            function.body.remove(line)
            _replace(tree, target.id)


def _replace(tree: ast.AST, name: str) -> None:
    class Put(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return ast.Constant(None) if node.id == name else node

    Put().visit(tree)
