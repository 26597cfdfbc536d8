"""Completion of values in the shell: what is offered, how quickly, and that nothing is ever said instead."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from nas_cli import complete, sheets
from nas_core.strategy import State


def offered(line: str, **environment: str) -> list[str]:
    """What bash is told for a line whose last word is being typed."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-m", "nas_cli"],
        env={
            **os.environ,
            **environment,
            "_NAS_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.fixture
def database(folder: Path) -> Path:
    with sqlite3.connect(folder / "nas.db") as connection:
        connection.execute("CREATE TABLE studies (id INTEGER, name TEXT, bench INTEGER, supernet TEXT)")
        connection.execute("CREATE TABLE benches (id INTEGER, name TEXT)")
        rows = [(1, "first", None, None), (2, "second", None, "{}"), (3, "b/random/0", 1, None)]
        connection.executemany("INSERT INTO studies VALUES (?, ?, ?, ?)", rows)
        connection.execute("INSERT INTO benches VALUES (1, 'b')")
    return folder / "nas.db"


def test_values_are_offered(database: Path) -> None:
    (database.parent / "my_space.py").touch()
    assert offered("nas show ") == ["second", "first"]
    assert offered("nas resume f") == ["first"]
    assert offered("nas bench show ") == ["b"]
    assert offered("nas search --evaluator ") == ["train", "table", "told", "supernet:second"]
    assert offered("nas search --strategy re") == ["regularized-evolution", "reinforce"]
    assert {"darts", "nasbench201", "my_space.py:"} <= set(offered("nas search --space "))


def test_nothing_is_said_where_nothing_is_known(database: Path) -> None:
    database.write_bytes(b"no database at all" * 100)
    assert offered("nas show ") == []
    assert offered("nas show ", NAS_DB="postgresql://nobody:secret@127.0.0.1:1/none") == []
    assert offered("nas show --db /none/at/all.db ") == []
    assert offered("nas trials --wrong ") == []


def test_the_names_written_down_exist() -> None:
    from strategies.multi_fidelity import early_stopping
    from studies.setup.config import SearchConfig
    from training.data import SCHEMES
    from training.export.formats import EVERY
    from training.tasks import all_kinds

    assert set(complete.DATA) <= {scheme.name + ":" * bool(scheme.argument) for scheme in SCHEMES}
    assert set(complete.RECIPES) <= {name for kind in all_kinds() for name in kind.recipes}
    assert set(complete.PRUNERS) <= set(early_stopping.BUILTIN)
    assert set(complete.STATES) == set(State)
    assert set(complete.FORMATS) <= set(EVERY)
    assert complete.SHEETS == sheets.FORMATS
    assert SearchConfig.model_fields["order"].annotation.__args__ == complete.ORDERS  # type: ignore[union-attr]


def test_completion_imports_nothing_heavy() -> None:
    script = "import sys, nas_cli.complete as c; c.spaces(None, ''), c.strategies(None, ''), c.studies(None, ''); "
    script += "print(*{'numpy', 'torch', 'pydantic', 'sqlalchemy', 'rich.console'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
