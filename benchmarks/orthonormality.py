"""Digits: deep plain networks, without shortcuts, with and without the orthonormality regulariser.

    python benchmarks/orthonormality.py --out orthonormality.csv

Convolutions of 16 channels, each with batch normalisation and ReLU as in the paper, as deep as `--depth` says, then the
mean over the map and a linear map; 20 epochs of SGD. Paired by seed. Every training is a row of the file; a row that is
there is not made again.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from rows import Rows
from torch import nn

from nas_core.errors import TrialError
from training.data import load
from training.data.loading import Loading
from training.data.split import Split
from training.fit import fit
from training.recipe import recipe

FIELDS = ("depth", "weight", "seed", "val_accuracy", "test_accuracy", "seconds")


def plain(depth: int, seed: int) -> nn.Module:
    """A network of `depth` convolutions with the initialisation of He et al. 2015."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for number in range(depth):
        conv = nn.Conv2d(16 if number else 1, 16, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        layers += [conv, nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, action="append", default=[])
    parser.add_argument("--weight", type=float, action="append", default=[], help="of the term")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("orthonormality.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = load("digits", Split())
    rows = Rows(arguments.out, FIELDS, named=3)
    for depth in arguments.depth or [20, 40]:
        for weight in [0.0, *(arguments.weight or [1e-3, 1e-2, 1e-1])]:
            for seed in range(arguments.seeds):
                if rows.get(depth, weight, seed):
                    continue
                term = {"orthonormality": {"weight": weight}} if weight else {}
                plan = recipe("standard", source.task, epochs=20, lr=0.02, precision="float32", **term)
                data = source.bind("cpu", Loading(batch_size=plan.batch_size, augment=plan.augment))
                begun = time.process_time()
                row: dict[str, Any] = {"depth": depth, "weight": weight, "seed": seed}
                try:
                    *_, last = fit(plain(depth, seed), data, plan, device=torch.device("cpu"), seed=seed, test=True)
                    row |= {name: last.metrics[name] for name in ("val_accuracy", "test_accuracy")}
                except TrialError as error:
                    print(f"depth {depth}, weight {weight:g}, seed {seed}: {error}", flush=True)
                    row |= {"val_accuracy": math.nan, "test_accuracy": math.nan}
                row["seconds"] = round(time.process_time() - begun, 1)
                rows.write(row)
            made = [row for seed in range(arguments.seeds) if (row := rows.get(depth, weight, seed))]
            values = [float(row["test_accuracy"]) for row in made]
            spread = f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}"
            print(f"depth {depth}, weight {weight:g}: test {spread}", flush=True)


if __name__ == "__main__":
    main()
