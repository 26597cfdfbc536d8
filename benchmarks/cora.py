"""Cora's public split: a searched network and a two-layer GCN (Kipf and Welling, ICLR 2017) by one recipe.

    python benchmarks/cora.py --data ../shared/data --network 0112:skip,gat,gcn,gcn --seeds 10 --out cora.csv

A search names the network; both are trained by one recipe for nodes, by the fit loop of `nas train`, and tested with
the weights of the best validation epoch. Of several candidates that a search names, the one with the best mean
validation over a few seeds is the winner: one training picks luck. Every training is a row of the file; a row that is
there is not trained again.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rows import Rows
from torch import Tensor, nn
from torch.nn import functional

from nas_core.errors import TrialError
from search_spaces.nasbench_graph import NasBenchGraph
from training.data import load
from training.data.split import Split
from training.fit import fit
from training.networks import build
from training.recipe import recipe

FIELDS = (
    *("network", "recipe", "normalise", "hidden", "epochs", "weight_decay", "dropout", "grad_clip", "seed"),
    *("kept_epoch", "val_accuracy", "test_accuracy"),
)
NAMED = FIELDS.index("kept_epoch")


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
    parser.add_argument(
        "--network",
        action="append",
        default=[],
        help="one that a search named, 0112:gcn,gat,gin,fc say; may be repeated",
    )
    parser.add_argument("--no-gcn", action="store_true", help="the named networks alone")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.7)
    parser.add_argument("--recipe", default="standard")
    parser.add_argument("--epochs", type=int, help="other than the recipe's")
    parser.add_argument("--weight-decay", type=float, help="another one than the recipe's")
    parser.add_argument("--normalise", choices=["rows", "none"], default="none", help="of the features")
    parser.add_argument("--grad-clip", type=float, help="largest norm of all gradients together")
    parser.add_argument("--out", type=Path, default=Path("cora.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = load(f"graph:{arguments.data / 'planetoid_cora.npz'}?normalise={arguments.normalise}", Split())
    task, space = source.task, NasBenchGraph()
    size = space.Size(hidden=arguments.hidden, dropout=arguments.dropout)

    def gcn(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return GCN(task.input_shape[0], arguments.hidden, task.outputs, arguments.dropout)

    makers: dict[str, Callable[[int], nn.Module]] = {} if arguments.no_gcn else {"gcn": gcn}
    for text in arguments.network:
        makers[text] = partial(build, space, space.from_text(text), task, size)
    rows = Rows(arguments.out, FIELDS, NAMED)
    named = {"epochs": arguments.epochs, "weight_decay": arguments.weight_decay, "grad_clip": arguments.grad_clip}
    changes = {name: value for name, value in named.items() if value is not None}
    data, plan = source.bind("cpu"), recipe(arguments.recipe, task, **changes, keep="best")
    for name, make in makers.items():
        figures = []
        for seed in range(arguments.seeds):
            chosen = (arguments.hidden, plan.epochs, plan.weight_decay, arguments.dropout, arguments.grad_clip)
            settings = (name, arguments.recipe, arguments.normalise, *chosen, seed)
            found = rows.get(*settings)
            if found is None:
                row: dict[str, object] = dict(zip(FIELDS, settings, strict=False))
                try:
                    *_, last = fit(make(seed), data, plan, device=torch.device("cpu"), seed=seed, test=True)
                    row |= {field: last.metrics[field] for field in FIELDS[NAMED:]}
                except TrialError as error:
                    print(f"{name} seed {seed}: {error}", flush=True)
                    row |= dict.fromkeys(FIELDS[NAMED:], math.nan)
                found = rows.write(row)
            figures.append([float(found[field]) for field in ("val_accuracy", "test_accuracy")])
        valid, test = ([pair[part] for pair in figures] for part in (0, 1))
        spread = statistics.stdev(test) if len(test) > 1 else 0.0
        mean = f"validation {statistics.fmean(valid):.4f}, test {statistics.fmean(test):.4f} ± {spread:.4f}"
        print(f"{name}: {mean} over {len(test)} seeds", flush=True)


if __name__ == "__main__":
    main()
