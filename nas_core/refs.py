"""Names that resolve lazily: built-in, `file.py:object`, `package.module:object`, or an entry point.

Any of them may carry arguments, `regnet(stages=2)`: Python literals, bare words, which are strings (`backbone=text`;
`true`, `false` and `none` are what they say), lists and tuples of both, and references as words (`inner=tpe(seed=1)`).
A built-in name that ends in a colon, `command:`, is a function that is called with the text after it.
Nothing is imported before it is asked for.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_core.errors import MachineError, NasError, NotFoundError, UsageError, unknown
from nas_core.user_files import digest_of, load_file

_WORD = re.compile(r"[^\s'\"=,(){}\[\]]+")
_WORDS: Mapping[str, Any] = {"true": True, "false": False, "none": None}
_PAIRS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Loaded:
    """An object and where it came from; `file_hash` is set for a user's file (`user_files.digest_of`), and where its
    arguments name such files, whose content counts as well."""

    object: Any
    reference: str
    file_hash: str | None = None


def load(reference: str, builtins: Mapping[str, str], group: str, kind: str) -> Loaded:
    """Resolve a reference; a class or function is called with the reference's arguments (or none).

    `builtins` maps names to `module:object`; `group` is the entry-point group; `kind` words the errors.
    Raises UsageError for an unknown name or bad arguments, NotFoundError for a missing file or object,
    MachineError for a module that needs one that is not installed.
    """
    located, arguments = resolve(reference, builtins, group, kind)
    return Loaded(called(located, arguments, kind), reference, located.file_hash)


def resolve(reference: str, builtins: Mapping[str, str], group: str, kind: str) -> tuple[Loaded, dict[str, Any]]:
    """What a reference names, as it is, and the arguments that it gives. Raises like `load`."""
    target, arguments = split(reference, kind)
    found, file_hash = _find(target, builtins, group, kind)
    return Loaded(found, reference, digest_with(file_hash, files_in(arguments))), arguments


def called(located: Loaded, arguments: Mapping[str, Any], kind: str) -> Any:
    """A class or function that was located, called with arguments; another object as it is. Raises UsageError."""
    found, reference = located.object, located.reference
    if not callable(found):
        if arguments:
            raise UsageError(f"{kind} '{reference}': '{split(reference, kind)[0]}' takes no arguments")
        return found
    _check_names(found, arguments, reference, kind)
    try:
        return found(**arguments)
    except NasError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's class raises
        raise UsageError(f"{kind} '{reference}': {type(error).__name__}: {error}") from error


def _check_names(found: Any, arguments: Mapping[str, Any], reference: str, kind: str) -> None:
    """Raises UsageError for arguments that a class or function does not take."""
    if not arguments:
        return
    try:
        known = inspect.signature(found).parameters
    except (TypeError, ValueError):  # it says nothing
        return
    if any(each.kind is each.VAR_KEYWORD for each in known.values()):
        return
    named = [name for name, each in known.items() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    for name in arguments:
        if name not in named:
            takes = f"it takes {', '.join(named)}" if named else "it takes none"
            raise UsageError(f"{kind} '{reference}' has no argument '{name}'; {takes}")


def load_function(reference: str, builtins: Mapping[str, str], group: str, kind: str) -> Loaded:
    """Resolve a reference to something that is called later: a function as it is; a class, or whatever the reference
    gives arguments, is called once before. Raises like `load`, and UsageError for what cannot be called."""
    target, arguments = split(reference, kind)
    found, file_hash = _find(target, builtins, group, kind)
    if arguments or isinstance(found, type):
        try:
            found = found(**arguments)
        except NasError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(f"{kind} '{reference}': {type(error).__name__}: {error}") from error
    if not callable(found):
        raise UsageError(f"{kind} '{reference}' is a {type(found).__name__}, which cannot be called; name a function")
    return Loaded(found, reference, digest_with(file_hash, files_in(arguments)))


def find(reference: str, builtins: Mapping[str, str], group: str, kind: str) -> Any:
    """The object itself, without calling it; for strategies and other classes."""
    return _find(reference, builtins, group, kind)[0]


def locate(reference: str, builtins: Mapping[str, str], group: str, kind: str) -> Loaded:
    """The same, with the hash of a user's file."""
    found, file_hash = _find(reference, builtins, group, kind)
    return Loaded(found, reference, file_hash)


