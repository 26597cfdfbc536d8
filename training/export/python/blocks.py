"""The classes that a network is made of, read off the network: one for every kind of block that occurs in it.

Nothing here knows a search space. A class is written with what its instances have in common; its forward pass is that of
the source, or, where that interprets an architecture, the lines that it comes down to (`trace`).
"""

from __future__ import annotations

import copy
import inspect
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training.export.python.layers import base_call, layer, public_place
from training.export.python.layout import STEP, WIDTH, docstring, statement
from training.export.python.methods import Library, Methods, methods
from training.export.python.terms import Argument, Build, Group, Name, Term, Unwritable, Value, is_literal, sequence
from training.export.python.trace import Pass, Tracer, function_name
from training.export.python.unify import Parameter, Record, shape, unify

ROOT = "Network"
CONTAINERS: Mapping[type, str] = {
    nn.Sequential: "nn.Sequential",
    nn.ModuleList: "nn.ModuleList",
    nn.ModuleDict: "nn.ModuleDict",
}
_LITTLE = 64  # numbers of a buffer that is no part of the state


@dataclass(frozen=True)
class Forward:
    """The methods of a block as text, and the attributes that they read."""

    texts: tuple[str, ...]
    reads: frozenset[str]


@dataclass
class Blocks:
    """Classes of a network, as source, in an order in which they can stand. Raises Unwritable while it is made."""

    network: nn.Module
    own: Callable[[Any], bool]
    classes: dict[str, str] = field(default_factory=dict)
    library: Library = field(init=False)

    def __post_init__(self) -> None:
        self.library = Library(self.own)
        self._traced: dict[type, bool] = {}
        self._made: dict[int, Build] = {}
        self._tracer = Tracer(self.own, lambda module: self._traced.get(type(module), False))
        ties = _ties(self.network)
        root = _plain(copy.deepcopy(self.network))
        self._paths = {id(module): name or "the network" for name, module in root.named_modules()}
        for kind, blocks in _in_order(root, self.own):
            self._write(kind, blocks, root, ties)
        if not self.own(type(root)):
            if type(root) is not nn.Sequential:
                raise Unwritable(f"the network itself is a {type(root).__name__} of {type(root).__module__}")
            self._class(ROOT, nn.Sequential, "", [self._record(root, Forward((), frozenset()))], (), ties)

    def _write(self, kind: type, blocks: Sequence[nn.Module], root: nn.Module, ties: Sequence[str]) -> None:
        forwards = self._forwards(kind, blocks)
        variants: dict[Any, list[tuple[nn.Module, Record]]] = defaultdict(list)
        for block, forward in zip(blocks, forwards, strict=True):
            if self._tracer.passes(block):
                continue
            record = self._record(block, forward)
            variants[forward.texts, shape(record), block is root].append((block, record))
        for (texts, _, is_root), members in variants.items():
            wish = ROOT if is_root else _camel(getattr(members[0][0], "variant", "")) + kind.__name__
            name = self._free(wish)
            records = [record for _, record in members]
            parameters = self._class(name, kind, members[0][0], records, texts, ties if is_root else ())
            for number, (block, _) in enumerate(members):
                arguments = (
                    Argument(each.name, each.values[number], each.default, each.role != "other", each.role)
                    for each in parameters
                )
                self._made[id(block)] = Build(name, tuple(arguments))

    def _forwards(self, kind: type, blocks: Sequence[nn.Module]) -> list[Forward]:
        trial = Library(self.own, dict(self.library.sources), dict(self.library.imports))
        try:
            found = methods(kind, blocks, trial)
            forward = Forward(found.texts, found.reads)
            for block in blocks:
                self._record(block, forward)
        except Unwritable as reason:
            self._traced[kind] = True
            try:
                return [self._passes(kind, self._tracer.trace(block)) for block in blocks]
            except Unwritable as other:
                why = f"{reason}; {other}" if str(reason) != str(other) else str(reason)
                raise Unwritable(f"class {kind.__name__}: {why}") from None
        self.library = trial
        return [forward] * len(blocks)

    def _passes(self, kind: type, found: Pass) -> Forward:
        for place, name in found.imports:
            self.library.imports[name] = f"from {place} import {name}"
        rest = methods_beside_forward(kind, self.library)
        if found.result is None:
            return Forward((), frozenset())
        inputs = ", ".join(["self", *(f"{name}: Tensor" for name in found.inputs)])
        lines = statement(f"def forward({inputs}) -> Tensor:", "", WIDTH - len(STEP))
        for line in (*found.lines, f"return {found.result}"):
            lines += statement(line, STEP, WIDTH - len(STEP))
        text = "\n".join(lines)
        return Forward((text, *rest.texts), frozenset(re.findall(r"self\.(\w+)", text)) | rest.reads)

    def _record(self, block: nn.Module, forward: Forward) -> Record:
        base = next(each for each in type(block).__mro__ if not self.own(each))
        path = self._paths[id(block)]
        if base in CONTAINERS:
            return (("", self._group(block, CONTAINERS[base], forward)), *self._attributes(block, forward, set()))
        call, inherited = base_call(block, base, path)
        found: list[tuple[str, Term]] = [("", call)]
        found += self._attributes(block, forward, set(inherited))
        for name, child in block._modules.items():
            if name in inherited:
                continue
            used = name in forward.reads
            if child is None or (not used and not child.state_dict()):
                if used:
                    found.append((name, Value(None)))
                continue
            found.append((name, self._term(child, forward)))
        for name, tensor in block._parameters.items():
            if name not in inherited:
                found.append(
                    (
                        name,
                        Value(None)
                        if tensor is None
                        else Build("nn.Parameter", (Argument("data", _zeros(tensor), positional=True),)),
                    )
                )
        for name, tensor in block._buffers.items():
            if name not in inherited and tensor is not None:
                found.append((name, self._buffer(block, name, tensor)))
        return tuple(found)

    def _attributes(self, block: nn.Module, forward: Forward, inherited: set[str]) -> list[tuple[str, Term]]:
        """Plain attributes that the methods read."""
        found: list[tuple[str, Term]] = []
        for name in sorted(forward.reads - inherited - {"training"}):
            if name in block._modules or name in block._parameters or name in block._buffers:
                continue
            if not hasattr(block, name):
                raise Unwritable(f"class {type(block).__name__} reads self.{name}, which it does not have here")
            value = inspect.getattr_static(block, name)
            if isinstance(value, property) or (callable(value) and name not in vars(block)):
                continue
            if is_literal(value):
                found.append((name, Value(value)))
            elif (text := function_name(value)) is not None:
                found.append((name, Name(text)))
            else:
                raise Unwritable(f"class {type(block).__name__} keeps a {type(value).__name__} in self.{name}")
        return found

    def _term(self, module: nn.Module, forward: Forward) -> Term:
        if self._tracer.passes(module):
            return Build("nn.Identity")
        if id(module) in self._made:
            return self._made[id(module)]
        if type(module) in CONTAINERS:
            return self._group(module, CONTAINERS[type(module)], forward)
        found = layer(module, self._paths[id(module)])
        if not found.callee.startswith("nn."):
            self.library.imports[found.callee] = f"from {public_place(type(module))} import {found.callee}"
        return found

    def _group(self, module: nn.Module, callee: str, forward: Forward) -> Group:
        text = "".join(forward.texts)
        items = []
        for name, child in module._modules.items():
            if child is None:
                raise Unwritable(f"'{self._paths[id(module)]}' has an empty place")
            # What has no weights and is not called has no place to keep.
            if callee == "nn.ModuleDict" and not child.state_dict() and self._tracer.passes(child):
                continue
            items.append((name, self._term(child, forward)))
        if callee != "nn.Sequential" and any(isinstance(each, Tensor) for each in vars(module).values()):
            raise Unwritable(f"'{self._paths[id(module)]}' holds tensors of its own")
        del text
        return Group(callee, tuple(items))

    def _buffer(self, block: nn.Module, name: str, tensor: Tensor) -> Term:
        if name not in block._non_persistent_buffers_set:
            return Build("buffer", (Argument("data", _zeros(tensor), positional=True),))
        if tensor.numel() > _LITTLE:
            raise Unwritable(f"class {type(block).__name__} keeps a large tensor in self.{name} that is no state")
        data = Build("torch.tensor", (Argument("data", Value(tensor.tolist()), positional=True),))
        return Build("buffer", (Argument("data", data, positional=True), Argument("persistent", Value(False))))

    def _class(
        self,
        name: str,
        kind: type,
        block: Any,
        records: Sequence[Record],
        texts: Sequence[str],
        ties: Sequence[str],
    ) -> list[Parameter]:
        record, parameters = (records[0], []) if name == ROOT else unify(records)
        base = next(each for each in kind.__mro__ if not self.own(each))
        base_name = f"nn.{base.__name__}" if getattr(nn, base.__name__, None) is base else base.__name__
        if not base_name.startswith("nn."):
            self.library.imports[base_name] = f"from {public_place(base)} import {base_name}"
        lines = [f"class {name}({base_name}):"]
        about = (inspect.cleandoc(kind.__doc__) if self.own(kind) and kind.__doc__ else "").split("\n\n")[0]
        if about:
            lines += [*docstring(about, STEP), ""]
        lines += _init(record, parameters, ties)
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


