"""A Python file of the user's, and the modules beside it that it imports: its neighbours."""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from nas_core.errors import UsageError

# Not neighbours where a user works in the folder that this program is developed in.
OURS = frozenset(
    "nas_core search_spaces training predictors compressors strategies studies nas_cli".split()  # noqa: SIM905
)


class Added(str):
    """An entry of `sys.path` that a user's file has brought."""

    __slots__ = ()


def load_file(path: Path, kind: str) -> tuple[ModuleType, str]:
    """The module of a file, and its digest. `kind` words the errors.

    The folder of a file with neighbours is added to the end of `sys.path` and stays there, for imports inside of
    functions. Raises UsageError for a file that fails to load, or where another file's neighbour has the same name.
    """
    neighbours, digest = neighbours_of(path), digest_of(path)
    name = module_of(digest)
    if name in sys.modules:
        return sys.modules[name], digest
    folder = path.parent.resolve()
    if neighbours and not any(Path(entry).resolve() == folder for entry in sys.path):
        sys.path.append(Added(folder))
        importlib.invalidate_caches()
    for neighbour in neighbours:
        spec = importlib.util.find_spec(neighbour.stem)
        there = None if spec is None or spec.origin is None else Path(spec.origin)
        if there is not None and there.resolve() not in (neighbour.resolve(), (neighbour / "__init__.py").resolve()):
            raise UsageError(
                f"{kind} '{path}' imports '{neighbour.stem}' beside it, but that name is taken by '{there}'; rename one"
            )
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{kind} '{path}': cannot be loaded as a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(f"{kind} '{path}' fails to load: {type(error).__name__}: {error}") from error
    return module, digest


def module_of(digest: str) -> str:
    """The name under which a file's module is registered, so that dataclasses and pickling work."""
    return f"nas_user_{digest}"


def digest_of(path: Path) -> str:
    """SHA-256 (16 hex digits) of a file, and of its neighbours where it has some."""
    content = hashlib.sha256(path.read_bytes())
    for file in files_of(path):
        content.update(file.relative_to(path.parent).as_posix().encode() + b"\0" + file.read_bytes())
    return content.hexdigest()[:16]


def files_of(path: Path) -> list[Path]:
    """The files of all neighbours, in one order: what must travel along with the file."""
    files: list[Path] = []
    for neighbour in neighbours_of(path):
        files += [neighbour] if neighbour.is_file() else sorted(neighbour.rglob("*.py"))
    return files


def neighbours_of(path: Path) -> list[Path]:
    """The modules (`NAME.py`) and packages (folders) beside a file that it or one of them imports, in one order.

    A name of the standard library, or of an installed module, means that one.
    """
    found: dict[str, Path] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        for name in sorted(_imported(file) - found.keys() - OURS):
            module, package = path.parent / f"{name}.py", path.parent / name
            neighbour = package if (package / "__init__.py").is_file() else module
            if not neighbour.exists() or neighbour.resolve() == path.resolve() or _elsewhere(name, path.parent):
                continue
            found[name] = neighbour
            waiting += [neighbour] if neighbour.is_file() else sorted(neighbour.rglob("*.py"))
    return [found[name] for name in sorted(found)]


def _imported(file: Path) -> set[str]:
    """First words of what a file imports, anywhere in it; none where it is no Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    return {name.partition(".")[0] for node in ast.walk(tree) for name in _names(node)}


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield node.module


def _elsewhere(name: str, folder: Path) -> bool:
    """Whether a module is found without this folder and those of other files of the user's."""
    here = folder.resolve()
    others = [entry for entry in sys.path if not isinstance(entry, Added) and Path(entry).resolve() != here]
    for finder in sys.meta_path:
        spec = finder.find_spec(name, others if finder is importlib.machinery.PathFinder else None)
        if spec is not None and not (spec.origin and _within(Path(spec.origin), here)):
            return True
    return False


def _within(origin: Path, here: Path) -> bool:
    folders = [here, *(Path(entry).resolve() for entry in sys.path if isinstance(entry, Added))]
    return any(origin.resolve().is_relative_to(folder) for folder in folders)
