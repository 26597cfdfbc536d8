"""The classes that a network is made of, read off the network: one for every kind of block that occurs in it.

Nothing here knows a search space. A class is written with what its instances have in common; its forward pass is that
of the source, or, where that interprets an architecture, the lines that it comes down to (`trace`).
"""

from __future__ import annotations

import copy
import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from training.export.python.layers import public_place, qualified
from training.export.python.layout import STEP, WIDTH, docstring, statement
from training.export.python.methods import Library, Methods, methods
from training.export.python.records import Reader, base_of
from training.export.python.terms import Argument, Build, Term, Unwritable, literal, sequence
from training.export.python.trace import Pass, Tracer
from training.export.python.unify import Parameter, Record, shape, unify

ROOT = "Network"


@dataclass
class Blocks:
    """The classes of a network as source, in an order in which they can stand, with what they use (`library`).

    `own` says of a class or function whether it is copied; others are imported. A module may bring two hints, for what
    only speeds a search up and for what it is called: `plain()`, the layer of a package with weights of the same names
    that computes the same, and `variant`, which becomes the beginning of its class's name.
    Raises Unwritable while it is made.
    """

    network: nn.Module
    own: Callable[[Any], bool]
    classes: dict[str, str] = field(default_factory=dict)
    library: Library = field(init=False)

    def __post_init__(self) -> None:
        self.library = Library(self.own)
        self._traced: set[type] = set()
        self._made: dict[int, Build] = {}
        self._root = _plain(copy.deepcopy(self.network))
        self._tracer = Tracer(self.own, lambda module: type(module) in self._traced)
        paths = {id(module): name or "the network" for name, module in self._root.named_modules()}
        self._reader = Reader(self.own, self._tracer.passes, paths, self._made, self.library.imports)
        for kind, blocks in _in_order(self._root, self.own):
            try:
                self._write(kind, blocks)
            except Unwritable as reason:
                raise Unwritable(f"class {kind.__name__}: {reason}") from None
        if not self.own(type(self._root)):
            if type(self._root) is not nn.Sequential:
                raise Unwritable(f"the network itself is a {type(self._root).__name__}, which is no class of its own")
            self._class(ROOT, nn.Sequential, [self._reader.record(self._root, Methods((), frozenset()))], ())

    def _write(self, kind: type, blocks: Sequence[nn.Module]) -> None:
        variants: dict[Any, list[tuple[nn.Module, Record]]] = defaultdict(list)
        for block, found in zip(blocks, self._methods(kind, blocks), strict=True):
            if block is self._root or not self._tracer.passes(block):
                record = self._reader.record(block, found)
                name = ROOT if block is self._root else _camel(getattr(block, "variant", "")) + kind.__name__
                variants[name, found.texts, shape(record)].append((block, record))
        for (wish, texts, _), members in variants.items():
            name = self._free(wish)
            parameters = self._class(name, kind, [record for _, record in members], texts)
            for number, (block, _) in enumerate(members):
                arguments = [
                    Argument(each.name, each.values[number], each.default, each.role != "other", each.role)
                    for each in parameters
                ]
                self._made[id(block)] = Build(name, tuple(arguments))

    def _methods(self, kind: type, blocks: Sequence[nn.Module]) -> list[Methods]:
        """The methods of each block: from the source, where it says enough, else from the passes."""
        trial = Library(self.own, dict(self.library.sources), dict(self.library.imports))
        try:
            found = methods(kind, blocks, trial)
            for block in blocks:
                self._reader.record(block, found)
        except Unwritable as reason:
            self._traced.add(kind)
            try:
                return [self._followed(kind, self._tracer.trace(block)) for block in blocks]
            except Unwritable as other:
                raise Unwritable(f"{reason}; {other}") from None
        self.library.sources |= trial.sources
        self.library.imports |= trial.imports
        return [found] * len(blocks)

    def _followed(self, kind: type, found: Pass) -> Methods:
        self.library.imports |= {name: f"from {place} import {name}" for place, name in found.imports}
        inputs = ", ".join(["self", *(f"{name}: Tensor" for name in found.inputs)])
        width = WIDTH - len(STEP)
        lines = statement(f"def forward({inputs}) -> Tensor:", width=width)
        for line in (*found.lines, f"return {found.result}"):
            lines += statement(line, STEP, width)
        text = "\n".join(lines)
        beside = methods(kind, (), self.library, forward=False)
        return Methods((text, *beside.texts), beside.reads | set(re.findall(r"self\.(\w+)", text)), explicit=True)

    def _class(self, name: str, kind: type, records: Sequence[Record], texts: Sequence[str]) -> Sequence[Parameter]:
        record, parameters = (records[0], []) if name == ROOT else unify(records)
        base = base_of(kind, self.own)
        if not qualified(base).startswith("nn."):
            self.library.imports[base.__name__] = f"from {public_place(base)} import {base.__name__}"
        lines = [f"class {name}({qualified(base)}):"]
        if self.own(kind) and kind.__doc__:
            lines += [*docstring(inspect.cleandoc(kind.__doc__).split("\n\n")[0], STEP), ""]
        lines += statement(f"def __init__({', '.join(_signature(parameters))}) -> None:", STEP)
        for part, term in record:
            lines += statement(_made(part, term), STEP + STEP)
        for tie in _ties(self.network) if name == ROOT else ():
            lines += statement(tie, STEP + STEP)
        for text in texts:
            lines += ["", *(f"{STEP}{line}" if line else "" for line in text.split("\n"))]
        self.classes[name] = "\n".join(lines)
        return parameters

    def _free(self, wish: str) -> str:
        name, count = wish, 1
        while name in self.classes or name in self.library.sources:
            count += 1
            name = f"{wish}{count}"
        return name


