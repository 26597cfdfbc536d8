"""RC-DARTS within bounds, beside a penalty in the loss: true parameters of what each derives on NAS-Bench-201.

    python benchmarks/rc_darts.py --data ../shared/data [--seeds 3] [--epochs 10] [--images 4000] [--threads 1]

The supernet has C=8, N=1 and is trained on Fashion-MNIST at 16x16 pixels, as in `one_shot.py`. The architecture takes
about 200 steps, a hundredth of the published number, at a hundred times the rate. Per seed first a search without
bounds, then two for each of three upper bounds: with projection and repair, and with the relative violation in the loss
alone (`projection=false`, weight `--penalty`). A bound is a share of the parameters of what the search without bounds
derived; where 0.3 of them are less than the cheapest architecture has (`*`), shares are taken of what lies above that
one. Parameters are those of the built network.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from one_shot import SIZE, SPACE, small_images, steps

from nas_core.architecture import Architecture
from nas_core.evaluation import Constraint
from nas_core.strategy import Setting
from search_spaces.nasbench201 import NONE
from strategies.one_shot.rc_darts import RcDarts
from training.cost import params
from training.data import load
from training.data.split import Split

SHARES = (0.3, 0.5, 0.8)
CHEAPEST = f"|{NONE}~0|+|{NONE}~0|{NONE}~1|+|{NONE}~0|{NONE}~1|{NONE}~2|"


def search(source: Any, seed: int, arguments: argparse.Namespace, bound: float | None, projection: bool = True) -> int:
    """The true number of parameters of what is derived."""
    constraints = () if bound is None else (Constraint("params", "<=", bound),)
    config = RcDarts.Config(
        epochs=arguments.epochs,
        alpha_lr=arguments.alpha_lr,
        batch_size=64,
        projection=projection,
        penalty=arguments.penalty,
    )
    strategy = RcDarts(Setting(SPACE, seed, (), constraints), config)
    for _ in steps(strategy, source, config, seed):
        pass
    return true(strategy.result()[0], source)


def true(arch: Architecture, source: Any) -> int:
    return params(SPACE.build(arch, source.task, SIZE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with fashion-mnist")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=4000, help="for training and validation, 9 to 1")
    parser.add_argument("--alpha-lr", type=float, default=0.03)
    parser.add_argument("--penalty", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    held = {"rc-darts": 0, "penalty": 0}
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "fashion16.npz"
        small_images(arguments.data / "fashion-mnist", small)
        source = load(f"npz:{small}", Split(limit=arguments.images))
        least = true(SPACE.from_text(CHEAPEST), source)
        print(f"the cheapest architecture has {least:,} parameters")
        print("seed  unbounded  share     bound  rc-darts  within   penalty  within")
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            free = search(source, seed, arguments, None)
            above = min(SHARES) * free < least
            for share in SHARES:
                bound = int(least + share * (free - least) if above else share * free)
                found = {
                    "rc-darts": search(source, seed, arguments, bound),
                    "penalty": search(source, seed, arguments, bound, projection=False),
                }
                columns = []
                for method, count in found.items():
                    held[method] += count <= bound
                    columns.append(f"{count:>8,}  {'yes' if count <= bound else 'NO':>6}")
                mark = "*" if above else " "
                print(f"{seed:>4}  {free:>9,}  {share:>4}{mark} {bound:>9,}  {'  '.join(columns)}", flush=True)
    runs = arguments.seeds * len(SHARES)
    print(f"within its bound: rc-darts {held['rc-darts']} of {runs} runs, penalty alone {held['penalty']} of {runs}")


if __name__ == "__main__":
    main()
