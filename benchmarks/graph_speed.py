"""Training on one graph beside a plain loop of PyTorch Geometric: seconds of CPU per epoch, by turns.

    python benchmarks/graph_speed.py --data ../shared/data --out graph_speed.csv

Two layers of 64 (of SGC one layer, without dropout), by Adam, on Cora with normalised rows; an epoch is a step of
training and an evaluation of the validation nodes. One side is the fit loop with the operators of the catalogue, the
other the loop of PyTorch Geometric's examples: dense features, edges as they come. By turns each trains as many epochs,
in one process with one thread; what is compared is the CPU time of the process. `--seeds` trains both sides in full as
well, and writes the test accuracy of the best validation epoch: equal speed of another network would be worth nothing.
Every measurement is a row of the file; a row that is there is not measured again.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rows import Rows
from torch import Tensor, nn
from torch.nn import functional

from nas_core.batch import Data
from search_spaces.layers.dropout import Dropout
from search_spaces.layers.feature_dropout import FeatureDropout
from search_spaces.layers.graph_batch import GraphBatch
from search_spaces.operators.graph import GRAPH
from search_spaces.operators.graph.made import made
from training.data import load
from training.data.split import Split
from training.fit import fit
from training.recipe import Recipe, recipe

HIDDEN, LR, DECAY = 64, 0.005, 5e-4
OPERATORS = ("gcn", "sage", "gat", "sgc")
FIELDS = ("operator", "side", "measured", "epochs", "dropout", "seed", "cpu_ms_per_epoch", "test_accuracy")
NAMED = FIELDS.index("cpu_ms_per_epoch")


class Ours(nn.Module):
    """Operators of the catalogue, with dropout before each and ReLU between them."""

    def __init__(self, operator: str, features: int, classes: int, dropout: float) -> None:
        super().__init__()
        # Attention of the last layer has one head, as outputs are classes.
        first, last = (
            GRAPH.operators([operator, "gat(heads=1)"]) if operator == "gat" else GRAPH.operators([operator]) * 2
        )
        widths = (
            [(first, features, HIDDEN), (last, HIDDEN, classes)] if operator != "sgc" else [(last, features, classes)]
        )
        self.layers = nn.ModuleList(made(each, width, out) for each, width, out in widths)
        # Nothing is dropped where features are propagated before training.
        self.drop_features, self.drop = FeatureDropout(0.0 if operator == "sgc" else dropout), Dropout(dropout)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        graph = GraphBatch.of(edge_index, x)
        first, *others = self.layers
        x = first(self.drop_features(x, graph), graph)
        for layer in others:
            x = layer(self.drop(x.relu()), graph)
        return x


class Plain(nn.Module):
    """The same of PyTorch Geometric's layers; SGC keeps what it has propagated."""

    def __init__(self, operator: str, features: int, classes: int, dropout: float) -> None:
        super().__init__()
        from torch_geometric.nn import GATConv, GCNConv, SAGEConv, SGConv

        layers: dict[str, list[nn.Module]] = {
            "gcn": [GCNConv(features, HIDDEN), GCNConv(HIDDEN, classes)],
            "sage": [SAGEConv(features, HIDDEN), SAGEConv(HIDDEN, classes)],
            "gat": [GATConv(features, HIDDEN // 2, heads=2), GATConv(HIDDEN, classes)],
            "sgc": [SGConv(features, classes, K=2, cached=True)],
        }
        self.layers = nn.ModuleList(layers[operator])
        self.dropout = 0.0 if operator == "sgc" else dropout

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            x = x.relu() if number else x
            x = layer(functional.dropout(x, self.dropout, self.training), edge_index)
        return x


def trained(network: nn.Module, data: Data, plan: Recipe, seed: int, test: bool) -> float:
    """By the fit loop; the test accuracy of the weights that it keeps."""
    *_, last = fit(network, data, plan, device=torch.device("cpu"), seed=seed, test=test)
    return last.metrics.get("test_accuracy", 0.0)


def plainly_trained(network: nn.Module, data: Data, plan: Recipe, seed: int, test: bool) -> float:
    """By the loop of an example; the test accuracy at the best validation epoch."""
    torch.manual_seed(seed)
    parts = {part: next(iter(data.batches(part, 0, seed))) for part in ("train", "valid", "test")}
    x, carrier = parts["train"].inputs
    edges, target = carrier.as_tensor().clone(), parts["train"].target
    index = {part: batch.index for part, batch in parts.items()}
    optimizer = torch.optim.Adam(network.parameters(), plan.lr, weight_decay=plan.weight_decay)
    best, kept = -1.0, copy.deepcopy(network.state_dict())

    def accuracy(part: str) -> float:
        network.eval()
        with torch.no_grad():
            right = network(x, edges)[index[part]].argmax(1) == target[index[part]]
        return float(right.float().mean())

    for _ in range(plan.epochs):
        network.train()
        optimizer.zero_grad()
        functional.cross_entropy(network(x, edges)[index["train"]], target[index["train"]]).backward()
        optimizer.step()
        found = accuracy("valid")
        if test and found > best:
            best, kept = found, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return accuracy("test") if test else 0.0


SIDES: dict[str, tuple[type[nn.Module], Callable[[nn.Module, Data, Recipe, int, bool], float]]] = {
    "ours": (Ours, trained),
    "plain": (Plain, plainly_trained),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with planetoid_cora.npz")
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=OPERATORS)
    parser.add_argument("--epochs", type=int, default=50, help="of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, default=0, help="trainings in full, whose accuracies are compared")
    parser.add_argument("--out", type=Path, default=Path("graph_speed.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = load(f"graph:{arguments.data / 'planetoid_cora.npz'}?normalise=rows", Split())
    data, rows = source.bind("cpu"), Rows(arguments.out, FIELDS, NAMED)
    features, classes = source.task.input_shape[0], source.task.outputs

    def row(operator: str, side: str, measured: str, epochs: int, seed: int) -> dict[str, str]:
        settings = (operator, side, measured, epochs, arguments.dropout, seed)
        found = rows.get(*settings)
        if found is not None:
            return found
        (kind, train), test = SIDES[side], measured == "accuracy"
        plan = recipe(
            *("standard", source.task),
            epochs=epochs,
            lr=LR,
            weight_decay=DECAY,
            keep="best" if test else "last",
        )
        torch.manual_seed(seed)
        network = kind(operator, features, classes, arguments.dropout)
        begun = time.process_time()
        accuracy = train(network, data, plan, seed, test)
        spent = 1e3 * (time.process_time() - begun) / epochs
        values = dict(zip(FIELDS, settings, strict=False))
        return rows.write({**values, "cpu_ms_per_epoch": round(spent, 4), "test_accuracy": accuracy if test else ""})

    for operator in arguments.operators:
        spent: dict[str, list[float]] = {side: [] for side in SIDES}
        for turn in range(arguments.turns + 1):
            for side in SIDES:
                found = row(operator, side, "speed", arguments.epochs, turn)
                if turn > 0:  # the first one warms up
                    spent[side].append(float(found["cpu_ms_per_epoch"]))
        ratios = [plain / ours for ours, plain in zip(spent["ours"], spent["plain"], strict=True)]
        ours, plain = (statistics.median(spent[side]) for side in SIDES)
        spread = f"{min(ratios):.1f} to {max(ratios):.1f}"
        said = f"{operator}: {ours:.2f} ms of CPU an epoch, plainly {plain:.2f}: {plain / ours:.1f} times ({spread})"
        for side in SIDES if arguments.seeds else ():
            tested = [
                float(row(operator, side, "accuracy", 200, seed)["test_accuracy"]) for seed in range(arguments.seeds)
            ]
            deviation = statistics.stdev(tested) if len(tested) > 1 else 0.0
            said += f"; {side} {statistics.fmean(tested):.4f} ± {deviation:.4f}"
        print(said, flush=True)


if __name__ == "__main__":
    main()
