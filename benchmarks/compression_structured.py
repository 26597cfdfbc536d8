"""Fashion-MNIST: every structured method at 70, 50 and 25% of the MACs, beside random draws, before and after training.

    python benchmarks/compression_structured.py before --data ../shared/data/fashion-mnist [--folder structured]
    python benchmarks/compression_structured.py after --data ...
    python benchmarks/compression_structured.py spearman --data ...

An AE-CNN of 263,000 parameters is trained once per seed on 12,000 images. `before`: accuracy on all 10,000 test images
without any training, with the statistics of the batch normalisations as they were (`raw`) and made anew, beside 10
random draws. `after`: the same after three epochs of equal training, beside 3 draws. `spearman`: the correlation of
scores with the change of the loss where single units go. Every measurement is a row of a file in `benchmarks/results`;
a row that is there is not made again.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
import torch
from compressed import Problem, compressed, method, tuned
from rows import Rows

from compressors.groups.groups import Groups
from compressors.groups.trace import trace
from compressors.importance.alone import agreement, loss_changes
from search_spaces.counter import macs, params

LEVELS = (0.7, 0.5, 0.25)
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "magnitude": ("magnitude", {}),
    "magnitude L1": ("magnitude", {"norm": 1}),
    "taylor": ("taylor", {}),
    "taylor change": ("taylor", {"mean": "change"}),
    "taylor weights": ("taylor", {"of": "weights", "mean": "absolutes"}),
    "obd": ("obd", {}),
    "obd fisher": ("obd", {"hessian": "fisher"}),
    "oba": ("oba", {}),
    "oba series": ("oba", {"hessian": "series"}),
    "bn-scale": ("bn-scale", {}),
}
MAIN = ("magnitude", "taylor", "obd", "oba", "bn-scale")
TRAINED = (
    "hesso",
    "hesso-cric",
    "polarization",
)  # what works while the network trains: the same epochs, before the removal
RANDOM = "random"
FIELDS = ("seed", "method", "allocation", "macs_share", "draw", "raw", "accuracy", "params", "macs", "seconds")
NAMED = 5


def rows_of(arguments: argparse.Namespace) -> Rows:
    fields = ("seed", "method", "units", "together", "within", "groups") if arguments.table == "spearman" else FIELDS
    path = arguments.out or Path(__file__).parent / "results" / f"compression_structured_{arguments.table}.csv"
    return Rows(path, fields, named=2 if arguments.table == "spearman" else NAMED)


def asked(draws: int, methods: list[str], everywhere: bool) -> list[tuple[str, str, int]]:
    """Method, allocation and draw of every row at one level and seed; those of `magnitude` and `random` come first, and
    those of the global allocation, where `everywhere` is wanted, last."""
    uniform = [(name, "" if name in TRAINED else "uniform", 0) for name in methods]
    drawn = [(RANDOM, "uniform", draw) for draw in range(draws)]
    ranked = [(name, "global", 0) for name in methods if name not in TRAINED and everywhere]
    return [*uniform[:1], *drawn, *uniform[1:], *ranked]


def table(problem: Problem, arguments: argparse.Namespace, after: bool) -> None:
    rows = rows_of(arguments)
    for seed in range(arguments.seeds):
        network, cache = problem.network(seed), dict[str, Any]()
        if not rows.get(seed, "dense", "", 1, 0):
            accuracy = problem.accuracy(network)
            counted = {"params": params(network), "macs": macs(network, problem.subject(network, 0, {}).inputs) // 4}
            dense = {"method": "dense", "allocation": "", "macs_share": 1, "draw": 0, "raw": accuracy, "seconds": 0}
            print(rows.write({"seed": seed, "accuracy": accuracy, **dense, **counted}), flush=True)
        if after and not rows.get(seed, "dense", "", 1, 1):
            longer = tuned(problem, copy.deepcopy(network), seed)  # the dense network, trained as long
            dense = {**rows.get(seed, "dense", "", 1, 0), "draw": 1, "accuracy": longer}
            print(rows.write(dense), flush=True)
        for share in arguments.levels:
            for name, rule, draw in asked(arguments.draws, arguments.methods, not arguments.uniform):
                if rows.get(seed, name, rule, share, draw):
                    continue
                kind, settings = SETTINGS.get(name, (name, {}))
                # Draws differ by the seed of the subject, which scores of other methods share.
                subject = problem.subject(network, seed + 1000 * draw, cache, f"macs<={share}x")
                if name == RANDOM:
                    subject = problem.subject(network, seed + 1000 * draw, {}, f"macs<={share}x")
                made = method(kind, subject, **({"allocation": rule} if rule else {}), **settings)
                begun = time.process_time()
                found = compressed(problem, network, made, seed, raw=not after and name != RANDOM)
                accuracy = tuned(problem, found.network, seed, made.rounds[-1].epochs) if after else found.before
                row = {
                    "seed": seed,
                    "method": name,
                    "allocation": rule,
                    "macs_share": share,
                    "draw": draw,
                    "raw": found.before if after else found.raw or None,
                    "accuracy": accuracy,
                    "params": params(found.network),
                    "macs": macs(found.network, subject.inputs) // len(subject.inputs[0]),
                    "seconds": round(time.process_time() - begun, 1),
                }
                print(rows.write(row), flush=True)
    summary(rows)


def summary(rows: Rows) -> None:
    """Means over the seeds in percent, beside mean and deviation of the random draws."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        key = row["macs_share"], row["allocation"], row["method"]
        found.setdefault(key, []).append(100 * float(row["accuracy"]))
    for (share, rule, name), values in sorted(found.items(), reverse=True):
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        print(f"{share:>5} {rule:8} {name:16} {statistics.fmean(values):.1f}{spread} ({len(values)})")


