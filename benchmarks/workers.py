"""How many candidates two worker processes train in the time that one needs, on the same study.

    python benchmarks/workers.py [--workers 2] [--trials 24] [--pairs 3]

Both searches have the same lag and the same threads per training, so they train the same candidates; they are run
one after the other, in turn, and the ratio of each pair is printed. The time of a search is that of its loop, with
the start of the workers. It needs a machine with as many free cores as there are workers.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from nas_core.records import StopAt
from studies.executors.choose import candidates, executor
from studies.executors.where import Where
from studies.search.loop import Search
from studies.setup import assemble
from studies.setup.config import SearchConfig
from studies.store.store import Store


def seconds(folder: Path, name: str, workers: int, arguments: argparse.Namespace) -> tuple[float, list[object]]:
    """The duration of a search, and what it stored of its trials."""
    config = SearchConfig(
        space="nasbench201",
        size="channels=8,cells=1",
        strategy="random",
        data="digits",
        epochs=arguments.epochs,
        threads=1,
        device="cpu",
        lag=4 * arguments.workers,
        seed=1,
    )
    spec = assemble.describe(config).spec
    with Store(f"sqlite:///{folder / name}.db") as store:
        study = store.create_study("s", spec, StopAt(trials=arguments.trials))
        parts = assemble.build(spec)
        search = Search(store, study, parts, executor=executor(candidates(store, study, parts), Where(workers)))
        begun = time.perf_counter()
        search.run(StopAt(trials=arguments.trials))
        took = time.perf_counter() - begun
        return took, [(run.arch.key, run.verdict.values) for run in store.trials(study)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    ratios = []
    for pair in range(arguments.pairs):
        with tempfile.TemporaryDirectory() as folder:
            one, alone = seconds(Path(folder), "one", 1, arguments)
            many, together = seconds(Path(folder), "many", arguments.workers, arguments)
        assert alone == together, "the studies differ"
        ratios.append(one / many)
        print(
            f"pair {pair + 1}: 1 worker {one:.1f} s, {arguments.workers} workers {many:.1f} s, ratio {ratios[-1]:.2f}"
        )
    print(f"median ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
