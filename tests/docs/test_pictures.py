"""The pictures of the README: they are there, small, and what `docs/pictures.py` makes."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy
import pytest
from PIL import Image

from tests.browser import NoBrowser, started

ROOT = Path(__file__).resolve().parents[2]
SHOWN = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
LARGEST = 200_000  # bytes


def drawn(picture: Path) -> int:
    """How many different pixels a picture has, or how many elements a drawing."""
    if picture.suffix == ".svg":
        return sum(1 for _ in xml.parse(picture).iter())
    return len(numpy.unique(numpy.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3), axis=0))


def test_the_readme_shows_all_of_them() -> None:
    shown = SHOWN.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert sorted(path for _, path in shown) == sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "pictures").iterdir()
    )
    for said, path in shown:
        assert len(said) > 20, path  # who sees none reads what is in it
        assert (ROOT / path).stat().st_size < LARGEST
        assert drawn(ROOT / path) > 50


@pytest.mark.slow
def test_they_are_what_the_script_makes(tmp_path: Path) -> None:
    pytest.importorskip("starlette")
    pytest.importorskip("plotly")
    try:
        with started():
            pass
    except NoBrowser as error:
        pytest.skip(f"needs a browser: {error}")
    command = [sys.executable, "docs/pictures.py", "--trials", "3", "--epochs", "2", "--out", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT)
    made = {path.name: path for path in tmp_path.iterdir()}
    assert made.keys() == {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    for name, path in made.items():
        assert path.stat().st_size < LARGEST
        assert drawn(path) > 50
        if path.suffix == ".png":
            assert Image.open(path).size == Image.open(ROOT / "docs" / "pictures" / name).size
