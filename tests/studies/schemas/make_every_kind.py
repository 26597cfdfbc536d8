"""Made `0005-every-kind.tar.gz`: a database with a study of every kind, and the files beside it, of schema 0005.

It is run once, by the version whose studies are to be kept: `python -m tests.studies.schemas.make_every_kind ARCHIVE`.
Later versions cannot make the archive again; tests read it, and `STUDIES` says what is in it.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import shlex
import signal
import sqlite3
import sys
import tarfile
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from nas_cli.app import run

DUMP = "nas.sql"  # in the archive
FOLDER = "/FOLDER"  # stands there for the folder in which the archive is unpacked

TOY = '''"""A space of 30 architectures, where one cannot be built and some are the same function."""

from torch import nn

from nas_core.choice import Choice, When
from nas_core.space import SearchSpace


class Toy(SearchSpace):
    name = "toy"
    tasks = frozenset({"image-classification"})
    choices = (
        Choice("depth", (1, 2, 3), ordered=True),
        Choice("act", ("relu", "tanh", "cube"), kind="operation"),
        Choice("width", (2, 4), ordered=True),
        Choice("skip", (False, True), when=(When("depth", (2, 3)),)),
    )

    def identity(self, arch):
        values = dict(arch.values)
        if values["depth"] == 2:
            del values["skip"]
        return " ".join(str(value) for value in values.values())

    def build(self, arch, task, size):
        width, act = arch.values["width"], {"relu": nn.ReLU, "tanh": nn.Tanh, "cube": nn.Identity}[arch.values["act"]]
        if (arch.values["act"], arch.values["depth"]) == ("cube", 3):
            raise ValueError("too deep for a cube")
        layers = [nn.Conv2d(task.input_shape[0], width, 3, stride=2), act()]
        for _ in range(arch.values["depth"] - 1):
            layers += [nn.Conv2d(width, width, 3, padding=1), act()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, task.outputs))


space = Toy()
'''

MINE = '''"""A metric and a loss."""

from torch.nn import functional


def recall(outputs, targets):
    rights = [(outputs.argmax(1)[targets == one] == one).float().mean() for one in targets.unique()]
    return float(sum(rights) / len(rights))


def twice(outputs, targets):
    return 2 * functional.cross_entropy(outputs, targets)
'''

MAPPING = """
files: [toy.csv]
space: toy
row: {choices: {depth: depth, act: act, width: width, skip: skip}}
data:
  pics:
    task: {kind: image-classification, input_shape: [1, 8, 8], outputs: 10}
    metrics: {val_accuracy: {columns: {1: first, 3: third, 9: ninth}, scale: 0.01}}
    costs: {params: {column: params}}
    seconds: {column: seconds}
