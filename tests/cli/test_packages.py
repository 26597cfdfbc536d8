"""A user's folder that takes the place of one of our packages is named, before it does harm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nas_cli import packages
from nas_cli.app import run

ROOT = Path(packages.__file__).resolve().parent.parent


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m nas_cli` in a folder, which Python then searches first."""
    return subprocess.run(
        [sys.executable, "-m", "nas_cli", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_our_packages_come_from_one_place() -> None:
    assert packages.intruder() is None
    on_disk = {path.parent.name for path in Path(__file__).parents[2].glob("*/__init__.py")}
    assert set(packages.PACKAGES) == on_disk


@pytest.mark.parametrize("name", ["nas_core", "studies"])
def test_a_package_of_the_same_name_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('the intruder was imported')\n")
    done = start(tmp_path, "--help")
    assert (done.returncode, done.stdout) == (5, "")
    assert f"'{tmp_path.resolve() / name}' takes the place of the package '{name}'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_module_on_the_python_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "training.py").write_text("")
    # On sys.path before the place that nas is found in, as PYTHONPATH is.
    done = start(tmp_path, "ls", PYTHONPATH=os.pathsep.join([str(tmp_path / "lib"), str(ROOT)]))
    assert done.returncode == 5
    assert "training.py' takes the place of the package 'training'" in done.stderr


def test_an_imported_intruder_ends_as_a_machine_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import importlib.util

    file = tmp_path / "predictors.py"
    file.write_text("")
    spec = importlib.util.spec_from_file_location("predictors", file)
    assert spec is not None
    monkeypatch.setitem(sys.modules, "predictors", importlib.util.module_from_spec(spec))
    assert run(["spaces", "list"]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert f"'{file.resolve()}' takes the place of the package 'predictors'" in err


def test_a_folder_beside_without_our_names_is_fine(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = start(tmp_path, "spaces", "--help")
    assert done.returncode == 0
