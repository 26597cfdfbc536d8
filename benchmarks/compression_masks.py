"""Fashion-MNIST: an MLP 300-100 masked by magnitude, one threshold for all layers beside the same share of every layer.

    python benchmarks/compression_masks.py --data ../shared/data/fashion-mnist --out compression_masks.csv

The networks (784-300-100-10, 266,200 weights) are trained on 12,000 images less every tenth (for validation), one per
seed, and tested on all 10,000. Each is masked by every scope of `mask-magnitude`, and at random, to 20, 10 and 5% of
its weights, tested, trained for two more epochs with its zeros kept, and tested again. Every masked network is a row of
the file; a row that is there is not made again. About 2 minutes of one core, and 8 with `--images 60000`.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rows import Rows
from torch import nn

from compressors.compressor import Subject
from compressors.masks.density import counts, density, prunable
from compressors.masks.magnitude import Magnitude, MagnitudeSettings
from compressors.masks.masking import Masking, Settings
from compressors.masks.random import Random
from nas_core.batch import Data
from training.data import load
from training.data.loading import Loading
from training.data.protocol import Source
from training.data.split import Split
from training.fit import fit
from training.recipe import Recipe

FIELDS = ("images", "pruned", "scope", "seed", "density", "layers", "dense", "before", "after")
SCOPES = ("blind", "uniform", "distribution", "random")
PRUNED = (80, 90, 95)
CPU = torch.device("cpu")
TRAINING: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 64}


def mlp(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            *(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
        )


def accuracy(network: nn.Module, data: Data) -> float:
    """On the test part."""
    with torch.no_grad():
        found = [data.metrics(network.eval()(*batch.inputs), batch) for batch in data.batches("test", 0, 0)]
    return round(float(sum(one["accuracy"] for one in found) / sum(one["count"] for one in found)), 4)


def masked(network: nn.Module, source: Source, data: Data, scope: str, pruned: int, seed: int) -> Masking:
    """Mask a network in place; what has done it."""
    subject = Subject(source.task, data, CPU, seed)
    kept = 1 - pruned / 100
    method: Masking = (
        Random(subject, Settings(density=kept))
        if scope == "random"
        else Magnitude(subject, MagnitudeSettings.model_validate({"density": kept, "scope": scope}))
    )
    method.compress(network, 0)
    return method


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--retrain", type=int, default=2)
    parser.add_argument("--images", type=int, default=12_000, help="so many in training and validation")
    parser.add_argument("--out", type=Path, default=Path("compression_masks.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = load(f"idx:{arguments.data}", Split(limit=arguments.images))
    data = source.bind("cpu", Loading(batch_size=TRAINING["batch_size"]))
    rows = Rows(arguments.out, FIELDS, named=4)

    @cache
    def trained(seed: int) -> nn.Module:
        network = mlp(seed)
        plan = Recipe(epochs=arguments.epochs, lr=0.05, **TRAINING)
        list(fit(network, data, plan, device=CPU, seed=seed))
        return network.eval()

    for seed in range(arguments.seeds):
        for pruned in PRUNED:
            for scope in SCOPES:
                if rows.get(arguments.images, pruned, scope, seed):
                    continue
                network = copy.deepcopy(trained(seed))
                method = masked(network, source, data, scope, pruned, seed)
                layers = "/".join(f"{nonzero / entries:.4f}" for nonzero, entries in counts(prunable(network)).values())
                row = {
                    "images": arguments.images,
                    "pruned": pruned,
                    "scope": scope,
                    "seed": seed,
                    "density": density(network),
                    "layers": layers,
                }
                row |= {"dense": accuracy(trained(seed), data), "before": accuracy(network, data)}
                plan = Recipe(epochs=arguments.retrain, lr=0.02, **TRAINING)
                list(fit(network, data, plan, device=CPU, seed=seed + 100, regimes=(method.regime(network, 0),)))
                assert density(network) == row["density"]
                print(rows.write({**row, "after": accuracy(network, data)}), flush=True)

    mine = [row for row in rows if row["images"] == str(arguments.images)]
    for when in ("before", "after"):
        for pruned in PRUNED:
            found = {
                scope: [100 * float(row[when]) for row in mine if (row["pruned"], row["scope"]) == (str(pruned), scope)]
                for scope in SCOPES
            }
            words = [f"{scope} {statistics.fmean(values):.2f}" for scope, values in found.items()]
            gains = [one - other for one, other in zip(found["blind"], found["uniform"], strict=True)]
            words.append(f"blind - uniform {statistics.fmean(gains):+.2f} (least {min(gains):+.2f})")
            print(f"{pruned}% {when}: {', '.join(words)}")


if __name__ == "__main__":
    main()
