"""Runs a program in a process that cannot import anything of this repository, in a folder elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nas_cli.packages import PACKAGES

# The packages of this repository are refused by name, wherever they are installed.
_GUARD = f"""
import runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {PACKAGES!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}")

sys.meta_path.insert(0, Refuse())
for name in {PACKAGES!r}:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{{name}} can be imported")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_alone(program: str, folder: Path, *arguments: str) -> str:
    """What `program` prints to stdout, run in `folder`, which holds what it opens."""
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-I", "-c", _GUARD, str(folder / "program.py"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
