"""Accuracy and latency on NAS-Bench-201: hypervolume of nsga2 and random search, percent of the true front's.

    python benchmarks/two_objectives.py --data ../shared/data [--seeds 30] [--trials 300]

Validation accuracy on CIFAR-10 (`nb201.csv.gz`) is maximised and the latency on a Raspberry Pi 4 minimised, which
`nb201_latency_ms.csv.gz` gives as a cost; the reference point is 85 % and 50 ms. Every study runs through the ordinary
loop, is stored and verified. `--trials` counts distinct rows of the table. The worst tenth is the 10th percentile.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy

from nas_core import moves
from nas_core.evaluation import Context
from nas_core.pareto import hypervolume
from nas_core.records import StopAt
from nas_core.strategy import Proposal, State
from studies.analysis.verify import verify
from studies.search.loop import Search
from studies.setup.assemble import StudyObjects, build, describe
from studies.setup.config import SearchConfig
from studies.store.store import Store

STRATEGIES = ("nsga2", "random")
OBJECTIVES = ("val_accuracy:max", "latency_ms.raspi4:min")
REFERENCE = (0.85, 50.0)


def problem(data: str, strategy: str, trials: int) -> SearchConfig:
    return SearchConfig(
        space="nasbench201", table=str(Path(data) / "nb201.csv.gz"), data="cifar10",
        costs=str(Path(data) / "nb201_latency_ms.csv.gz"), objectives=OBJECTIVES, strategy=strategy, trials=trials,
    )  # fmt: skip


def volume(parts: StudyObjects, values: Sequence[Sequence[float]]) -> float:
    """Hypervolume of oriented values above the reference point."""
    return hypervolume(values, [goal.orient(bound) for goal, bound in zip(parts.objectives, REFERENCE, strict=True)])


def whole(data: str) -> float:
    """The hypervolume of the whole table."""
    parts = build(describe(problem(data, "random", 1)).spec)
    names = [goal.metric for goal in parts.objectives]
    values = []
    for arch in moves.enumerate_all(parts.space):
        (report,) = parts.evaluator.evaluate(Proposal(arch), None, Context(0, Path()))
        metrics = {**report.metrics, **parts.evaluator.costs(arch, names)}
        values.append([goal.orient(metrics[goal.metric]) for goal in parts.objectives])
    return volume(parts, values)


def searches(job: tuple[str, str, int, range]) -> list[float]:
    """One study per seed; their hypervolumes."""
    data, strategy, trials, seeds = job
    spec = describe(problem(data, strategy, trials)).spec
    parts = build(spec)
    found = []
    with tempfile.TemporaryDirectory() as folder, Store(f"sqlite:///{folder}/nas.db") as store:
        for seed in seeds:
            seeded = replace(parts, setting=replace(parts.setting, seed=seed))
            stored = spec.model_copy(update={"seed": seed})
            study = store.create_study(f"{strategy}-{seed}", stored, StopAt(trials=trials))
            Search(store, study, seeded).run(study.stop_at)
            runs = [run for run in store.trials(study) if run.state == State.COMPLETE]
            assert len(runs) == trials
            found.append(volume(parts, [run.verdict.values for run in runs if run.verdict.values]))
            problems = list(verify(store, study, seeded))
            assert not problems, problems
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder with nb201.csv.gz and nb201_latency_ms.csv.gz")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    arguments = parser.parse_args()
    full = whole(arguments.data)
    print(f"{arguments.seeds} seeds, {arguments.trials} trials; hypervolume, percent of the table's true front")
    print(f"{'strategy':<9} {'median':>7} {'worst tenth':>12} {'worst':>7} {'best':>7}")
    chunk = math.ceil(arguments.seeds / arguments.processes)
    starts = range(0, arguments.seeds, chunk)
    seeds = [range(start, min(start + chunk, arguments.seeds)) for start in starts]
    for strategy in STRATEGIES:
        begun = time.perf_counter()
        with multiprocessing.Pool(arguments.processes) as pool:
            parts = pool.map(searches, [(arguments.data, strategy, arguments.trials, part) for part in seeds])
        share = 100 * numpy.concatenate(parts) / full
        print(
            f"{strategy:<9} {numpy.median(share):7.2f} {numpy.percentile(share, 10):12.2f} {share.min():7.2f} "
            f"{share.max():7.2f}   ({time.perf_counter() - begun:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
