"""RC-DARTS within bounds, beside a penalty in the loss: what each derives on NAS-Bench-201.

    python benchmarks/rc_darts.py --data ../shared/data [--seeds 3] [--shares 0.5] [--lower 0.8] [--out rc_darts.csv]

The supernet has C=8, N=1 and is trained on Fashion-MNIST at 16x16 pixels, as in `one_shot.py`; single-level, and
without `none` in what is derived, as the bilevel search (`--bilevel`) collapses to parameter-free operations here and
leaves nothing to bound. The architecture takes some 400 steps at hundreds of times the published rate.

Per seed first a search without bounds, then two for each upper bound, a share of the parameters of what that one
derived: with projection, and with the relative violation in the loss alone (`projection=false`, weight `--penalty`).
Each is shown before and after the repair, which the product does after a projection only: so projections and penalty
are compared with the same repair. The lower bound is `--lower` times the upper one; 0: none. Where 0.3 of the
parameters are less than the cheapest architecture has, shares are taken of what lies above that one. `params` are those
of the built network, `test` the recorded CIFAR-10 test accuracy. A row of the csv is not measured again.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from one_shot import SIZE, SPACE, interval, small_images, steps, table

from nas_core.architecture import Architecture
from nas_core.errors import InfeasibleError
from nas_core.evaluation import Constraint
from nas_core.strategy import Setting
from search_spaces.nasbench201.space import SKIP
from strategies.one_shot.rc_darts import RcDarts
from training.cost import params
from training.data import load
from training.data.split import Split

CHEAPEST = f"|{SKIP}~0|+|{SKIP}~0|{SKIP}~1|+|{SKIP}~0|{SKIP}~1|{SKIP}~2|"
METHODS = ("projection, repaired", "projection", "penalty, repaired", "penalty")
FIELDS = ("seed", "share", "lower", "upper", "method", "params", "test", "within")


def search(
    source: Any, seed: int, arguments: argparse.Namespace, band: tuple[int, int] | None, projection: bool = True
) -> tuple[Architecture, Architecture | None]:
    """What is derived, and that repaired; None where the repair finds nothing."""
    constraints = [Constraint("params", "<=", band[1])] if band else []
    if band and band[0]:
        constraints.append(Constraint("params", ">=", band[0]))
    config = RcDarts.Config(
        epochs=arguments.epochs,
        alpha_lr=arguments.alpha_lr,
        batch_size=64,
        bilevel=arguments.bilevel,
        none=False,
        projection=projection,
        penalty=arguments.penalty,
    )
    strategy = RcDarts(Setting(SPACE, seed, (), tuple(constraints)), config)
    for progress in steps(strategy, source, config, seed):
        if arguments.verbose:
            print(seed, band, {name: round(value, 4) for name, value in progress.metrics.items()}, progress.arch)
    scores = strategy.alphas.softmax()
    derived = strategy.supernet.derive(scores, none=False)
    try:
        return derived, strategy.bounds.repair(derived, scores)
    except InfeasibleError:
        return derived, None


def true(arch: Architecture, source: Any) -> int:
    return params(SPACE.build(arch, source.task, SIZE))


def bounded(source: Any, seed: int, arguments: argparse.Namespace, least: int, shares: list[float]) -> list[Any]:
    """The rows of one seed."""
    free = true(search(source, seed, arguments, None)[0], source)
    above = min(0.3, *shares) * free < least
    accuracies = table(arguments.data)
    rows = []
    for share in shares:
        upper = int(least + share * (free - least) if above else share * free)
        band = int(arguments.lower * upper), upper
        found = [*reversed(search(source, seed, arguments, band))]
        found += reversed(search(source, seed, arguments, band, projection=False))
        for method, arch in zip(METHODS, found, strict=True):
            count = None if arch is None else true(arch, source)
            test = None if arch is None else accuracies[SPACE.to_text(arch)]
            within = count is not None and band[0] <= count <= band[1]
            rows.append((seed, share, *band, method, count, test, within))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with fashion-mnist and nb201.csv.gz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--shares", default="0.3,0.5,0.8", help="upper bounds")
    parser.add_argument("--lower", type=float, default=0.8, help="the lower bound, as a share of the upper one")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=4000, help="for training and validation, 9 to 1")
    parser.add_argument("--alpha-lr", type=float, default=0.1)
    parser.add_argument("--bilevel", action="store_true")
    parser.add_argument("--penalty", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("rc_darts.csv"))
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shares = [float(share) for share in arguments.shares.split(",")]
    with arguments.out.open("a+", newline="") as file, tempfile.TemporaryDirectory() as folder:
        file.seek(0)
        rows = list(csv.DictReader(file))
        writer = csv.DictWriter(file, FIELDS)
        if not rows:
            writer.writeheader()
        small = Path(folder) / "fashion16.npz"
        small_images(arguments.data / "fashion-mnist", small)
        source = load(f"npz:{small}", Split(limit=arguments.images))
        least = true(SPACE.from_text(CHEAPEST), source)
        print(f"the cheapest architecture has {least:,} parameters")
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            left = [
                share
                for share in shares
                if not any((row["seed"], row["share"]) == (str(seed), str(share)) for row in rows)
            ]
            if left:
                found = [
                    dict(zip(FIELDS, map(str, row), strict=True))
                    for row in bounded(source, seed, arguments, least, left)
                ]
                writer.writerows(found)
                file.flush()
                rows += found
    for row in rows:
        print("  ".join(f"{row[name]:>20}" if name == "method" else f"{row[name]:>8}" for name in FIELDS))
    for method in METHODS:
        mine = [row for row in rows if row["method"] == method]
        tests = [float(row["test"]) for row in mine if row["test"] != "None"]
        within = sum(row["within"] == "True" for row in mine)
        print(f"{method}: {within} of {len(mine)} within the bounds, mean test accuracy {statistics.fmean(tests):.2f}")
    gaps = [
        float(one["test"]) - float(other["test"])
        for one, other in zip(*([row for row in rows if row["method"] == name] for name in METHODS[::2]), strict=True)
        if "None" not in (one["test"], other["test"])
    ]
    if len(gaps) > 1:
        print(f"projection - penalty, both repaired: {statistics.fmean(gaps):+.2f} ± {interval(gaps):.2f}")


if __name__ == "__main__":
    main()
