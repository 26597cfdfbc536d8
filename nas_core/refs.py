"""Names that resolve lazily: built-in, `file.py:object`, `package.module:object`, or an entry point.

Any of them may carry arguments: `regnet(stages=2)`. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_core.errors import MachineError, NasError, NotFoundError, UsageError, unknown
from nas_core.user_files import load_file

_CALL = re.compile(r"(?P<target>[^()]+)(?:\((?P<arguments>.*)\))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Loaded:
    """An object and where it came from; `file_hash` is set for a user's file (`user_files.digest_of`)."""

    object: Any
    reference: str
    file_hash: str | None = None


def load(reference: str, builtins: Mapping[str, str], group: str, kind: str) -> Loaded:
    """Resolve a reference; a class or function is called with the reference's arguments (or none).

    `builtins` maps names to `module:object`; `group` is the entry-point group; `kind` words the errors.
    Raises UsageError for an unknown name or bad arguments, NotFoundError for a missing file or object,
    MachineError for a module that needs one that is not installed.
    """
    target, arguments = split(reference, kind)
    found, file_hash = _find(target, builtins, group, kind)
    if callable(found):
        try:
            found = found(**arguments)
        except NasError:
            raise
        except (Exception, SystemExit) as error:  # whatever a user's class raises
            raise UsageError(f"{kind} '{reference}': {type(error).__name__}: {error}") from error
    elif arguments:
        raise UsageError(f"{kind} '{reference}': '{target}' takes no arguments")
    return Loaded(found, reference, file_hash)


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
    return Loaded(found, reference, file_hash)


def find(reference: str, builtins: Mapping[str, str], group: str, kind: str) -> Any:
    """The object itself, without calling it; for strategies and other classes."""
    return _find(reference, builtins, group, kind)[0]


def names(builtins: Mapping[str, str], group: str) -> list[str]:
    """Built-in names, then those of installed entry points."""
    return [*builtins, *(name for name in _entry_points(group) if name not in builtins)]


def split(reference: str, kind: str) -> tuple[str, dict[str, Any]]:
    """`name(a=1, b='x')` -> `("name", {"a": 1, "b": "x"})`; arguments are Python literals."""
    match = _CALL.fullmatch(reference.strip())
    if not match:
        raise UsageError(f"{kind} '{reference}' is malformed; write name or name(key=value)")
    if not match["arguments"]:
        return match["target"].strip(), {}
    try:
        call = ast.parse(f"f({match['arguments']})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        return match["target"].strip(), {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError):
        raise UsageError(f"{kind} '{reference}': arguments are key=value literals, e.g. name(levels=3)") from None


def _find(target: str, builtins: Mapping[str, str], group: str, kind: str) -> tuple[Any, str | None]:
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
