"""The contract of operators: layers, or small blocks, that a choice takes by name.

An operator is a class of `nn.Module`, or a function that makes one, in a file of its own, and a line in the table of
its *role*, which says what it is made by, called with, and answers (`search_spaces/operators/*/__init__.py`). One of a
user's stands beside them: `my_ops.py:Mine`, with options `my_ops.py:Mine(hops=3)`.

What else there is to know is read off the class. Everything has a default:
- `skip = True`: it hands its input on; it is never dropped as a path, and counts as without weights.
- `zero = True`: it adds nothing; it answers None, or zeros.
- whether it has weights: that it has parameters and is no skip (`Group.weighted`).
- `why_not_exportable = "because it samples its neighbours"`: no program can be traced of it.
- `stochastic = True`: what it answers is drawn anew in every pass, in evaluation as well.
- `ordered = "because ..."`: its answer depends on an order that means nothing, and why.
- `signature()`, `uncounted_macs(*inputs)` and what else a module may bring (`nas_core.traits`): which weights may be
  taken over, what the counter cannot see.

Costs are counted (`search_spaces.counter`). A space may have formulas where it needs the speed; tests hold them equal.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_core import refs
from nas_core.errors import UsageError, unknown

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Role:
    """What operators of one kind have in common.

    `made_by` names the positional arguments of their classes. `table` is literal: name to `module:Class`, which may
    have options, `module:Class(kernel=3)`; `group` is that of entry points.
    """

    name: str
    group: str
    made_by: tuple[str, ...]
    table: Mapping[str, str]

    def operator(self, reference: str) -> Operator:
        """One by its name, or `file.py:Class`; a user's file is loaded now, others when they are needed.

        Raises UsageError for an unknown name, for what is no class of nn.Module, and for options it does not have;
        NotFoundError for a missing file or class.
        """
        target, options = refs.split(reference, self.name)
        label = target.rpartition(":")[2]
        if options:
            label += f"({' '.join(f'{name}={value}' for name, value in options.items())})"
        if target in self.table:
            place, given = refs.split(self.table[target], self.name)
            found = Operator(label, reference, place, {**given, **options}, self)
            if options:
                found.check_options()
            return found
        if target not in refs.names({}, self.group) and ":" not in target and not target.endswith(".py"):
            raise unknown(self.name, target, refs.names(self.table, self.group))
        found = Operator(label, reference, target, options, self)
        found.check()
        return found

    def operators(self, references: Sequence[str]) -> tuple[Operator, ...]:
        """Several, told apart by their labels. Raises as `operator`."""
        if isinstance(references, str) or not references:
            raise UsageError(f"{self.name}s are {references!r}; list them, for example ({', '.join(self.table)})")
        found: dict[str, Operator] = {}
        for reference in references:
            if not isinstance(reference, str):
                raise UsageError(f"{self.name} {reference!r} is no name; use one of the catalogue, or file.py:Class")
            one = self.operator(reference)
            if one.label in found:
                other = found[one.label].reference
                raise UsageError(f"{self.name}s '{other}' and '{reference}' are both called '{one.label}'; rename one")
            found[one.label] = one
        return tuple(found.values())


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator by its reference; `label` is what architectures call it."""

    label: str
    reference: str
    place: str
    options: Mapping[str, Any] = field(repr=False)
    role: Role = field(repr=False)

    @cached_property
    def kind(self) -> type[nn.Module]:
        """Its class. Raises as `Role.operator`."""
        found: type[nn.Module] = refs.find(self.place, {}, self.role.group, self.role.name)
        return found

    @property
    def name(self) -> str:
        """What it is referred to by, without options."""
        return refs.split(self.reference, self.role.name)[0]

    @property
    def own(self) -> bool:
        """Whether it is none of the catalogue."""
        return self.name not in self.role.table

    @property
    def skip(self) -> bool:
        return bool(getattr(self.kind, "skip", False))

    @property
    def zero(self) -> bool:
        return bool(getattr(self.kind, "zero", False))

    def make(self, *arguments: Any, **chosen: Any) -> nn.Module:
        """The module: `arguments` are what its role is made by, `chosen` further options."""
        return self.kind(*arguments, **self.options, **chosen)

    def check(self) -> None:
        """Raises UsageError where the class cannot be one of its role."""
        from torch import nn

        what, made_by = f"{self.role.name} '{self.reference}'", ", ".join(self.role.made_by)
        if not (isinstance(self.kind, type) and issubclass(self.kind, nn.Module)):
            raise UsageError(f"{what} is a {type(self.kind).__name__}; name a class of nn.Module, made by ({made_by})")
        try:
            chosen = dict.fromkeys(getattr(self.kind, "choices", ()))  # what is left to a space
            inspect.signature(self.kind).bind(*self.role.made_by, **{**chosen, **self.options})
        except TypeError as error:
            raise UsageError(f"{what} is made by ({made_by}) and its options: {error}") from None

    def check_options(self) -> None:
        """Raises UsageError for options that the class does not have; others may be left to a space. Those that its
        source shows are taken as read: spaces are listed without importing torch."""
        if _declared(self.place, len(self.role.made_by)).issuperset(self.options):
            return
        try:
            inspect.signature(self.kind).bind_partial(*self.role.made_by, **self.options)
        except TypeError as error:
            raise UsageError(f"{self.role.name} '{self.reference}': {error}") from None


@cache
def _declared(place: str, given: int) -> frozenset[str]:
    """The options that the source of `module:Class` shows: of its own `__init__` the parameters after `self` and so
    many that a role gives."""
    module, _, name = place.partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return frozenset()
    classes = [node for node in ast.parse(Path(spec.origin).read_bytes()).body if isinstance(node, ast.ClassDef)]
    own = next((node.body for node in classes if node.name == name), [])
    made = next((node for node in own if isinstance(node, ast.FunctionDef) and node.name == "__init__"), None)
    if made is None:
        return frozenset()
    return frozenset(one.arg for one in (*made.args.args[1 + given :], *made.args.kwonlyargs))
