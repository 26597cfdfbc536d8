"""A lottery: 2% of the tests that are marked `matrix`, which a plain run leaves out, run last in it all the same.

Who is drawn depends on a test's name and on the text of all tracked Python files: the same tree draws the same tests
everywhere, and every change draws others.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

MATRIX = "matrix"
SHARE = 0.02
TREE = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)  # before tests are left out for their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.markexpr not in config.getini("addopts"):
        return  # who asks for marks gets what he asks for
    lucky = [item for item in items if item.get_closest_marker(MATRIX) and drawn(item.nodeid, config.stash[TREE])]
    for item in lucky:
        item.own_markers = [mark for mark in item.own_markers if mark.name != MATRIX]
    items[:] = [*(item for item in items if item not in lucky), *lucky]


def pytest_configure(config: pytest.Config) -> None:
    given = getattr(config, "workerinput", {})  # workers draw what the controller draws
    config.stash[TREE] = given.get("tree") or digest(config.rootpath, sources(config.rootpath))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["tree"] = node.config.stash[TREE]


def drawn(test: str, tree: str) -> bool:
    ticket = hashlib.sha256(f"{tree} {test}".encode()).digest()
    return int.from_bytes(ticket[:8], "big") < SHARE * 2**64


def digest(root: Path, files: Iterable[str]) -> str:
    """Of the names and the contents of files."""
    hashed = hashlib.sha256()
    for name in sorted(files):
        hashed.update(f"{name} {hashlib.sha256((root / name).read_bytes()).hexdigest()}\n".encode())
    return hashed.hexdigest()


def sources(root: Path) -> list[str]:
    """The Python files that git tracks; without git those that are there, outside of hidden and built folders."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z", "*.py"], cwd=root, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return list(_walk(root))
    return [name for name in listed.stdout.split("\0") if name and (root / name).is_file()]


def _walk(root: Path) -> Iterable[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in ("build", "dist")]
        for name in names:
            if name.endswith(".py"):
                yield (Path(folder) / name).relative_to(root).as_posix()
