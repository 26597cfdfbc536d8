"""What an executor costs per candidate, beyond its evaluation: the same search by processes and on Ray, in turn.

    python benchmarks/executors.py --out executors.csv [--address HOST:PORT] [--workers 4] [--trials 200] [--pairs 5]

Candidates sleep for `PAUSE` seconds each; what is more is the executor's, with that of store and strategy, which both
pay. The first quarter, in which workers start, does not count. A pair that the file has is not measured again.
Without an address Ray is started here, with workers that are as urgent as processes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path

from rows import Rows

from studies.events import Event, Finished
from studies.executors.where import Where
from studies.search.start import Watching, planned, run, start
from studies.setup.config import SearchConfig
from studies.store.store import Store

PAUSE = 0.1
FIELDS = ("executor", "workers", "trials", "pair", "milliseconds")
EVALUATOR = f"""
import time

from nas_core.config import Config
from nas_core.evaluation import Metric, Report
from nas_core.task import Task


class Sleep:
    class Settings(Config):
        pass

    metrics, fidelity, deterministic, in_process = (Metric("score"),), None, True, True
    task = Task(kind="image-classification", input_shape=(1, 8, 8), outputs=10)

    @classmethod
    def open(cls, settings, problem):
        return cls(), "none"

    def identity(self, arch):
        return None

    def costs(self, arch, names):
        return {{}}

    def evaluate(self, proposal, budget, context):
        time.sleep({PAUSE})
        yield Report(1, {{"score": context.seed % 1000 / 1000}})
"""


class Clock(Watching):
    """When each candidate has ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def search(self, *_: object) -> contextlib.AbstractContextManager[Clock]:
        return contextlib.nullcontext(self)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Finished):
            self.ends.append(time.monotonic())


def milliseconds(executor: str, workers: int, trials: int) -> float:
    """Per candidate, beyond what it sleeps."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, Store(f"sqlite:///{folder}/nas.db") as store:
        options = {"evaluator": "sleeps.py:Sleep", "strategy": "random", "trials": trials, "lag": 4 * workers}
        run(store, start(store, planned(SearchConfig(**options))), where=Where(workers, executor), watching=clock)
    warm = len(clock.ends) // 4  # all workers have begun by then
    seconds = (clock.ends[-1] - clock.ends[warm]) / (len(clock.ends) - 1 - warm)
    return 1_000 * (seconds * workers - PAUSE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--address", default="")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    rows = Rows(arguments.out.absolute(), FIELDS, named=4)
    away = f"ray:{arguments.address or 'local'}"
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("sleeps.py").write_text(EVALUATOR)
        for pair in range(arguments.pairs):
            for executor, asked in (("processes", "processes"), ("ray", away)):
                named = (executor, arguments.workers, arguments.trials, pair)
                if rows.get(*named) is None:
                    cost = round(milliseconds(asked, arguments.workers, arguments.trials), 2)
                    print(rows.write(dict(zip(FIELDS, (*named, cost), strict=True))), flush=True)
    for executor in ("processes", "ray"):
        found = [float(row["milliseconds"]) for row in rows if row["executor"] == executor]
        print(f"{executor}: {statistics.median(found):.1f} ms per candidate beyond its evaluation, of {len(found)}")


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    main()
