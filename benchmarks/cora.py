"""Cora's public split: a searched network and a two-layer GCN (Kipf and Welling, ICLR 2017) by one recipe.

    python benchmarks/cora.py --data ../shared/data --seeds 10 --out cora.csv

A search by the recorded results of NAS-Bench-Graph names the network; both are trained with the recipe `standard` for
nodes on row-normalised features, by the fit loop of `nas train`, and tested with the weights of the best validation
epoch. Every training is a row of the file; a row that is there is not trained again.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.nasbench_graph.space import NasBenchGraph
from training.data import load
from training.data.split import Split
from training.evaluators.train import build
from training.fit import fit
from training.recipe import recipe

FIELDS = ("network", "recipe", "seed", "kept_epoch", "val_accuracy", "test_accuracy")


class GCN(nn.Module):
    """Two graph convolutions with ReLU between them and dropout before each: `[n, f], [2, e]` to `[n, classes]`."""

    def __init__(self, features: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        from torch_geometric.nn import GCNConv

        self.first, self.second = GCNConv(features, hidden, cached=True), GCNConv(hidden, classes, cached=True)
        self.dropout = dropout

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        hidden = self.first(functional.dropout(x, self.dropout, self.training), edges).relu()
        out: Tensor = self.second(functional.dropout(hidden, self.dropout, self.training), edges)
        return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with planetoid_cora.npz")
    parser.add_argument("--network", required=True, help="the network that a search named, as 0112:gcn,gat,gin,fc")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.7)
    parser.add_argument("--recipe", default="standard")
    parser.add_argument("--out", type=Path, default=Path("cora.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = load(f"graph:{arguments.data / 'planetoid_cora.npz'}?normalise=rows", Split())
    task, space = source.task, NasBenchGraph()
    arch, size = space.from_text(arguments.network), space.Size(hidden=arguments.hidden, dropout=arguments.dropout)

    def gcn(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return GCN(task.input_shape[0], arguments.hidden, task.outputs, arguments.dropout)

    makers: dict[str, Callable[[int], nn.Module]] = {
        "gcn": gcn,
        arguments.network: lambda seed: build(space, arch, task, size, seed),
    }
    done: dict[tuple[str, str, int], dict[str, str]] = {}
    if arguments.out.exists():
        with arguments.out.open(newline="") as file:
            done = {(row["network"], row["recipe"], int(row["seed"])): row for row in csv.DictReader(file)}
    data, plan = source.bind("cpu"), recipe(arguments.recipe, task)
    for name, make in makers.items():
        figures = []
        for seed in range(arguments.seeds):
            key = (name, arguments.recipe, seed)
            if key not in done:
                *_, last = fit(make(seed), data, plan, device=torch.device("cpu"), seed=seed, test=True)
                values = {"network": name, "recipe": arguments.recipe, "seed": seed}
                row = {**values, **{field: last.metrics[field] for field in FIELDS[3:] if field in last.metrics}}
                new = not arguments.out.exists()
                with arguments.out.open("a", newline="") as file:
                    writer = csv.DictWriter(file, FIELDS)
                    if new:
                        writer.writeheader()
                    writer.writerow(row)
                done[key] = {field: str(value) for field, value in row.items()}
            figures.append(float(done[key]["test_accuracy"]))
        spread = statistics.stdev(figures) if len(figures) > 1 else 0.0
        print(f"{name}: test {statistics.fmean(figures):.4f} ± {spread:.4f} over {len(figures)} seeds", flush=True)


if __name__ == "__main__":
    main()
