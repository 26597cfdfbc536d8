"""stdout holds data alone, whatever user code prints; a stdout or stderr that takes nothing ends in no defect."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]

SPACE = """
import os
import sys

os.write(1, b"loading, as C would print it\\n")
print("loading")

from nas_core.choice import Choice
from nas_core.space import SearchSpace


class Toy(SearchSpace):
    name = "toy"
    tasks = frozenset({"image-classification"})
    choices = (Choice("depth", (1, 2)), Choice("act", ("relu", "silu")))

    def allowed(self, choice, prefix):
        print("asked for", choice.name)
        if not prefix:
            os.system("echo a child prints")
        return choice.options


space = Toy()
"""
MAPPING = """
space: toy
row: {choices: {depth: depth, act: act}}
data:
  pics:
    task: {kind: image-classification, input_shape: [3, 8, 8], outputs: 10}
    metrics: {val_accuracy: {column: acc, scale: 0.01}}
"""
SEARCH = ["--space", "toy.py:space", "--table", "toy.csv", "--data", "pics", "--strategy", "random", "--trials", "3"]


@pytest.fixture
def toy(folder: Path) -> Path:
    (folder / "toy.py").write_text(SPACE)
    (folder / "toy.csv").write_text("depth,act,acc\n1,relu,61\n1,silu,62\n2,relu,63\n2,silu,64\n")
    (folder / "toy.yaml").write_text(MAPPING)
    return folder


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which `nas` is this nas."""
    line = f'nas() {{ "{sys.executable}" -m nas_cli "$@"; }}; {command}'
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], env=environment, capture_output=True, text=True, timeout=120
    )


def test_what_user_code_prints_goes_to_stderr(toy: Path, say: Say) -> None:
    code, out, err = say("search", "--study", "a", *SEARCH, "--json")
    assert code == 0
    assert json.loads(out)["best"]["number"] == 1
    assert "loading\n" in err
    assert "asked for act\n" in err
    for command in (["show", "a:0", "--json"], ["trials", "a", "--json"], ["spaces", "show", "toy.py:space", "--json"]):
        code, out, _ = say(*command)
        assert (code, bool(json.loads(out))) == (0, True)
    print("after it all is as before")
    assert sys.stdout is not sys.stderr


def test_what_c_and_children_print_goes_to_stderr(toy: Path) -> None:
    done = shell(f"nas search --study a {' '.join(SEARCH)} --json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["study"] == "a"
    assert {"loading, as C would print it", "a child prints"} <= set(done.stderr.splitlines())


def test_streams_that_are_closed_or_full(toy: Path) -> None:
    closed = shell(f"nas search --study a {' '.join(SEARCH)} <&- >&- 2>&-")
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, "", "")
    found = shell("nas query 'SELECT count(*) AS n FROM trials' 2>/dev/full")  # nothing was printed into the database
    assert (found.returncode, found.stdout.split()) == (0, ["n", "3"])
    for command in ("nas ls", "nas --help"):
        full = shell(f"{command} >/dev/full")
        assert (full.returncode, len(full.stderr.splitlines())) == (5, 1)
        assert "No space left on device" in full.stderr
    many = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 50000) SELECT x FROM c"
    for command in (f"nas query '{many}'", "nas --help"):
        left = shell(f"{command} | head -1")
        assert (left.returncode, left.stderr, len(left.stdout.splitlines())) == (0, "", 1)


def test_commands_print_data_by_emit_alone() -> None:
    import nas_cli

    for file in Path(nas_cli.__file__).parent.glob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if not isinstance(call, ast.Call) or ast.unparse(call.func) not in ("print", "typer.echo"):
                continue
            elsewhere = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert elsewhere.get("file") == "sys.stderr" or elsewhere.get("err") == "True", (
                f"{file.name}, line {call.lineno}: stdout belongs to nas_cli.render.emit"
            )
