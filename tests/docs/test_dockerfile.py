"""The image of the Dockerfile: built where Docker is at hand; else its steps run in a clean virtual environment."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def steps() -> list[str]:
    """The commands of its RUN instructions, lines that go on joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"^RUN (.*)$", text, re.MULTILINE)


def test_what_it_installs_exists() -> None:
    """Building it is a slow test."""
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = [found for step in steps() for found in re.findall(r'"/source\[([\w,]*)\]"', step)]
    assert set(wanted.split(",")) <= extras.keys()
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert '"/source' in steps()[-1]


@pytest.mark.slow
def test_it_searches(tmp_path: Path) -> None:
    options = ["search", "--trials", "1", "--epochs", "1", "-s", "split.limit=100"]
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        subprocess.run(["docker", "build", "-t", "nas-test", "."], check=True, cwd=ROOT)
        subprocess.run(["docker", "run", "--rm", "-v", f"{tmp_path}:/work", "nas-test", *options], check=True)
    else:
        venv = tmp_path / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        python = venv / "bin" / "python"
        source = tmp_path / "source"
        shutil.copytree(
            ROOT, source, ignore=shutil.ignore_patterns(".git", "build", "*.egg-info", "__pycache__", "*.db")
        )
        places = {"/source": str(source), "/tmp/": f"{tmp_path}/", "python ": f"{python} "}
        for step in steps():
            here = re.sub("|".join(places), lambda found: places[found[0]], step)  # at once: a place may hold another
            subprocess.run(["sh", "-euc", here], check=True, cwd=tmp_path)
        (tmp_path / "work").mkdir()
        subprocess.run([str(venv / "bin" / "nas"), *options], check=True, cwd=tmp_path / "work")
        assert (tmp_path / "work" / "nas.db").is_file()
