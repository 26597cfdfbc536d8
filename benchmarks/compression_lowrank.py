"""Fashion-MNIST: dynamical low-rank training beside truncated decompositions at its ranks, paired by seed.

    python benchmarks/compression_lowrank.py --data ../shared/data/fashion-mnist --folder lowrank --out lowrank.csv

A multilayer perceptron 784-256-256-10 is trained on 12,000 images, of which every tenth is for validation, and tested
on all 10,000. From there, for each tolerance: `dlrt` at three rates; `svd` at the ranks of the best of these, without
training, and with as many epochs at the same rates; `data-aware` without training. `dense` goes on with as many epochs
too. `scratch` begins anew. A training that diverges has an accuracy of 0. The best rate is that with the best
validation accuracy. K, L and S have ten times the rate of the others, which have momentum 0.9. Every training is a row
of the file; a row that is there is not made again.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from rows import Rows
from torch import nn

from compressors.compressor import Subject
from compressors.dlrt import Dlrt
from compressors.dlrt import Settings as DlrtSettings
from compressors.factors import put
from compressors.svd import Decomposed
from compressors.svd import Settings as SvdSettings
from nas_core.batch import Data
from nas_core.errors import TrialError
from search_spaces.counter import macs, params
from training.checkpoint import write_tensors
from training.data import load
from training.data.loading import Loading
from training.data.split import Split
from training.fit import fit
from training.recipe import Recipe
from training.tasks import sample_inputs

FIELDS = ("way", "tolerance", "seed", "epochs", "rate", "ranks", "params", "macs", "val_accuracy", "test_accuracy")
FIELDS += ("seconds",)
TOLERANCES = (0.2, 0.3, 0.1, 0.05)  # the last takes the longest
RATES = (0.005, 0.02, 0.05)
FASTER = 10  # the rate of factors, which have no momentum, in terms of that of the others
CPU = torch.device("cpu")


def perceptron(seed: int, width: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        layers = nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    return nn.Sequential(nn.Flatten(), *layers)


def plan(epochs: int, rate: float) -> Recipe:
    return Recipe(epochs=epochs, lr=rate, batch_size=128, weight_decay=5e-4, precision="float32")


class Bench:
    """One seed: its data, its dense network, and its rows."""

    def __init__(self, source: Any, rows: Rows, folder: Path, seed: int, width: int, epochs: int, dense: int) -> None:
        self.data: Data = source.bind("cpu", Loading(batch_size=128))
        self.rows, self.seed, self.width, self.epochs, self.task = rows, seed, width, epochs, source.task
        self.weights = folder / f"dense-{seed}.safetensors"
        self.dense_epochs = dense
        self.base = {"params": params(self.fresh()), "macs": macs(self.fresh(), sample_inputs(self.task))}

    def fresh(self) -> nn.Sequential:
        return perceptron(self.seed, self.width)

    def dense(self) -> nn.Sequential:
        """The trained network."""
        network = self.fresh()
        if not self.weights.exists():
            self.made("dense", None, self.dense_epochs, 0.05, network)
            write_tensors(self.weights, network.state_dict())
        network.load_state_dict(safetensors.torch.load_file(self.weights))
        return network.eval()

    def made(
        self, way: str, tolerance: float | None, epochs: int, rate: float | None, network: nn.Module, anew: bool = False
    ) -> Mapping[str, str]:
        """The row of a network that is trained now; of dlrt where there is a tolerance and the way is its own."""
        begun, method = time.process_time(), None
        if way in ("dlrt", "scratch"):
            settings = DlrtSettings(tolerance=tolerance, lr=FASTER * (rate or 0), from_scratch=anew)
            method = Dlrt(Subject(self.task, self.data, CPU, self.seed, initial=self.fresh), settings)
            method.compress(network.eval(), 0)
        regimes = [] if method is None else [method.regime(network, 0)]
        found: dict[str, float] = {}
        if rate is None:
            # One epoch at a rate that moves nothing, for its figures.
            *_, last = fit(copy.deepcopy(network), self.data, plan(1, 1e-12), device=CPU, seed=self.seed, test=True)
            found = dict(last.metrics)
        else:
            chosen = plan(epochs, rate)
            *_, last = fit(network, self.data, chosen, device=CPU, seed=self.seed, test=True, regimes=regimes)
            found = dict(last.metrics)
        if method is not None:
            method.compress(network.eval(), 1)
        ranks = [layers[0].weight.shape[0] for layers in network if isinstance(layers, nn.Sequential)]
        costs = {"params": params(network), "macs": macs(network, sample_inputs(self.task))}
        row = {
            "way": way,
            "tolerance": tolerance,
            "seed": self.seed,
            "epochs": epochs,
            "rate": rate,
            "ranks": json.dumps(ranks).replace(",", ""),
            **{name: round(value / self.base[name], 4) for name, value in costs.items()},
            **{name: found[name] for name in ("val_accuracy", "test_accuracy")},
            "seconds": round(time.process_time() - begun, 1),
        }
        written = self.rows.write(row)
        print(dict(written), flush=True)
        return written

    def row(
        self, way: str, tolerance: float | None, epochs: int, rate: float | None, network: Any
    ) -> Mapping[str, str]:
        """The row, made of what `network` gives where it is not there."""
        if there := self.rows.get(way, tolerance, self.seed, epochs, rate):
            return there
        try:
            return self.made(way, tolerance, epochs, rate, network(), way == "scratch")
        except TrialError as error:  # such a rate is not the best one
            print(way, tolerance, rate, error, flush=True)
            none = {"ranks": "[]", "params": 1.0, "macs": 1.0, "val_accuracy": 0.0, "test_accuracy": 0.0, "seconds": 0}
            row = {"way": way, "tolerance": tolerance, "seed": self.seed, "epochs": epochs, "rate": rate, **none}
            return self.rows.write(row)

    def truncated(self, ranks: list[int], data_aware: bool = False) -> nn.Module:
        """The dense network cut to these ranks."""
        network = self.dense()
        subject = Subject(self.task, self.data, CPU, self.seed)
        found = Decomposed(network, subject, SvdSettings(data_aware=data_aware))
        for matrix, rank in zip(found.truncation.matrices, ranks, strict=True):
            put(network, matrix.name, found.factors(matrix, rank))
        return network

    def more(self) -> None:
        """The dense network, and what as many epochs more make of it."""
        self.dense()
        for rate in RATES:
            self.row("dense, more", None, self.epochs, rate, self.dense)

    def low(self, tolerance: float) -> None:
        tried = [self.row("dlrt", tolerance, self.epochs, rate, self.dense) for rate in RATES]
        ranks = json.loads(best(tried)["ranks"].replace(" ", ","))
        self.row("svd", tolerance, 0, None, partial(self.truncated, ranks))
        self.row("data-aware", tolerance, 0, None, partial(self.truncated, ranks, True))
        for rate in RATES:
            self.row("svd, trained", tolerance, self.epochs, rate, partial(self.truncated, ranks))

    def scratch(self, epochs: int) -> None:
        for rate in RATES[1:]:
            self.row("scratch", 0.1, epochs, rate, self.fresh)


def best(rows: list[Mapping[str, str]]) -> Mapping[str, str]:
    return max(rows, key=lambda row: float(row["val_accuracy"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--folder", type=Path, default=Path("lowrank"), help="where the dense weights are")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5, help="after the dense training, of every way")
    parser.add_argument("--dense", type=int, default=15, help="epochs of the dense training")
    parser.add_argument("--tolerances", type=float, nargs="*", default=TOLERANCES)
    parser.add_argument("--scratch", type=int, nargs="*", default=[15, 45], help="epochs of trainings that begin anew")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--limit", type=int, default=12_000)
    parser.add_argument("--out", type=Path, default=Path("lowrank.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = load(f"idx:{arguments.data}", Split(limit=arguments.limit))
    rows = Rows(arguments.out, FIELDS, named=5)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    sizes = arguments.width, arguments.epochs, arguments.dense
    benches = [Bench(source, rows, arguments.folder, seed, *sizes) for seed in range(arguments.seeds)]
    for bench in benches:
        bench.more()
    for tolerance, bench in itertools.product(arguments.tolerances, benches):
        bench.low(tolerance)
    for epochs, bench in itertools.product(arguments.scratch, benches):
        bench.scratch(epochs)
    kinds = dict.fromkeys((row["way"], row["tolerance"], row["epochs"]) for row in rows)
    for kind in kinds:
        of = [row for row in rows if (row["way"], row["tolerance"], row["epochs"]) == kind]
        chosen = [best([row for row in of if row["seed"] == seed]) for seed in dict.fromkeys(row["seed"] for row in of)]
        test = [100 * float(row["test_accuracy"]) for row in chosen]
        share = statistics.fmean(float(row["params"]) for row in chosen)
        spread = f" ± {statistics.stdev(test):.2f}" if len(test) > 1 else ""
        print(f"{' '.join(filter(None, kind)):>24}: params {share:.3f}x, test {statistics.fmean(test):.2f}{spread}")


if __name__ == "__main__":
    main()