def _init(record: Record, parameters: Sequence[Parameter], ties: Sequence[str]) -> list[str]:
    signature = ["self"]
    for each in parameters:
        default = "" if each.default is None else f" = {each.default}"
        signature.append(f"{each.name}: {each.annotation}{default}")
    lines = statement(f"def __init__({', '.join(signature)}) -> None:", STEP)
    for name, term in record:
        if name == "":
            written = term.written() if isinstance(term, Build) else sequence(term.items)
            text = f"super().__init__({', '.join(written)})"
        elif isinstance(term, Build) and term.callee == "buffer":
            text = f"self.register_buffer({', '.join([Value(name).__str__(), *term.written()])})"
        else:
            text = f"self.{name} = {term}"
        lines += statement(text, STEP + STEP)
    for tie in ties:
        lines += statement(tie, STEP + STEP)
    return lines


def methods_beside_forward(kind: type, library: Library) -> Methods:
    """Own methods that a package calls by itself (`MessagePassing.message`)."""
    return methods(kind, (), library, forward=False)


def _zeros(tensor: Tensor) -> Build:
    sizes = tuple(
        Argument(f"size{n}", Value(size), positional=True, role="width") for n, size in enumerate(tensor.shape)
    )
    sizes = sizes or (Argument("size", Value(()), positional=True),)
    dtype = () if tensor.dtype == torch.float32 else (Argument("dtype", Name(str(tensor.dtype))),)
    return Build("torch.zeros", (*sizes, *dtype))


def _plain(module: nn.Module) -> nn.Module:
    """The network with plain layers in place of those that only are faster while searching."""
    if hasattr(module, "plain"):
        found = module.plain()
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


def _ties(network: nn.Module) -> list[str]:
    """Assignments for parameters that stand at several places."""
    first: dict[int, str] = {}
    found = []
    for name, parameter in network.named_parameters(remove_duplicate=False):
        place = "self" + "".join(
            f"[{part}]" if part.isdigit() else f".{part}" if part.isidentifier() else f'["{part}"]'
            for part in name.split(".")
        )
        if id(parameter) in first:
            found.append(f"{place} = {first[id(parameter)]}")
        else:
            first[id(parameter)] = place
    return found


def _camel(text: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"\W|_", text))