def names(builtins: Mapping[str, str], group: str) -> list[str]:
    """Built-in names, then those of installed entry points."""
    return [*builtins, *(name for name in _entry_points(group) if name not in builtins)]


def split(reference: str, kind: str) -> tuple[str, dict[str, Any]]:
    """`name(a=1, b=word)` -> `("name", {"a": 1, "b": "word"})`. Raises UsageError for what is malformed."""
    text = reference.strip()
    target, opening, _ = text.partition("(")
    if not target.strip() or ")" in target or (opening and _end(text, len(target)) != len(text)):
        raise UsageError(f"{kind} '{reference}' is malformed; write name or name(key=value)")
    arguments: dict[str, Any] = {}
    try:
        for part in separated(text[len(target) + 1 : -1]) if opening else ():
            key, equals, value = part.partition("=")
            if not (equals and key.strip().isidentifier()) or key.strip() in arguments:
                raise ValueError(part)
            arguments[key.strip()] = _value(value.strip())
    except ValueError:
        raise UsageError(
            f"{kind} '{reference}': arguments are key=value with Python literals or bare words, e.g. name(levels=3)"
        ) from None
    return target.strip(), arguments


def before_colon(text: str) -> tuple[str, str] | None:
    """`REFERENCE:REST` in two, where the reference may be `FILE.py:OBJECT` or `PACKAGE.MODULE:OBJECT`, with arguments;
    None for text without both."""
    outer = (place for place, character, depth in _scan(text) if character == ":" and not depth)
    for colon in outer:
        head = text[:colon]
        if not (head.endswith(".py") or re.fullmatch(r"[\w.]*\.[\w.]*", head)):
            return (head, text[colon + 1 :]) if head and text[colon + 1 :] else None
    return None


def _scan(text: str) -> Iterator[tuple[int, str, int]]:
    """The characters outside of quotes, each with its place and how many brackets are open around it; a negative depth
    where one is closed that is not open."""
    open_: list[str] = []
    quote = ""
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote and text[place - 1] != "\\" else quote
        elif character in "'\"":
            quote = character
        elif character in _PAIRS:
            yield place, character, len(open_)
            open_.append(_PAIRS[character])
        elif character in _PAIRS.values():
            if not open_ or open_.pop() != character:
                yield place, character, -1
                return
            yield place, character, len(open_)
        else:
            yield place, character, len(open_)


def _end(text: str, opening: int) -> int:
    """The place after the bracket that closes the one at `opening`; -1 where none does."""
    for place, character, depth in _scan(text[opening:]):
        if place and not depth and character in _PAIRS.values():
            return opening + place + 1
    return -1


def separated(text: str) -> list[str]:
    """What commas outside of quotes and brackets separate; a last empty part is none. Raises ValueError for brackets
    that do not match."""
    cuts = [-1]
    for place, character, depth in _scan(text):
        if depth < 0:
            raise ValueError(text)
        if character == "," and not depth:
            cuts.append(place)
    parts = [text[start + 1 : stop] for start, stop in zip(cuts, [*cuts[1:], len(text)], strict=True)]
    return parts if parts[-1].strip() else parts[:-1]


