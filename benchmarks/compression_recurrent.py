"""Strings of the Reber grammar: recurrent weights masked by magnitude, beside networks that are wired like a graph.

    python benchmarks/compression_recurrent.py --out compression_recurrent.csv

An LSTM and a GRU of three layers of 50 units (`examples/my_recurrent.py`) are trained on
`reber?strings=8000&length=24`, one per seed. Of each the weights of the inputs (`ih`), of the states (`hh`) or of both
are masked by `mask-magnitude`, one threshold over all layers, to 50, 20 and 10% of those chosen; tested, trained for
one more epoch with the zeros kept, and tested again. Beside them LSTMs and GRUs of 60 units that are wired like graphs
of Barabasi and Albert and of Watts and Strogatz are trained from scratch, as long as the dense ones. Every network is a
row of the file; a row that is there is not made again. `weights`: how many are not zero, of the recurrent layers. About
40 minutes of one core.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rows import Rows
from torch import nn

from compressors.compressor import Subject
from compressors.masks.density import counts, prunable
from compressors.masks.magnitude import Magnitude, MagnitudeSettings
from nas_core.batch import Data
from training import data as datasets
from training.data.loading import Loading
from training.fit import fit
from training.recipe import Recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
import my_recurrent

FIELDS = ("network", "which", "pruned", "seed", "weights", "dense", "before", "after")
CELLS = {"lstm": my_recurrent.lstm, "gru": my_recurrent.gru}
WHICH = ("ih", "hh", "both")
PRUNED = (50, 80, 90)
SHAPES = ("ba", "ws")
CPU = torch.device("cpu")
BATCH = 32


def made(task: Any, cell: str, shape: str | None, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CELLS[cell](task) if shape is None else my_recurrent.wired(task, cell, shape, seed=seed)


def trained(network: nn.Module, data: Data, epochs: int, lr: float, seed: int, *regimes: Any) -> nn.Module:
    plan = Recipe(epochs=epochs, optimizer="adam", lr=lr, weight_decay=0.0, batch_size=BATCH, grad_clip=5.0)
    list(fit(network, data, plan, device=CPU, seed=seed, regimes=regimes))
    return network.eval()


def accuracy(network: nn.Module, data: Data) -> float:
    """On the test part."""
    with torch.no_grad():
        found = [data.metrics(network.eval()(*batch.inputs), batch) for batch in data.batches("test", 0, 0)]
    return round(float(sum(one["accuracy"] for one in found) / sum(one["count"] for one in found)), 4)


def weights(network: nn.Module) -> int:
    """How many of the recurrent layers are not zero, biases left out."""
    inside = {name: one for name, one in prunable(network).items() if name.startswith("layers.")}
    return sum(nonzero for nonzero, _ in counts(inside).values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strings", type=int, default=8000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("compression_recurrent.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = datasets.load(f"reber?strings={arguments.strings}&length=24")
    data = source.bind("cpu", Loading(batch_size=BATCH))
    rows = Rows(arguments.out, FIELDS, named=4)

    @cache
    def dense(cell: str, seed: int) -> nn.Module:
        return trained(made(source.task, cell, None, seed), data, arguments.epochs, 3e-3, seed)

    for seed, cell in itertools.product(range(arguments.seeds), CELLS):
        for which, pruned in itertools.product(WHICH, PRUNED):
            if rows.get(cell, which, pruned, seed):
                continue
            network = copy.deepcopy(dense(cell, seed))
            settings = MagnitudeSettings.model_validate({"density": 1 - pruned / 100, "which": which})
            method = Magnitude(Subject(source.task, data, CPU, seed), settings)
            method.compress(network, 0)
            row = {"network": cell, "which": which, "pruned": pruned, "seed": seed, "weights": weights(network)}
            row |= {"dense": accuracy(dense(cell, seed), data), "before": accuracy(network, data)}
            trained(network, data, 1, 1e-3, seed + 100, method.regime(network, 0))
            assert weights(network) == row["weights"]
            print(rows.write({**row, "after": accuracy(network, data)}), flush=True)
    for seed, cell, shape in itertools.product(range(arguments.seeds), CELLS, SHAPES):
        if rows.get(f"{cell}, {shape}", "", "", seed):
            continue
        network = trained(made(source.task, cell, shape, seed), data, arguments.epochs, 3e-3, seed)
        row = {"network": f"{cell}, {shape}", "which": "", "pruned": "", "seed": seed, "weights": weights(network)}
        print(rows.write({**row, "dense": None, "before": None, "after": accuracy(network, data)}), flush=True)

    for network, which, pruned in dict.fromkeys((row["network"], row["which"], row["pruned"]) for row in rows):
        mine = [row for row in rows if (row["network"], row["which"], row["pruned"]) == (network, which, pruned)]
        means = {
            name: f"{statistics.fmean(float(row[name]) for row in mine):.4f}"
            for name in ("dense", "before", "after")
            if mine[0][name]
        }
        print(network, which, f"{pruned}%" if pruned else "", f"{int(mine[0]['weights']):,} weights", means)


if __name__ == "__main__":
    main()