def _signature(parameters: Sequence[Parameter]) -> list[str]:
    defaults = ["" if each.default is None else f" = {each.default}" for each in parameters]
    return [
        "self",
        *(f"{each.name}: {each.annotation}{given}" for each, given in zip(parameters, defaults, strict=True)),
    ]


def _made(part: str, term: Term) -> str:
    """The line of `__init__` that makes a part."""
    if part == "":
        arguments = term.written() if isinstance(term, Build) else sequence(term.items)  # type: ignore[union-attr]
        return f"super().__init__({', '.join(arguments)})"
    if isinstance(term, Build) and term.callee == "buffer":
        return f"self.register_buffer({', '.join([literal(part), *term.written()])})"
    return f"self.{part} = {term}"


def _plain(module: nn.Module) -> nn.Module:
    """The network with plain layers in place of those that only are faster while searching."""
    if hasattr(module, "plain"):
        found: nn.Module = module.plain()
        if found is not module:
            vars(found)["stands_for"] = module
        return found
    for name, child in list(module._modules.items()):
        if child is not None:
            module._modules[name] = _plain(child)
    return module


def _in_order(root: nn.Module, own: Callable[[Any], bool]) -> Iterator[tuple[type, list[nn.Module]]]:
    """The kinds of blocks with all their instances; what a block is made of comes before it."""
    blocks: dict[type, list[nn.Module]] = defaultdict(list)
    inner: dict[type, set[type]] = defaultdict(set)
    for module in root.modules():
        if own(type(module)):
            blocks[type(module)].append(module)
            inner[type(module)] |= {type(part) for part in module.modules() if part is not module and own(type(part))}
    done: set[type] = set()
    while len(done) < len(blocks):
        ready = [kind for kind in blocks if kind not in done and inner[kind] <= done]
        if not ready:
            names = sorted(kind.__name__ for kind in blocks if kind not in done)
            raise Unwritable(f"blocks contain blocks of their own kind ({', '.join(names)})")
        for kind in ready:
            done.add(kind)
            yield kind, blocks[kind]


def _ties(network: nn.Module) -> Iterator[str]:
    """Assignments for parameters that stand at several places."""
    first: dict[int, str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        place = "self" + "".join(
            f"[{part}]" if part.isdigit() else f".{part}" if part.isidentifier() else f"[{literal(part)}]"
            for part in name.split(".")
        )
        if id(parameter) in first:
            yield f"{place} = {first[id(parameter)]}"
        first.setdefault(id(parameter), place)


def _camel(text: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"\W|_", text))