def correlations(problem: Problem, arguments: argparse.Namespace) -> None:
    """Spearman's correlation of every score with what the loss of some training images really does."""
    rows = rows_of(arguments)
    for seed in range(arguments.seeds):
        if all(rows.get(seed, name) for name in (*SETTINGS, RANDOM)):
            continue
        network = problem.network(seed)
        subject = problem.subject(network, seed, {})
        groups = exact(trace(network, subject.inputs))
        batches = list(islice(problem.data.batches("train", 99, seed), arguments.batches))
        changes = loss_changes(network, groups, subject, batches)
        for name in (*SETTINGS, RANDOM):
            if rows.get(seed, name):
                continue
            kind, settings = SETTINGS.get(name, (name, {}))
            made = method(kind, subject, **settings)
            scores = made.scores(network, groups, 0)
            together, within = agreement(scores, changes)
            row = {
                "seed": seed,
                "method": name,
                "units": sum(len(changes[one]) for one in scores),
                "together": round(together, 3),
                "within": round(float(numpy.nanmean([*within.values()])), 3),
                "groups": " ".join(f"{one}={value:.2f}" for one, value in within.items()),
            }
            print(rows.write(row), flush=True)


def exact(groups: Groups) -> Groups:
    return Groups(tuple(one for one in groups.groups if one.exact), groups.fixed, groups.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("before", "after", "spearman"))
    parser.add_argument("--data", type=Path, required=True, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--folder", type=Path, default=Path("structured"), help="where the trained networks are")
    parser.add_argument("--methods", nargs="+", help="[default: those of scores, and after training hesso too]")
    parser.add_argument("--levels", nargs="+", type=float, default=LEVELS, help="shares of the MACs that are left")
    parser.add_argument("--uniform", action="store_true", help="the default allocation alone")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, help="of random scores [default: 10 before, 3 after]")
    parser.add_argument("--epochs", type=int, default=8, help="of the dense network")
    parser.add_argument("--tune", type=int, default=3, help="of the smaller ones")
    parser.add_argument("--limit", type=int, default=12_000)
    parser.add_argument("--batches", type=int, default=8, help="spearman: of 64 images that the loss is measured on")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.draws is None:
        arguments.draws = 10 if arguments.table == "before" else 3
    if arguments.methods is None:
        arguments.methods = [*MAIN, *(TRAINED if arguments.table == "after" else ())]
    problem = Problem(arguments.data, arguments.folder, arguments.limit, arguments.epochs, arguments.tune)
    tables: dict[str, Callable[[], None]] = {
        "before": lambda: table(problem, arguments, after=False),
        "after": lambda: table(problem, arguments, after=True),
        "spearman": lambda: correlations(problem, arguments),
    }
    tables[arguments.table]()


if __name__ == "__main__":
    main()
