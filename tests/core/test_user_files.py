"""Files of the user's with modules beside them: imports, digests, names that are taken."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas_core import refs
from nas_core.errors import UsageError
from nas_core.user_files import Added, digest_of, files_of

FILE = """
import json
from my_layers import WIDTH
class Space:
    width = WIDTH
    def late(self):
        from my_blocks.wide import DEPTH
        return DEPTH
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A file with a module and a package beside it, one of which imports a third."""
    (tmp_path / "my_space.py").write_text(FILE)
    (tmp_path / "my_layers.py").write_text("import my_numbers\nWIDTH = my_numbers.THREE\n")
    (tmp_path / "my_numbers.py").write_text("THREE = 3\n")
    (tmp_path / "unread.py").write_text("1 / 0\n")
    (tmp_path / "json.py").write_text("1 / 0\n")
    (tmp_path / "my_blocks").mkdir()
    (tmp_path / "my_blocks" / "__init__.py").touch()
    (tmp_path / "my_blocks" / "wide.py").write_text("DEPTH = 4\n")
    yield tmp_path
    ours = ("my_layers", "my_numbers", "my_blocks", "nas_user_")
    for name in [name for name in sys.modules if name.startswith(ours)]:
        del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if not isinstance(entry, Added)]


def load(folder: Path) -> refs.Loaded:
    return refs.load(f"{folder}/my_space.py:Space", {}, "nas.none", "space")


def test_neighbours_are_imported_at_once_and_later(folder: Path) -> None:
    before = list(sys.path)
    loaded = load(folder)
    assert (loaded.object.width, loaded.object.late()) == (3, 4)
    assert sys.path == [*before, str(folder)]
    assert [path.relative_to(folder).as_posix() for path in files_of(folder / "my_space.py")] == [
        "my_blocks/__init__.py", "my_blocks/wide.py", "my_layers.py", "my_numbers.py",
    ]  # fmt: skip
    assert load(folder).object.__class__ is loaded.object.__class__


@pytest.mark.parametrize("changed", ["my_space.py", "my_layers.py", "my_numbers.py", "my_blocks/wide.py"])
def test_a_digest_is_that_of_all_that_is_imported(folder: Path, changed: str) -> None:
    before = digest_of(folder / "my_space.py")
    (folder / "unread.py").write_text("2 / 0\n")
    assert digest_of(folder / "my_space.py") == before
    (folder / changed).write_text((folder / changed).read_text() + "# changed\n")
    assert digest_of(folder / "my_space.py") != before


def test_one_name_is_one_module(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    load(folder)
    other = tmp_path_factory.mktemp("other")
    (other / "my_space.py").write_text("from my_layers import WIDTH\nclass Space:\n    pass\n")
    (other / "my_layers.py").write_text("WIDTH = 5\n")
    with pytest.raises(UsageError, match=r"imports 'my_layers' beside it, but that name is taken by '.*my_layers.py'"):
        load(other)


def test_what_is_installed_is_no_neighbour(folder: Path) -> None:
    (folder / "nas_core.py").write_text("1 / 0\n")
    (folder / "pydantic.py").write_text("1 / 0\n")
    (folder / "my_space.py").write_text("import pydantic\nfrom nas_core.choice import Choice\nclass Space:\n    pass\n")
    assert files_of(folder / "my_space.py") == []
    load(folder)