"""

BESIDE = """
files: [beside.csv]
space: toy
row: {choices: {depth: depth, act: act, width: width, skip: skip}}
costs: {latency_ms: {column: latency, unit: ms}}
scores: {pics: {synflow: {column: synflow}}}
"""

TABLE = "--space toy.py:space --table toy.csv --data pics --seed 3"
TINY = "--size channels=2,cells=1 --threads 1 --device cpu -s split.limit=120 --seed 3"
PICTURES = "--space toy.py:space --data digits --threads 1 --device cpu -s split.limit=120 --seed 3"
GENERATOR = "-s strategy.generator.layers=1 -s strategy.generator.width=8 -s strategy.generator.heads=1 " + (
    "-s strategy.generator.hidden=8 -s strategy.generator.steps=60 -s strategy.generator.samples=200 "
    "-s strategy.guide.members=2 -s strategy.guide.hidden=8 -s strategy.guide.steps=10 -s strategy.pool=20 "
    "-s strategy.mutants=5 -s strategy.initial=6"
)

# The command that made each study, without its name.
STUDIES = {
    # on a table
    "plain": f"search {TABLE} --strategy regularized-evolution -s strategy.population=3 -s strategy.sample=2 -n 8",
    "snapshots": f"search {TABLE} --strategy reinforce -s strategy.units=4 --lag 2 -n 8",
    "front": f"search {TABLE} --strategy nsga2 -s strategy.population=4 --objective val_accuracy "
    "--objective params:min --constraint params<=600 -n 10",
    "bracket": f"search {TABLE} --strategy hyperband -s strategy.eta=3 -n 12",
    "neighbours": f"search {TABLE} --strategy local-search -n 8",
    "recorded": f"search {TABLE} --strategy proxy-filter -s strategy.predictor=synflow -s strategy.inner=random "
    "--costs beside.csv --scores beside.csv --constraint latency_ms<=30 -n 6",
    "free": f"search {TABLE} --strategy random --lag 3 --order free --epochs 3 --spend 4",
    "warm": f"search {TABLE} --strategy bananas -s strategy.surrogate=ridge -s strategy.initial=4 "
    "--warm-start plain -n 7",
    "generator": f"search {TABLE} --strategy diffusion -s strategy.surrogate=ridge {GENERATOR} -n 12",
    # trained
    "trained": f"search {TINY} --strategy regularized-evolution -s strategy.population=2 -s strategy.sample=1 "
    "--epochs 2 -n 3",
    "limited": f"search {TINY} --strategy random --epochs 1 --final-size channels=3,cells=1 "
    "--constraint params<=4900 --trial-time 600 -n 2",
    "scored": f"search {TINY} --strategy random --warm-up params:6 -s score_batch=16 --epochs 1 -n 3",
    "pruned": f"search {PICTURES} --strategy random --epochs 3 --objective val_loss:min --pruner median "
    "-s pruner.startup_trials=1 -n 6",
    "own": f"search own.yaml {PICTURES} --strategy random --epochs 2 -n 6",
    "continued": f"search {PICTURES} --strategy successive-halving -s strategy.eta=2 -s strategy.configurations=4 "
    "--epochs 4 -n 6",
    "graph": "search --space nasbench_graph --data karate --size hidden=4 --threads 1 --device cpu --seed 3 "
    "--strategy random --epochs 2 -n 2",
    "stopped": f"search {PICTURES} --strategy random --epochs 8 -s checkpoint_seconds=0 -n 3",
    # supernets
    "shared": f"search {TINY} --size channels=1,cells=1 --strategy spos -s strategy.epochs=1 --epochs 1 "
    "--then random -n 2",
    "on-shared": "search --evaluator supernet:shared --size channels=1,cells=1 --seed 4 --strategy random -n 2",
    "derived": f"search {TINY} --size channels=1,cells=1 --strategy darts -s strategy.epochs=2 --epochs 1 "
    "--final-size channels=2,cells=1",
}

OWN = "metrics: [mine.py:recall]\nobjectives: [val_recall]\nrecipe: {name: quick, loss: mine.py:twice, keep: best}\n"

# What followed, in this order.
AFTER = [
    "train trained:0 --recipe quick --epochs 1 --seeds 2",
    "train trained:0 --recipe quick --epochs 1 --weights trained:0/train-1 -s lr=0.01",
    "train own --epochs 1",
    "train plain --data digits --recipe quick --epochs 1",
    "train graph --recipe quick --epochs 1",
    "score --size channels=2,cells=1 --sample 3 --proxies naswot,params --batch 16 --threads 1",
    "score --of trained --proxies naswot --batch 16 --threads 1",
    "generate generator --n 4 --model ridge",
    f"bench strategies {TABLE.removesuffix(' --seed 3')} --strategies random,local-search --queries 5 --seeds 2 "
    "--name ranking --jobs 1",
    "export trained:0 --format safetensors,json,python --out export",
    "extract shared-random --to extracted",
]


def write_sources(folder: Path) -> None:
    """The space, the metric, and the table, which is made up."""
    sources = {"toy.py": TOY, "mine.py": MINE, "toy.yaml": MAPPING, "beside.yaml": BESIDE, "own.yaml": OWN}
    for name, text in sources.items():
        (folder / name).write_text(text)
    lines = ["depth,act,width,skip,first,third,ninth,params,seconds"]
    beside = ["depth,act,width,skip,latency,synflow"]
    for depth, act, width, skip in product((1, 2, 3), ("relu", "tanh", "cube"), (2, 4), (False, True)):
        if depth > 1 or not skip:
            draw = random.Random(f"{depth}{act}{width}{skip and depth == 3}")
            last = 50 + 5 * depth + width + 20 * draw.random()
            params = width * 10 + depth * width * width * 9 + 10 * width
            found = [f"{last * share + draw.random():.3f}" for share in (0.6, 0.8, 1)]
            arch = f"{depth},{act},{width},{skip if depth > 1 else ''}"
            lines.append(f"{arch},{','.join(found)},{params},9")
            beside.append(f"{arch},{10 * depth * width * draw.random():.3f},{draw.random():.3f}")
    (folder / "toy.csv").write_text("\n".join(lines) + "\n")
    (folder / "beside.csv").write_text("\n".join(beside) + "\n")


def make(folder: Path) -> None:
    """Every study, in the working folder."""
    from studies.search import loop as blackbox

    write_sources(folder)
    seconds = blackbox.SNAPSHOT_SECONDS
    for name, command in STUDIES.items():
        blackbox.SNAPSHOT_SECONDS = 0.0 if name == "snapshots" else seconds
        say(f"{command} --study {name}", stop_after=3 if name == "stopped" else None)
    for command in AFTER:
        say(command)


def say(command: str, stop_after: int | None = None) -> None:
    """Run a command of nas; Ctrl-C is pressed after so many reports."""
    from studies.store.store import Store

    print(f"+ nas {command}", file=sys.stderr)
    report, left = Store.report, stop_after

    def counted(*arguments: Any, **options: Any) -> None:
        nonlocal left
        report(*arguments, **options)
        if left is not None and (left := left - 1) == 0:
            os.kill(os.getpid(), signal.SIGINT)

    Store.report = counted  # type: ignore[method-assign]
    try:
        code = run(shlex.split(command))
    finally:
        Store.report = report  # type: ignore[method-assign]
    if code != (0 if stop_after is None else 130):
        raise SystemExit(f"nas {command} ended with {code}")


def dump(folder: Path) -> str:
    """The database as SQL, without what says on which machine it was made."""
    with sqlite3.connect(folder / "nas.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for key, text in connection.execute("SELECT id, json FROM environments").fetchall():
            facts = json.loads(text) | {"system": f"Linux {key}", "processor": "a processor", "cores": 2}
            connection.execute("UPDATE environments SET json = ? WHERE id = ?", (json.dumps(facts), key))
        lines = "\n".join(connection.iterdump())
    connection.close()
    return lines.replace(str(folder), FOLDER) + "\n"


def archive(folder: Path, target: Path) -> None:
    """The dump and the files; those of the database itself, locks and caches of Python are left out."""
    left_out = re.compile(r"nas\.db.*|.*\.lock|(.*/)?lock|(.*/)?__pycache__/.*")
    contents = {DUMP: dump(folder).encode()}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not left_out.fullmatch(name):
            contents[name] = path.read_bytes()
    with tarfile.open(target, "w:gz", compresslevel=9) as packed:
        for name, content in contents.items():
            if str(folder).encode() in content or os.uname().nodename.encode() in content:
                raise SystemExit(f"{name} names the folder or the machine")
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
            print(f"{len(content):9,} {name}", file=sys.stderr)
    print(f"{target.stat().st_size:9,} {target}", file=sys.stderr)


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="every-kind-") as place:
        os.chdir(place)
        make(Path(place))
        archive(Path(place), target)
