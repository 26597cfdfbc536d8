"""What the crash tests search: a toy space of 24 architectures and a made table of them; and what two searches must
have in common."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import replace
from itertools import product
from pathlib import Path

from safetensors import safe_open

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


PACED = """
import hashlib, time

from nas_core.config import Config
from nas_core.evaluation import Fidelity, Metric, Report
from nas_core.task import Task


class Paced:
    \"\"\"Four steps that take as long as they are told to, and a score out of the candidate's key and seed.\"\"\"

    class Settings(Config):
        pause: float = 0.01

    metrics = (Metric("score"),)
    fidelity = Fidelity("epoch", 1, 4)
    deterministic = in_process = True
    task = Task(kind="image-classification", input_shape=(3, 8, 8), outputs=10)

    @classmethod
    def open(cls, settings, problem):
        return cls(settings), ""

    def __init__(self, settings):
        self.settings = settings

    def identity(self, arch):
        return None

    def costs(self, arch, names):
        return {}

    def evaluate(self, proposal, budget, context):
        for step in range(1, 5):
            time.sleep(self.settings.pause)
            digest = hashlib.sha256(f"{proposal.arch.key} {context.seed} {step}".encode()).hexdigest()
            yield Report(step, {"score": int(digest[:8], 16) / 2**32})
"""

# Trained by nobody: a search whose pace is a setting, for what happens while one runs.
PACED_SEARCH = [
    *("search", "--study", "s", "--space", "toy.py:space", "--evaluator", "paced.py:Paced", "--seed", "3"),
    *("--strategy", "regularized-evolution", "-s", "strategy.population=4", "-s", "strategy.sample=2"),
]


TOY_BENCH = [
    *("bench", "strategies", "--space", "toy.py:space", "--table", "toy.csv", "--data", "pics", "--name", "b"),
    *("--strategies", "random,local-search"),
]


def write_toy(folder: Path) -> Path:
    """The space, the table and its mapping, and the evaluator in a new folder."""
    folder.mkdir(parents=True)
    (folder / "toy.py").write_text(TOY)
    (folder / "paced.py").write_text(PACED)
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


def tries(database: Path) -> list[int]:
    """Per run the attempts that ended without a word since its last report."""
    with sqlite3.connect(database) as connection:
        found = [int(row[0]) for row in connection.execute("SELECT tries FROM runs")]
    connection.close()
    return found


def kept(path: Path) -> object:
    """What a file that a run has left says, without durations: of a network that a compression has written its tensors
    and changes, since the report beside them has seconds; of any other its bytes."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 - no mapping
        return tensors, (file.metadata() or {}).get("changes")


def contents(database: Path, durations: bool, hashes: bool = True) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, without what may differ; hashes of files may where files hold durations, and where a
    run has several a kill between two of them has the first recorded again, by another id."""
    found = {}
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
            left_out = LEFT_OUT.get(name, set()) if hashes or name != "artifacts" else {"id", "created", "sha256"}
            if left_out is None or name == "sqlite_sequence":
                continue
            kept = [c for c in columns if c not in left_out and (durations or (name, c) != ("runs", "seconds"))]
            # What a bench measures are durations too; that it has measured them is not.
            shown = [f"{c} IS NULL" if not durations and c == "measured" else f'"{c}"' for c in kept]
            selected = ", ".join(shown)
            found[name] = connection.execute(f"SELECT {selected} FROM {name} ORDER BY {selected}").fetchall()
    connection.close()
    return found
