"""What an executor costs per candidate, beyond its evaluation: the same search by processes and on Ray, in turn.

    python benchmarks/executors.py --out executors.csv [--address HOST:PORT] [--workers 4] [--trials 200] [--pairs 5]

Candidates sleep for `PAUSE` seconds each; what is more is the executor's, with that of store and strategy, which both
pay: `milliseconds` is that, times the workers, as each of them waits for it. `driver` are milliseconds of CPU of the
driver per candidate, which say something on a busy machine too. The first quarter, in which workers start, does not
count. A pair that the file has is not measured again. Without an address Ray is started here, with room for all
workers, which are as urgent as processes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from rows import Rows

from nas_core.errors import Notice
from studies.events import Event, Finished
from studies.executors.where import Where
from studies.search.start import Watching, planned, run, start
from studies.setup.config import SearchConfig
from studies.store.store import Store

PAUSE = 0.1
FIELDS = ("executor", "workers", "trials", "pair", "milliseconds", "driver")
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
    """When each candidate has ended, and what CPU the driver had taken by then, in seconds."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.cpu: list[float] = []

    def search(self, *_: object) -> contextlib.AbstractContextManager[Clock]:
        return contextlib.nullcontext(self)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Finished):
            self.ends.append(time.monotonic())
            self.cpu.append(time.process_time())


def measured(executor: str, workers: int, trials: int) -> tuple[float, float]:
    """Milliseconds per candidate: beyond what it sleeps, and of the driver's CPU."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, Store(f"sqlite:///{folder}/nas.db") as store:
        options = {"evaluator": "sleeps.py:Sleep", "strategy": "random", "trials": trials, "lag": 4 * workers}
        run(store, start(store, planned(SearchConfig(**options))), where=Where(workers, executor), watching=clock)
    warm = len(clock.ends) // 4  # all workers have begun by then
    count = len(clock.ends) - 1 - warm
    seconds, cpu = (times[-1] - times[warm] for times in (clock.ends, clock.cpu))
    return 1_000 * (seconds / count * workers - PAUSE), 1_000 * cpu / count


@contextlib.contextmanager
def cluster(address: str, workers: int) -> Iterator[str]:
    """The executor on Ray: on the cluster of an address, or on one that ends with this."""
    if address:
        yield f"ray:{address}"
        return
    import ray

    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=workers, **quiet)
    try:
        yield "ray"
    finally:
        ray.shutdown()


def report(rows: Rows, workers: int, trials: int) -> None:
    """Medians, and Ray beside processes, pair by pair."""
    found = {
        executor: [
            row
            for row in rows
            if (row["executor"], row["workers"], row["trials"]) == (executor, str(workers), str(trials))
        ]
        for executor in ("processes", "ray")
    }
    for executor, ones in found.items():
        more, driver = (statistics.median(float(row[name]) for row in ones) for name in FIELDS[-2:])
        print(f"{executor}: {more:.1f} ms per candidate beyond its evaluation, {driver:.1f} ms of the driver's CPU")
    whole = [[1_000 * PAUSE + float(row["milliseconds"]) for row in ones] for ones in found.values()]
    ratios = sorted(two / one for one, two in zip(*whole, strict=True))
    print(
        f"ray / processes, candidates of {1_000 * PAUSE:g} ms at {workers} workers: {statistics.median(ratios):.3f} "
        f"({ratios[0]:.3f} to {ratios[-1]:.3f}, {len(ratios)} pairs)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--address", default="")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    rows = Rows(arguments.out.absolute(), FIELDS, named=4)
    workers, trials = arguments.workers, arguments.trials
    warnings.simplefilter("error", Notice)  # that a cluster has too little room for the workers
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        away = stack.enter_context(cluster(arguments.address, workers))
        stack.enter_context(contextlib.chdir(folder))
        Path("sleeps.py").write_text(EVALUATOR)
        for pair in range(arguments.pairs):
            for executor, asked in (("processes", "processes"), ("ray", away)):
                named = (executor, workers, trials, pair)
                if rows.get(*named) is None:
                    costs = (round(cost, 2) for cost in measured(asked, workers, trials))
                    print(rows.write(dict(zip(FIELDS, (*named, *costs), strict=True))), flush=True)
    report(rows, workers, trials)


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    main()
