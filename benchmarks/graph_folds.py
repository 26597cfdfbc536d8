"""Graphs that are classified, on honest folds: a searched network beside GIN, GIN without edges, and the majority.

    python benchmarks/graph_folds.py --data ../shared/data --folder FOLDER [--sets mutag enzymes proteins]

GIN has four layers of 64, batch normalisation, the mean of the nodes of every layer side by side, and one linear map:
the sum of a graph's nodes without normalisation starts at losses that are not learned from. Without edges it is the
same network on graphs whose edges are left out. The search is `graphgym(training=False)` by `regularized-evolution` on
the training and validation parts of fold 0, whose best trial by validation is trained on every fold. Everything has the
recipe `standard` for graphs: an epoch is chosen by the validation fold, the test fold is looked at once. Choosing a
network on fold 0 has seen the fold that is validation there, which is tested as the second one; PROTEINS is trained on
three of its folds only. Every training is a row of the file in the folder; one that is there is not made again.

The table has the mean over folds with the standard deviation over them, and the paired difference to GIN with its
standard error.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rows import Rows
from torch import Tensor, nn
from torch_geometric.nn import GINConv, global_mean_pool

import nas
from nas_core.architecture import Architecture
from nas_core.seeds import derive
from nas_core.task import Task
from search_spaces.graphgym.space import GraphGym
from training.data import load
from training.data.loading import Loading
from training.data.many_graphs import ManyGraphSource as Source
from training.data.split import Split
from training.fit import fit
from training.networks import build
from training.recipe import recipe

SETS = {"mutag": 10, "enzymes": 10, "proteins": 3}  # folds that are trained on, of ten
FOLDS = 10
SPACE = GraphGym(training=False)
SIZE = SPACE.Size(hidden=64)
FIELDS = ("set", "network", "fold", "epochs", "val_accuracy", "test_accuracy")


class Gin(nn.Module):
    """`(x [nodes, f], edge_index [2, m], counts [graphs])` to `[graphs, classes]`; without `edges` as if there were
    none."""

    def __init__(self, task: Task, edges: bool, width: int = 64, layers: int = 4) -> None:
        super().__init__()
        self.edges = edges
        widths = [task.input_shape[0], *[width] * layers]
        self.layers = nn.ModuleList(
            GINConv(
                nn.Sequential(
                    nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(), nn.Linear(after, after), nn.ReLU()
                )
            )
            for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(layers))
        self.head = nn.Linear(width * layers, task.outputs)

    def forward(self, x: Tensor, edge_index: Tensor, counts: Tensor) -> Tensor:
        edges = torch.as_tensor(edge_index).as_subclass(Tensor)
        edges = edges if self.edges else edges[:, :0]
        graph = torch.arange(len(counts)).repeat_interleave(counts)
        levels = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x, edges))
            levels.append(global_mean_pool(x, graph, len(counts)))
        answer: Tensor = self.head(torch.cat(levels, 1))
        return answer


def plain(seed: int, task: Task, edges: bool) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "weights"))
        return Gin(task, edges)


def searched(folder: Path, data: str, name: str, trials: int, epochs: int) -> Architecture:
    """The best of a search on fold 0; made, or gone on with."""
    db = folder / "nas.db"
    options: dict[str, Any] = {
        "study": name, "space": "graphgym(training=False)", "size": {"hidden": 64}, "strategy": "regularized-evolution",
        "recipe": "standard", "split": {"folds": FOLDS, "fold": 0}, "epochs": epochs, "seed": 0, "lag": 1,
        "threads": 1, "device": "cpu",
    }  # fmt: skip
    known = db.exists() and name in {study.name for study in nas.studies(db=db)}
    study = nas.resume(name, trials=trials, db=db) if known else nas.search(data=data, trials=trials, db=db, **options)
    best = study.best()
    arch = Architecture(SPACE.name, best["architecture"])
    print(f"{name}: {best['metrics']['val_accuracy']:.4f} {SPACE.to_text(arch)}", flush=True)
    return arch


def trained(source: Source, make: Callable[[int, Task], nn.Module], epochs: int, seed: int) -> dict[str, float]:
    plan = recipe("standard", source.task, epochs=epochs, keep="best")
    data = source.bind("cpu", Loading(batch_size=plan.batch_size))
    *_, last = fit(make(seed, source.task), data, plan, device=torch.device("cpu"), seed=seed, test=True)
    return {name: round(last.metrics[name], 4) for name in ("val_accuracy", "test_accuracy")}


def majority(source: Source) -> dict[str, float]:
    """What the commonest class of the training part has in the other ones."""
    counts = source.class_counts
    common = counts["train"].index(max(counts["train"]))
    shares = {"val_accuracy": counts["valid"], "test_accuracy": counts["test"]}
    return {name: round(count[common] / sum(count), 4) for name, count in shares.items()}


def table(rows: Rows) -> None:
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[row["set"]][row["network"]][row["fold"]] = 100 * float(row["test_accuracy"])
    print("| data | network | test | less GIN | folds |\n|---|---|---|---|---|")
    for name, networks in found.items():
        for network, folds in networks.items():
            gaps = [value - networks["GIN"][fold] for fold, value in folds.items() if fold in networks["GIN"]]
            text = f"{statistics.fmean(folds.values()):.1f} ± {statistics.stdev(folds.values()):.1f}"
            gap = f"{statistics.fmean(gaps):+.1f} ± {statistics.stdev(gaps) / len(gaps) ** 0.5:.1f}" if gaps else ""
            print(f"| {name} | {network} | {text} | {gap if network != 'GIN' else ''} | {len(folds)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with tu_*.npz")
    parser.add_argument("--folder", type=Path, required=True, help="of studies and the table")
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--trials", type=int, default=30, help="of a search")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--folds", type=int, help="to train on, instead of those of the set")
    parser.add_argument("--no-search", action="store_true", help="the references alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = Rows(given.folder / "graph_folds.csv", FIELDS, named=4)
    for name in given.sets:
        data = f"graph:{(given.data / f'tu_{name}.npz').resolve()}"
        sources = [load(data, Split(folds=FOLDS, fold=fold)) for fold in range(given.folds or SETS[name])]
        makers: Mapping[str, Callable[[Source, int], Mapping[str, float]]] = {
            "majority": lambda source, _: majority(source),
            "GIN": lambda source, fold: trained(source, partial(plain, edges=True), given.epochs, fold),
            "GIN without edges": lambda source, fold: trained(source, partial(plain, edges=False), given.epochs, fold),
        }
        if not given.no_search:
            arch = searched(given.folder, data, name, given.trials, given.epochs)
            makers = {**makers, "searched": partial(_searched, arch, given.epochs)}
        for network, make in makers.items():
            for fold, source in enumerate(sources):
                if rows.get(name, network, fold, given.epochs) is None:
                    row = {"set": name, "network": network, "fold": fold, "epochs": given.epochs}
                    print(dict(rows.write({**row, **make(source, fold)})), flush=True)
    table(rows)


def _searched(arch: Architecture, epochs: int, source: Source, fold: int) -> dict[str, float]:
    return trained(source, lambda seed, task: build(SPACE, arch, task, SIZE, seed), epochs, fold)


if __name__ == "__main__":
    main()
