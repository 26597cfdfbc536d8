"""The same tree draws the same tests of the matrix, a changed one draws others, and they run last."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.plugins.lottery import MATRIX, SHARE, digest, drawn, sources

TESTS = """
import pytest

@pytest.mark.matrix
@pytest.mark.parametrize("number", range(300))
def test_product(number):
    pass

def test_sum():
    pass
"""


def ran(inner: pytest.Pytester, *arguments: str) -> list[str]:
    result = inner.runpytest_subprocess("-v", *arguments)
    assert result.ret == 0
    lines = [line for line in result.outlines if "PASSED" in line]
    return [found[1] for line in lines if (found := re.search(r"\.py::(\S+)", line))]


def test_a_plain_run_draws_and_a_run_by_marks_does_not(inner: pytest.Pytester) -> None:
    inner.makepyfile(TESTS)
    first, *product = ran(inner)
    tree = digest(inner.path, sources(inner.path))
    file = next(inner.path.glob("test_*.py")).name
    assert first == "test_sum"
    assert product == [f"test_product[{n}]" for n in range(300) if drawn(f"{file}::test_product[{n}]", tree)]
    assert 0 < len(product) < 30
    assert set(ran(inner, "-n", "2")) == {first, *product}
    assert ran(inner, "-m", MATRIX) == [f"test_product[{n}]" for n in range(300)]
    assert ran(inner, "-m", "not matrix") == ["test_sum"]


def test_a_change_draws_others(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1", encoding="utf-8")
    tests = [f"test_file.py::test[{number}]" for number in range(5_000)]

    def lucky() -> set[str]:
        tree = digest(tmp_path, sources(tmp_path))
        return {test for test in tests if drawn(test, tree)}

    first = lucky()
    assert len(first) == pytest.approx(SHARE * len(tests), abs=40)
    assert lucky() == first
    (tmp_path / "a.py").write_text("2", encoding="utf-8")
    second = lucky()
    assert len(first & second) < len(first) / 2
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert lucky() not in (first, second)


def test_the_tree_is_what_git_tracks_and_without_git_what_is_there(tmp_path: Path) -> None:
    for name in ("a.py", "b/c.py", "b/notes.txt", ".venv/d.py", "build/e.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    without = sources(tmp_path)
    assert sorted(without) == ["a.py", "b/c.py"]
    for arguments in (["init", "-q"], ["add", "a.py", "b"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    (tmp_path / "untracked.py").write_text("", encoding="utf-8")
    assert sources(tmp_path) == ["a.py", "b/c.py"]
    assert digest(tmp_path, sources(tmp_path)) == digest(tmp_path, without)
    (tmp_path / "a.py").unlink()
    assert sources(tmp_path) == ["b/c.py"]