def _value(text: str) -> Any:
    """A literal, a word, or a list or tuple of values. Raises ValueError."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        pass
    if text in _WORDS:
        return _WORDS[text]
    if text[:1] in "([" and text and _end(text, 0) == len(text):
        parts = separated(text[1:-1])
        values = [_value(part.strip()) for part in parts]
        if text[0] == "[":
            return values
        return tuple(values) if "," in text[1:-1] else values[0]
    word = _WORD.match(text)
    if word is None or (word.end() < len(text) and _end(text, word.end()) != len(text)):
        raise ValueError(text)
    return text


def files_in(arguments: Mapping[str, Any]) -> list[Path]:
    """The files that exist of all `file.py:object` within arguments, each once."""
    return list(dict.fromkeys(_named_files(arguments)))


def digest_with(own: str | None, files: Iterable[Path]) -> str | None:
    """The digest of a user's file (None without one), with those of the files that arguments name."""
    others = [digest_of(path) for path in files]
    if not others:
        return own
    return hashlib.sha256(" ".join([own or "", *others]).encode()).hexdigest()[:16]


def moved_to(folder: Path, value: Any) -> Any:
    """Arguments whose files are those of the same names in a folder, as far as they are there."""
    if isinstance(value, str):
        path, separator, rest = value.partition(".py:")
        there = folder / f"{Path(path).name}.py"
        return f"{there}:{rest}" if separator and "(" not in path and there.is_file() else value
    if isinstance(value, list | tuple | set):
        return type(value)(moved_to(folder, one) for one in value)
    if isinstance(value, Mapping):
        return {key: moved_to(folder, one) for key, one in value.items()}
    return value


def hashes(value: Any) -> dict[str, str]:
    """The digests of all files that `file.py:object` within a value, plain data, name, by their paths."""
    return {str(path): digest_of(path) for path in _named_files(value)}


def _named_files(value: Any) -> Iterator[Path]:
    if isinstance(value, str):
        path, separator, _ = value.partition("(")[0].rpartition(":")
        if separator and path.endswith(".py") and Path(path).is_file():
            yield Path(path)
    elif isinstance(value, list | tuple | set):
        for one in value:
            yield from _named_files(one)
    elif isinstance(value, Mapping):
        yield from _named_files([*value.values()])


def _find(target: str, builtins: Mapping[str, str], group: str, kind: str) -> tuple[Any, str | None]:
    scheme, colon, rest = target.partition(":")
    if f"{scheme}{colon}" in builtins and colon:
        return _from_module(builtins[f"{scheme}:"], kind)(rest), None
    if target in builtins:
        return _from_module(builtins[target], kind), None
    path, separator, attribute = target.rpartition(":")
    if separator and path.endswith(".py"):
        return _from_file(Path(path), attribute, kind)
    if separator:
        return _from_module(target, kind), None
    points = _entry_points(group)
    if target in points:
        return points[target].load(), None
    if target.endswith(".py"):
        raise UsageError(f"{kind} '{target}' names a file alone; name the object in it too: {target}:NAME")
    raise unknown(kind, target, [*builtins, *points])


def _from_module(target: str, kind: str) -> Any:
    module, _, attribute = target.partition(":")
    if not all(part.isidentifier() for part in module.split(".")):
        raise NotFoundError(f"{kind} '{target}': '{module}' is no name of a module")
    try:
        return _attribute(importlib.import_module(module), attribute, target)
    except ModuleNotFoundError as error:
        if error.name and not (module == error.name or module.startswith(error.name + ".")):
            raise MachineError(f"{kind} '{target}' needs the module '{error.name}', which is not installed") from error
        raise NotFoundError(f"{kind} '{target}': there is no module '{module}'") from error


def _from_file(path: Path, attribute: str, kind: str) -> tuple[Any, str]:
    if not path.is_file():
        raise NotFoundError(f"{kind} '{path}:{attribute}': there is no file '{path}'")
    module, digest = load_file(path, kind)
    return _attribute(module, attribute, f"{path}:{attribute}"), digest


def _attribute(module: Any, attribute: str, target: str) -> Any:
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise NotFoundError(f"'{target}': no object '{attribute}' in it (it has {', '.join(public) or 'nothing'})")
    return getattr(module, attribute)


def _entry_points(group: str) -> Mapping[str, Any]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=group)}
