"""The layer rule: a package imports only from packages below it, also under `TYPE_CHECKING` and in functions."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

import search_spaces

ROOT = Path(__file__).resolve().parents[1]

BELOW = {
    "nas_core": set(),
    "search_spaces": {"nas_core"},
    "training": {"nas_core", "search_spaces"},
    "predictors": {"nas_core", "search_spaces", "training"},
    "compressors": {"nas_core", "search_spaces", "training"},
    "strategies": {"nas_core", "search_spaces", "training", "predictors"},
    "studies": {"nas_core", "search_spaces", "training", "predictors", "compressors", "strategies"},
    "reports": {"nas_core", "search_spaces", "training", "predictors", "compressors", "strategies", "studies"},
}
BELOW["nas_cli"] = set(BELOW)
MODULES = {"nas": set(BELOW) - {"nas_cli"}}
"""Files beside the packages: the Python door sees everything but the commands."""
DYNAMIC = ("importlib.import_module", "import_module", "__import__")
CORE_ALLOWS = {"numpy", "pydantic", "pydantic_core"}


def imports(source: str, package: str = "") -> Iterator[tuple[str, int, bool]]:
    """Top-level packages that a module imports: (name, line, whether at run time and outside functions)."""

    def walk(node: ast.AST, now: bool) -> Iterator[tuple[str, int, bool]]:
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name.partition(".")[0], node.lineno, now
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0] if not node.level else package, node.lineno, now
        elif (
            isinstance(node, ast.Call) and ast.unparse(node.func) in DYNAMIC and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value).partition(".")[0], node.lineno, now
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from walk(child, False)
            for child in node.orelse:
                yield from walk(child, now)
            return
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, now and not inside)

    return walk(ast.parse(source), True)


def violations(package: str, source: str) -> list[str]:
    """Imports of a module of `package` that the layer rule forbids."""
    forbidden = BELOW.keys() - (BELOW | MODULES)[package] - {package}
    return [f"line {line} imports {name}" for name, line, _ in imports(source, package) if name in forbidden]


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def packages() -> set[str]:
    return {path.parent.name for path in ROOT.glob("*/__init__.py")}


def test_every_package_has_a_layer() -> None:
    assert packages() == set(BELOW)


def test_modules_beside_the_packages_are_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["py-modules"] == list(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_layers_of_modules(name: str) -> None:
    assert violations(name, (ROOT / f"{name}.py").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("package", BELOW)
def test_layers(package: str) -> None:
    assert files(package)
    found = {
        str(path.relative_to(ROOT)): wrong
        for path in files(package)
        if (wrong := violations(package, path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_nas_core_imports_only_the_standard_library_numpy_and_pydantic() -> None:
    """Under TYPE_CHECKING and, in the contract suites, inside functions, torch may be named as well."""
    for path in files("nas_core"):
        suite = (ROOT / "nas_core" / "testing") in path.parents
        for name, line, now in imports(path.read_text(encoding="utf-8"), "nas_core"):
            known = name in sys.stdlib_module_names or name in CORE_ALLOWS or name == "nas_core"
            typing_only = name == "torch" and not now and (suite or _only_typed(path, line))
            assert known or typing_only, f"{path.relative_to(ROOT)}:{line} imports {name}"


def _only_typed(path: Path, line: int) -> bool:
    """Whether the import on this line stands under `if TYPE_CHECKING`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return any(child.lineno == line for child in node.body)
    return False


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("nas_core", "import search_spaces"),
        ("nas_core", "from studies.store import Store"),
        ("search_spaces", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from strategies import x"),
        ("training", "def f():\n    import predictors.zero_cost"),
        ("predictors", "import compressors"),
        ("compressors", "from predictors import ranking"),
        ("strategies", "import compressors"),
        ("studies", "import importlib\nimportlib.import_module('nas_cli.app')"),
        ("training", "import os, studies"),
        ("studies", "def f():\n    from reports import make"),
        ("reports", "from nas_cli import render"),
    ],
)
def test_a_forbidden_import_is_seen(package: str, source: str) -> None:
    assert len(violations(package, source)) == 1


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("studies", "import nas_core, strategies.evolution.regularized"),
        ("strategies", "from . import random_search\nfrom predictors import ranking"),
        ("training", "from training.fit import fit\nimport torch"),
    ],
)
def test_an_allowed_import_is_not(package: str, source: str) -> None:
    assert violations(package, source) == []


def test_where_an_import_stands_is_seen() -> None:
    source = (
        "from typing import TYPE_CHECKING\nimport numpy\nif TYPE_CHECKING:\n    import torch\n"
        "def f():\n    import json\nclass A:\n    import csv\n"
    )
    assert {name: now for name, _, now in imports(source)} == {
        "typing": True,
        "numpy": True,
        "torch": False,
        "json": False,
        "csv": True,
    }


def spaces_named(source: str) -> Iterator[str]:
    """The listed spaces that a module names: by a text that is compared, or by what it imports."""
    folders = {reference.rpartition(".")[0]: name for name, reference in search_spaces.BUILTIN.items()}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare | ast.Match | ast.Dict):
            texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            yield from (name for name in search_spaces.BUILTIN if name in texts)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            yield from (
                name for folder, name in folders.items() if any(f"{each}.".startswith(f"{folder}.") for each in named)
            )


def test_no_strategy_names_a_space() -> None:
    """They see choices, moves and what a space can do; `__init__` lists strategies, some of which share a name."""
    listed = ROOT / "strategies" / "__init__.py"
    found = {path.name: [*spaces_named(path.read_text())] for path in files("strategies") if path != listed}
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "def f(space):\n    return 3 if space.name == 'evonorm' else 5",
        "if space.name in ('activation', 'x'):\n    pass",
        "match space.name:\n    case 'darts':\n        pass",
        "SIZES = {'nasbench201': 4}",
        "def f():\n    from search_spaces.evonorm.space import EvoNorm",
    ],
)
def test_a_strategy_that_names_a_space_is_seen(source: str) -> None:
    assert len([*spaces_named(source)]) == 1


def modules() -> dict[str, Path]:
    """Every module of the packages, by name."""
    found = {
        path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for package in BELOW for path in files(package)
    }
    return {name.removesuffix(".__init__"): path for path, name in found.items()}


def imported(source: str, known: Collection[str]) -> set[str]:
    """The modules among `known` that a source imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in named}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(known)


def circles(imports_of: Mapping[str, set[str]]) -> list[list[str]]:
    """Modules that reach each other: the strongly connected components of more than one."""
    reached: dict[str, set[str]] = {}
    for start in imports_of:
        seen, waiting = set[str](), list(imports_of[start])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += imports_of.get(name, set())
        reached[start] = seen
    return sorted(
        {tuple(sorted(b for b in reached[a] if a in reached[b])) for a in reached if a in reached[a]}, key=len
    )  # type: ignore[arg-type]


def test_no_file_imports_one_that_imports_it() -> None:
    """Circles between files, imports in functions and under `TYPE_CHECKING` included."""
    known = modules()
    assert circles({name: imported(path.read_text(), known) - {name} for name, path in known.items()}) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [("a", "b", "c")]
    assert imported("def f():\n    from a import b, c\nimport d", {"a", "a.b", "d"}) == {"a", "a.b", "d"}
