"""What the tests of the command line share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nas_cli.app import run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, without settings from the environment."""
    enter(tmp_path, monkeypatch)
    return tmp_path


def enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("NAS_") and name != "NAS_SHARED"]:
        patch.delenv(name)


def said_in(folder: Path, *arguments: str) -> None:
    """Runs a command, which must succeed, in a folder that tests of a module have copies of."""
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        assert run(arguments) == 0


@pytest.fixture
def say(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command: exit code, stdout, stderr."""

    def command(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        return code, *capsys.readouterr()

    return command
