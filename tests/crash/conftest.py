"""What the crash tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from nas_cli.app import run as nas
from tests.crash.running import Fork
from tests.crash.sessions import write_toy
from tests.zygote import Zygote


@pytest.fixture(scope="session")
def start(zygote: Zygote) -> Callable[..., Fork]:
    """Starts commands as forks, one at a time, whose worker processes are forks as well."""
    return partial(Fork, zygote, function="tests.crash.eager:run")


@pytest.fixture
def say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in a folder with the toy space and its table: exit code, stdout, stderr."""
    monkeypatch.chdir(write_toy(tmp_path / "work"))
    for name in [name for name in os.environ if name.startswith("NAS_") and name != "NAS_SHARED"]:
        monkeypatch.delenv(name)

    def command(*arguments: str) -> tuple[int, str, str]:
        code = nas(arguments)
        return code, *capsys.readouterr()

    return command
