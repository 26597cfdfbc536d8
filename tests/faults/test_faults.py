"""The planted faults fit the code as it is, and the harness says who finds them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.faults import __main__ as harness
from tests.faults.faults import HERE, ROOT, Fault, changed_lines, load, misfits, statements

FILES: Mapping[str, str] = {
    "nas_core/__init__.py": "",
    "nas_core/sums.py": (
        "from math import inf\n\n"
        "LARGEST = 7\n\n\n"
        "def capped(x):\n    return min(x, LARGEST)\n\n\n"
        "def half(x):\n    if x is None:\n        return inf\n    return (\n        x / 2\n    )\n\n\n"
        "def name(x):\n    return f'sum {x}'\n\n\n"
        "def twice(x):\n    return 2 * x\n"
    ),
    "tests/core/test_half.py": (
        "import importlib, pytest\n\nsums = importlib.import_module('nas_core.sums')\n"
        "capped, half = sums.capped, sums.half\n\n"
        "@pytest.fixture(scope='module')\ndef four():\n    return half(8)\n\n"
        "def test_slow():\n    sum(range(1_000_000))\n    assert half(2) == 1\n\n"
        "def test_red():\n    assert half(2) == 3\n\n"
        "def test_turned_red():\n    assert half(2) == open('turned').read().count('x')\n\n"
        "def test_capped():\n    assert capped(9) == 7\n\n"
        "def test_nothing(four):\n    pass\n\n"
        "def test_four(four):\n    assert four == 4\n"
    ),
    "tests/core/test_more.py": (
        "from nas_core.sums import twice\n\n"
        "def test_red():\n    assert twice(2) == 5\n\n"
        "def test_twice():\n    assert twice(2) == 4\n"
    ),
    "tests/core/test_process.py": (
        "import subprocess, sys\n\n"
        "def test_name():\n"
        "    text = subprocess.check_output([sys.executable, '-c', 'from nas_core.sums import name; print(name(2))'])\n"
        "    assert text.decode().strip() == 'sum 2'\n"
    ),
    "tests/cli/test_words.py": "def test_words():\n    assert 'return inf' in open('nas_core/sums.py').read()\n",
    "tests/faults/faults.yaml": "",
    "turned": "x",
    "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--import-mode=importlib'\ntestpaths = ['tests']\n",
    ".gitignore": ".faults/\n__pycache__/\n",
}
FAULTS = """
- {name: half, file: nas_core/sums.py, before: x / 2, after: x / 3, breaks: halves}
- {name: cap, file: nas_core/sums.py, before: LARGEST = 7, after: LARGEST = 8, breaks: the cap}
- {name: name, file: nas_core/sums.py, before: "f'sum {x}'", after: "f'sum: {x}'", breaks: a name}
- {name: twice, file: nas_core/sums.py, before: 2 * x, after: 3 * x, breaks: doubles}
- {name: words, file: nas_core/sums.py, before: return inf, after: return 1e999, breaks: words}
- {name: none, file: nas_core/sums.py, before: x is None, after: x is 0.5, breaks: nothing that is tested}
"""


def test_every_fault_fits_the_code_and_its_name_is_its_own() -> None:
    assert list(misfits(load())) == []


def test_a_fault_that_no_longer_fits_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\ny = 1\n", encoding="utf-8")

    def wrong(before: str, after: str, file: str = "a.py") -> str:
        return "\n".join(misfits([Fault("one", file, before, after, "a value")], tmp_path))

    assert wrong("x = 1", "x = 2") == ""
    assert wrong("z = 1", "z = 2") == "fault 'one': its text occurs 0 times in a.py; it must occur once"
    assert wrong("= 1", "= 2") == "fault 'one': its text occurs 2 times in a.py; it must occur once"
    assert wrong("x = 1", "x = 1") == "fault 'one' changes nothing"
    assert wrong("x = 1", "x =").startswith("fault 'one' leaves no Python")
    assert wrong("x = 1", "x = 2", "b.py") == "fault 'one': there is no file b.py"
    for text, message in (("- {name: a}", "'a' is wrong in file, before"), (FAULTS * 2, "come twice: cap, half")):
        (tmp_path / "faults.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            load(tmp_path / "faults.yaml")


def test_the_lines_of_a_fault_are_those_of_the_statements_that_it_changes() -> None:
    text = FILES["nas_core/sums.py"]
    assert changed_lines("a\nb\nc", "a\nB\nc") == {2}
    assert changed_lines("a\nb\nc", "a\nb\nnew\nc") == {2, 3}
    assert statements(text, {14}) == ({13, 14, 15}, True)  # one line of a return of three
    assert statements(text, {11}) == ({11}, True)  # the head of an if
    assert statements(text, {3}) == ({3}, False)  # a constant of the module
    assert statements(text, {10}) == ({10}, False)  # the head of a function


def test_the_harness_says_who_finds_a_fault_and_asks_nobody_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a dozen processes start faster
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    for path in [*HERE.glob("*.py"), HERE / "coveragerc"]:  # pytest loads the plugin from the tree
        if not path.name.startswith("test_"):
            (tmp_path / path.relative_to(ROOT)).write_bytes(path.read_bytes())
    (tmp_path / "tests/faults/faults.yaml").write_text(FAULTS, encoding="utf-8")

    def git(*commands: str) -> None:
        for command in commands:
            subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)

    git("init -q", "add .", "-c user.name=a -c user.email=a commit -qm one")

    assert harness.main(["--record"], tmp_path) == 1  # test_red fails without a fault, and so finds none
    (tmp_path / "turned").write_text("xx", encoding="utf-8")  # another one does so now
    git("-c user.name=a -c user.email=a commit -qam two")
    capsys.readouterr()
    assert harness.main([], tmp_path, ["pytest"]) == 1
    first = capsys.readouterr().out
    found = {line.partition(":")[0]: line.partition(": ")[2] for line in first.splitlines() if ":" in line}
    assert "found by tests/core/test_half.py::test_four (lines" in found["half"]
    assert "found by tests/core/test_half.py::test_capped (lines" in found["cap"]
    assert "found by tests/core/test_more.py::test_twice (near" in found["twice"]
    assert "found by tests/core/test_process.py::test_name (folder" in found["name"]
    assert "found by tests/cli/test_words.py::test_words (gate" in found["words"]
    assert found["none"].startswith("UNSEEN after gate")
    assert first.endswith("5 of 6 faults found (83.3%)\n")
    assert (tmp_path / "nas_core/sums.py").read_text(encoding="utf-8") == FILES["nas_core/sums.py"]

    (tmp_path / ".faults" / "001" / "record.json").unlink()  # nothing is run again
    assert harness.main([], tmp_path, ["pytest"]) == 1
    assert capsys.readouterr().out == first
    with pytest.raises(SystemExit, match="no such fault: halve"):
        harness.main(["halve"], tmp_path, ["pytest"])
