"""What the crash tests search: a toy space of 24 architectures and a made table of them; and what two searches must
have in common."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import replace
from itertools import product
from pathlib import Path

from studies.store.store import Store

# Measured durations and what counts attempts; everything else must be equal, bit for bit.
LEFT_OUT = {
    "runs": {"attempt", "started", "ended", "environment", "tries"},
    "studies": {"created"},
    "benches": {"created"},
    "environments": None,
    "artifacts": {"created"},
    "snapshots": None,  # one is taken when telling has taken long
    "epochs": {"seconds"},
}

TOY = """
from nas_core.choice import Choice
from nas_core.space import SearchSpace


class Toy(SearchSpace):
    name = "toy"
    tasks = frozenset({"image-classification"})
    choices = (Choice("depth", (1, 2, 3, 4)), Choice("act", ("relu", "silu")), Choice("width", (8, 16, 32)))


space = Toy()
"""

MAPPING = """
space: toy
row: {choices: {depth: depth, act: act, width: width}}
data:
  pics:
    task: {kind: image-classification, input_shape: [3, 8, 8], outputs: 10}
    metrics: {val_accuracy: {column: acc, scale: 0.01}}
"""

SEARCH = [
    *("search", "--space", "toy.py:space", "--table", "toy.csv", "--data", "pics", "--lag", "2", "--seed", "3"),
    *("--strategy", "regularized-evolution", "-s", "strategy.population=4", "-s", "strategy.sample=2"),
]


def write_toy(folder: Path) -> Path:
    """The space, the table and its mapping in a new folder."""
    folder.mkdir(parents=True)
    (folder / "toy.py").write_text(TOY)
    (folder / "toy.yaml").write_text(MAPPING)
    lines = [
        f"{depth},{act},{width},{60 + depth + random.Random(f'{depth}{act}{width}').random():.3f}"
        for depth, act, width in product((1, 2, 3, 4), ("relu", "silu"), (8, 16, 32))
    ]
    (folder / "toy.csv").write_text("\n".join(["depth,act,width,acc", *lines]) + "\n")
    return folder


def stored(store: Store) -> dict[str, list[object]]:
    """The same of a database behind a store, by study. A server counts ids on, whatever is rolled back."""
    studies = [store.study(name) for name in store.study_names()]
    return {
        study.name: [
            (
                study.spec,
                study.stop_at,
                replace(run, id=0, attempt=0, tries=0, started=None, ended=None),
                store.curve(run),
            )
            for run in store.trials(study, metrics=True)
        ]
        for study in studies
    }


def contents(database: Path, durations: bool) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, without what may differ."""
    found = {}
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
            left_out = LEFT_OUT.get(name, set())
            if left_out is None or name == "sqlite_sequence":
                continue
            kept = [c for c in columns if c not in left_out and (durations or (name, c) != ("runs", "seconds"))]
            # What a bench measures are durations too; that it has measured them is not.
            shown = [f"{c} IS NULL" if not durations and c == "measured" else f'"{c}"' for c in kept]
            selected = ", ".join(shown)
            found[name] = connection.execute(f"SELECT {selected} FROM {name} ORDER BY {selected}").fetchall()
    connection.close()
    return found
