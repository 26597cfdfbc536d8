"""`nas init`: files to begin with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nas_cli.init import examples

Say = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]


def test_the_file_that_it_writes_is_a_configuration(say: Say, folder: Path) -> None:
    code, out, _ = say("init")
    assert (code, out.splitlines()[0]) == (0, "search.yaml")
    assert say("search", "search.yaml", "--print-config", "--trials", "3")[0] == 0


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "examples").iterdir() if path.is_file()))
def test_every_example_is_written_for_where_it_is_now(say: Say, folder: Path, name: str) -> None:
    code, out, _ = say("init", "--example", name)
    written = folder / out.splitlines()[0]
    assert code == 0
    assert written.stem == name
    assert "examples/" not in written.read_text()


def test_an_example_runs_as_its_head_says(say: Say, folder: Path) -> None:
    assert say("init", "mine.py", "--example", "my_space.py")[0] == 0
    code, out, _ = say("search", "--space", "mine.py:space", "--trials", "1", "--epochs", "1", "-s", "split.limit=100")
    assert code == 0, out


def test_what_cannot_be_written(say: Say, folder: Path) -> None:
    code, _, err = say("init", "--example", "my_spaec")
    assert code == 2
    assert "unknown example 'my_spaec'; did you mean 'my_space'?" in err
    assert "my_host" in err
    say("init", "--example", "my_space")
    code, _, err = say("init", "--example", "my_space")
    assert (code, "'my_space.py' exists" in err) == (2, True)
    assert say("init", "missing/x.yaml")[0] == 2


@pytest.mark.slow
def test_an_installation_has_them(tmp_path: Path) -> None:
    """That every example is found in a checkout is in the gate."""
    build = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*build, "--target", str(tmp_path / "site"), "."], check=True, cwd=ROOT)
    done = subprocess.run(
        [sys.executable, "-c", "from nas_cli.init import examples; print(*(path.name for path in examples()))"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert done.stdout.split() == [path.name for path in examples()]
