"""Transfer: what `diffusion` generates first on CIFAR-100 after it has learned from labels of CIFAR-10.

    python benchmarks/diffusion_transfer.py --data ../shared/data [--seeds 30] [--labels 200] [--queries 10]

NAS-Bench-201. Per seed `--labels` cells have their recorded CIFAR-10 validation accuracy: drawn at random, or those
that a search of `diffusion` evaluates there. They are the other study of a search on CIFAR-100 (`Setting.warm_start`),
whose first `--queries` proposals are all generated, and told one by one. Beside them are what the source alone gives,
the cells that were best on CIFAR-10, and a search from scratch by regularised evolution. The best CIFAR-100 validation
accuracy of each in percent: mean, standard deviation over the seeds."""

from __future__ import annotations

import argparse
import csv
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.evaluation import Objective
from nas_core.seeds import generator
from nas_core.strategy import Outcome, Setting, State
from search_spaces.nasbench201.space import NasBench201
from strategies.diffusion.masked import Diffusion
from strategies.evolution.regularized import RegularizedEvolution

SPACE = NasBench201()
Labels = Sequence[tuple[Architecture, float]]


def search(kind: Any, table: Mapping[str, float], seed: int, queries: int, prior: Labels = ()) -> Labels:
    """The first different cells that a strategy evaluates, in their order."""
    setting = Setting(SPACE, seed, (Objective("accuracy", "max"),), (), SPACE.to_text, warm_start=tuple(prior))
    strategy = kind(setting, kind.Config())
    found: dict[Architecture, float] = {}
    number = 0
    while len(found) < queries:
        proposal = strategy.ask(number, ())
        value = table[SPACE.to_text(proposal.arch)]
        found.setdefault(proposal.arch, value)
        strategy.tell(Outcome(number, proposal, State.COMPLETE, (value,)))
        number += 1
    return list(found.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with nb201.csv.gz")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--labels", type=int, default=200)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--evolution", type=int, default=100, help="evaluations of the search from scratch")
    arguments = parser.parse_args()
    with gzip.open(arguments.data / "nb201.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    source, target = ({row["arch"]: float(row[column]) for row in rows} for column in ("c10_valid", "c100_valid"))
    best: dict[str, list[float]] = {}
    for seed in range(arguments.seeds):
        rng = generator(seed, "labels")
        random = [moves.sample(SPACE, rng) for _ in range(arguments.labels)]
        for name, labels in {
            "random": [(arch, source[SPACE.to_text(arch)]) for arch in random],
            "searched": search(Diffusion, source, seed, arguments.labels),
        }.items():
            drawn = search(Diffusion, target, seed, arguments.queries, labels)
            best.setdefault(f"diffusion, {name} labels", []).append(max(value for _, value in drawn))
            known = sorted(labels, key=lambda one: -one[1])[: arguments.queries]
            best.setdefault(f"best of the {name} labels", []).append(
                max(target[SPACE.to_text(arch)] for arch, _ in known)
            )
        alone = search(RegularizedEvolution, target, seed, arguments.evolution)
        best.setdefault(f"evolution from scratch, {arguments.evolution}", []).append(max(v for _, v in alone))
        print(seed, {name: round(values[-1], 2) for name, values in best.items()}, flush=True)
    for name, values in best.items():
        print(f"{name:<36}{numpy.mean(values):>8.2f} ± {numpy.std(values, ddof=1):.2f}")


if __name__ == "__main__":
    main()
