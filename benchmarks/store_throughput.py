"""Committed trials per second: our store and tabular loop beside Optuna's RDB storage.

    python benchmarks/store_throughput.py [--trials 3000] [--optuna-trials 300]

Every trial is one proposal with 6 or 60 choices, committed, and one result with four metrics, committed.
Optuna runs with its default SQLite settings and, for comparison, with WAL; random sampling on both sides.
The rows are measured in turns (ours, Optuna's, ours, ...) and the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import sqlalchemy

from nas_core import moves
from nas_core.choice import Choice
from nas_core.evaluation import Report
from nas_core.records import StopAt, Verdict
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal, State
from nas_core.task import Task
from studies.records import StudySpec
from studies.store.store import Store

OPTIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


class Flat(SearchSpace):
    """Independent choices of five options."""

    name = "flat"
    tasks = frozenset()

    def __init__(self, count: int) -> None:
        self.choices = tuple(Choice(f"edge{n}", OPTIONS) for n in range(count))


def ours(folder: Path, choices: int, trials: int) -> float:
    """Trials per second of `propose` and `finish`, as the loop calls them."""
    space = Flat(choices)
    archs = [moves.sample(space, generator(n, "sample")) for n in range(trials)]
    spec = StudySpec(
        space="flat", space_name="flat", space_version=1, space_hash=None, size={}, strategy="random",
        strategy_config={}, evaluator={"kind": "value"},
        task=Task(kind="none", input_shape=(1,), outputs=1), split_hash="",
        objectives=("value",), constraints=(), seed=0, lag=1,
    )  # fmt: skip
    with Store(f"sqlite:///{folder / f'ours{choices}-{time.monotonic_ns()}.db'}") as store:
        study = store.create_study("s", spec, StopAt(trials=trials))
        told = None
        begun = time.perf_counter()
        for number, arch in enumerate(archs):
            run = store.propose(
                study, number, Proposal(arch), arch.key, Verdict(State.RUNNING), asked_after=number, told=told
            )
            metrics = {"val_accuracy": 0.5, "test_accuracy": 0.5, "params": 1e6, "macs": 1e8}
            store.finish(run, Verdict(State.COMPLETE, None, (0.5,), (), 1.0), Report(200, metrics))
            told = (run, number)
        return trials / (time.perf_counter() - begun)


def optunas(folder: Path, choices: int, trials: int, wal: bool) -> float:
    """Trials per second of an Optuna study on its RDB storage."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / f'optuna{choices}-{time.monotonic_ns()}.db'}")
    if wal:
        with storage.engine.connect() as connection:
            connection.execute(sqlalchemy.text("PRAGMA journal_mode = WAL"))
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        for n in range(choices):
            trial.suggest_categorical(f"edge{n}", OPTIONS)
        return 0.5

    begun = time.perf_counter()
    study.optimize(objective, n_trials=trials)
    return trials / (time.perf_counter() - begun)


def loop(folder: Path, trials: int) -> float:
    """Trials per second of the whole tabular loop: random search on a table of NAS-Bench-201 cells."""
    from search_spaces.nasbench201.space import NasBench201
    from studies.search.loop import Search
    from studies.setup.assemble import describe
    from studies.setup.config import SearchConfig
    from training.reading import Silent, reading

    table, mapping = folder / "cells.csv", folder / "cells.yaml"
    if not table.exists():
        space = NasBench201()
        rows = (f"{space.to_text(arch)},{n % 97},{n % 89}" for n, arch in enumerate(moves.enumerate_all(space)))
        table.write_text("arch,valid,test\n" + "\n".join(rows) + "\n")
        mapping.write_text(
            "files: [cells.csv]\nspace: nasbench201\nmatch: architecture\nrow: {text: arch}\ndata:\n  made:\n"
            "    task: {kind: image-classification, input_shape: [3, 32, 32], outputs: 10}\n"
            "    metrics: {val_accuracy: {column: valid}, test_accuracy: {column: test}}\n"
        )
    config = SearchConfig(strategy="random", table=str(table), mapping=str(mapping), data="made")
    with reading(Silent()):  # as a command does: what is needed twice is read once
        described = describe(config)
    with Store(f"sqlite:///{folder / f'loop-{time.monotonic_ns()}.db'}") as store:
        study = store.create_study("s", described.spec, StopAt(trials=trials))
        search = Search(store, study, described.objects)
        search.run(StopAt(trials=100))  # lists the space
        begun = time.perf_counter()
        search.run(StopAt(trials=trials))
        return (trials - 100) / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--optuna-trials", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for choices in (6, 60):
            fewer = max(20, arguments.optuna_trials * 6 // choices)
            rows: dict[str, Callable[[], float]] = {
                "ours": lambda c=choices: ours(folder, c, arguments.trials),
                "optuna": lambda c=choices, n=fewer: optunas(folder, c, n, wal=False),
                "optuna, WAL": lambda c=choices, n=fewer: optunas(folder, c, n, wal=True),
            }
            measured: dict[str, list[float]] = {row: [] for row in rows}
            for _ in range(arguments.rounds):
                for row, measure in rows.items():
                    measured[row].append(measure())
            median = {row: statistics.median(values) for row, values in measured.items()}
            print(f"{choices} choices, committed trials per second (median of {arguments.rounds}):")
            for row, values in measured.items():
                ratio = "" if row == "ours" else f"   ours / this: {median['ours'] / median[row]:.0f}"
                print(f"  {row:<12} {median[row]:9.1f}   ({min(values):.1f} to {max(values):.1f}){ratio}")
        speeds = [loop(folder, arguments.trials) for _ in range(arguments.rounds)]
        print(f"whole tabular loop, random search: {statistics.median(speeds):.0f} trials per second")


if __name__ == "__main__":
    main()
