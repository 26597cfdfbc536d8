"""RC-DARTS within bounds, beside a penalty in the loss: true parameters of what each derives on NAS-Bench-201.

    python benchmarks/rc_darts.py --data ../shared/data [--seeds 3] [--lower 0.8] [--epochs 10] [--images 4000]

The supernet has C=8, N=1 and is trained on Fashion-MNIST at 16x16 pixels, as in `one_shot.py`; single-level, and
without `none` in what is derived, as the bilevel search (`--bilevel`) collapses to parameter-free operations here and
leaves nothing to bound. The architecture takes some 400 steps at hundreds of times the published rate.

Per seed first a search without bounds, then two for each of three upper bounds, shares of the parameters of what that
one derived: with projection and repair, and with the relative violation in the loss alone (`projection=false`, weight
`--penalty`). The lower bound is `--lower` times the upper one; 0: none. Where 0.3 of the parameters are less than the
cheapest architecture has (`*`), shares are taken of what lies above that one. `projected` is what is derived before
the repair. Parameters are those of the built network.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from one_shot import SIZE, SPACE, small_images, steps

from nas_core.architecture import Architecture
from nas_core.evaluation import Constraint
from nas_core.strategy import Setting
from search_spaces.nasbench201 import SKIP
from strategies.one_shot.rc_darts import RcDarts
from training.cost import params
from training.data import load
from training.data.split import Split

SHARES = (0.3, 0.5, 0.8)
CHEAPEST = f"|{SKIP}~0|+|{SKIP}~0|{SKIP}~1|+|{SKIP}~0|{SKIP}~1|{SKIP}~2|"
METHODS = ("rc-darts", "projected", "penalty")


def search(
    source: Any, seed: int, arguments: argparse.Namespace, band: tuple[int, int] | None, projection: bool = True
) -> tuple[int, int]:
    """The true numbers of parameters of what is derived: as the result, and before the repair."""
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
    derived = strategy.supernet.derive(strategy.alphas.softmax(), none=False)
    return true(strategy.result()[0], source), true(derived, source)


def true(arch: Architecture, source: Any) -> int:
    return params(SPACE.build(arch, source.task, SIZE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with fashion-mnist")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--lower", type=float, default=0.8, help="the lower bound, as a share of the upper one")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=4000, help="for training and validation, 9 to 1")
    parser.add_argument("--alpha-lr", type=float, default=0.1)
    parser.add_argument("--bilevel", action="store_true")
    parser.add_argument("--penalty", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    held: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "fashion16.npz"
        small_images(arguments.data / "fashion-mnist", small)
        source = load(f"npz:{small}", Split(limit=arguments.images))
        least = true(SPACE.from_text(CHEAPEST), source)
        print(f"the cheapest architecture has {least:,} parameters")
        print("seed  unbounded  share   at least   at most" + "".join(f"{name:>12} within" for name in METHODS))
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            free, _ = search(source, seed, arguments, None)
            above = min(SHARES) * free < least
            for share in SHARES:
                upper = int(least + share * (free - least) if above else share * free)
                band = int(arguments.lower * upper), upper
                ours, projected = search(source, seed, arguments, band)
                penalised, _ = search(source, seed, arguments, band, projection=False)
                columns = ""
                for name, count in zip(METHODS, (ours, projected, penalised), strict=True):
                    within = "yes" if band[0] <= count <= band[1] else "ABOVE" if count > band[1] else "BELOW"
                    held[name] += within == "yes"
                    columns += f"{count:>12,} {within:>6}"
                mark = "*" if above else " "
                print(f"{seed:>4}  {free:>9,}  {share:>4}{mark}  {band[0]:>9,} {band[1]:>9,}{columns}", flush=True)
    runs = arguments.seeds * len(SHARES)
    print("within the bounds: " + ", ".join(f"{name} {held[name]} of {runs}" for name in METHODS))


if __name__ == "__main__":
    main()
