"""The gradient that GDAS takes of its architecture parameters, beside that of the loss it means to lower.

    python benchmarks/gdas_alignment.py --data ../shared/data [--draws 400] [--samples 1500] [--out gdas_alignment.csv]

GDAS lowers the loss of architectures that it draws by softmax(alpha): the expected loss `E = sum_a p(a) L(a)` of one
batch, whose derivative in logit j of a group is `p_j (E[L | j] - E)`. It is estimated from `--samples` drawn
architectures, without any relaxation. The estimate of GDAS is the mean of its gradient over `--draws` draws, with the
entries of candidates that are not drawn as part of the loss (as published) and without (`scalars=false`), at three
temperatures. Per group: the cosine of the two, and the length of the estimate over that of the derivative. `noise` is
the cosine of two halves of the samples: what no estimate can exceed by much.

The supernets (NASBench-201, C=8, N=1, on Fashion-MNIST at 16x16; NAS-Bench-Graph, 64 wide, on Cora) have trained their
weights by uniform paths for `--epochs` epochs, and logits are drawn with a deviation of `--std`, so that the derivative
is not that of a flat softmax alone. A row of the csv is not measured again.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from one_shot import SIZE, SPACE, small_images
from torch import Tensor

from nas_core.batch import Batch, Data
from nas_core.one_shot import Compute
from nas_core.relax import Mix
from nas_core.strategy import Setting
from search_spaces.nasbench_graph.space import GraphSize, NasBenchGraph
from search_spaces.supernet.supernet import Supernet
from strategies.one_shot.gdas import draw, hard_mix, only
from strategies.one_shot.spos import Spos
from strategies.one_shot.weights import SharedWeights
from training.data import load
from training.data.loading import Loading
from training.data.split import Split

FIELDS = ("problem", "seed", "tau", "scalars", "group", "cosine", "length", "noise")
TEMPERATURES = (10.0, 1.0, 0.1)
Vectors = Mapping[str, Tensor]


def trained(space: Any, size: Any, data: Data, seed: int, epochs: int, lr: float) -> SharedWeights:
    """A supernet whose weights have been trained by uniform paths."""
    strategy = Spos(Setting(space, seed, ()), Spos.Config(epochs=epochs, lr=lr))
    torch.manual_seed(seed)
    strategy.start(lambda: Supernet(space, data.task, size), data, Compute())
    for epoch in range(epochs):
        strategy.step(epoch)
    return strategy.weights


def derivative(weights: SharedWeights, batch: Batch, alphas: Vectors, samples: int) -> tuple[Vectors, Vectors]:
    """The derivative of the expected loss in the logits, from each half of the samples."""
    halves = []
    for _ in range(2):
        losses, drawn = [], []
        with torch.no_grad():
            for _ in range(samples // 2):
                path = {name: int(torch.multinomial(alpha.softmax(0), 1)) for name, alpha in alphas.items()}
                losses.append(weights.loss(batch, Mix(only(path))))
                drawn.append(path)
        loss = torch.stack(losses)
        half = {}
        for name, alpha in alphas.items():
            p = alpha.detach().softmax(0)
            taken = torch.tensor([path[name] for path in drawn])
            means = torch.stack([loss[taken == j].mean() if (taken == j).any() else loss.mean() for j in range(len(p))])
            half[name] = p * (means - (p * means).sum())
        halves.append(half)
    return halves[0], halves[1]


def estimate(weights: SharedWeights, batch: Batch, alphas: Vectors, tau: float, scalars: bool, draws: int) -> Vectors:
    """The mean gradient of GDAS over draws."""
    total = {name: torch.zeros_like(alpha) for name, alpha in alphas.items()}
    with weights.frozen():
        for _ in range(draws):
            hard, path = draw(alphas, tau)
            mix = hard_mix(hard, path) if scalars else Mix(only(path), hard)
            loss = weights.loss(batch, mix)
            if not loss.requires_grad:
                continue
            gradients = torch.autograd.grad(loss, list(alphas.values()), allow_unused=True)
            for name, gradient in zip(alphas, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient / draws
    return total


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


def measure(problem: str, seed: int, weights: SharedWeights, batch: Batch, arguments: argparse.Namespace) -> list[Any]:
    torch.manual_seed(seed)
    weights.supernet.train()
    alphas = {
        name: (arguments.std * torch.randn(len(group.options))).requires_grad_()
        for name, group in weights.supernet.groups.items()
    }
    first, second = derivative(weights, batch, alphas, arguments.samples)
    rows = []
    for scalars in (True, False):
        for tau in TEMPERATURES:
            found = estimate(weights, batch, alphas, tau, scalars, arguments.draws)
            for name in alphas:
                whole = (first[name] + second[name]) / 2
                length = float(found[name].norm() / whole.norm())
                noise = cosine(first[name], second[name])
                rows.append((problem, seed, tau, scalars, name, cosine(found[name], whole), length, noise))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with fashion-mnist and planetoid_cora.npz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--std", type=float, default=0.5, help="standard deviation of the logits")
    parser.add_argument(
        "--epochs", type=int, default=2, help="of images; a graph, whose epoch is a step, has 100 times"
    )
    parser.add_argument("--images", type=int, default=8_000)
    parser.add_argument("--out", type=Path, default=Path("gdas_alignment.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with arguments.out.open("a+", newline="") as file:
        file.seek(0)
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
        done = {(row[0], int(row[1])) for row in rows}
        writer = csv.writer(file)
        if not rows:
            writer.writerow(FIELDS)
        with tempfile.TemporaryDirectory() as folder:
            small = Path(folder) / "fashion16.npz"
            small_images(arguments.data / "fashion-mnist", small)
            images = load(f"npz:{small}", Split(limit=arguments.images)).bind(
                "cpu", Loading(batch_size=64, channels_last=True)
            )
            graph = load(f"graph:{arguments.data / 'planetoid_cora.npz'}").bind("cpu")
            problems = {
                "nasbench201": (SPACE, SIZE, images, arguments.epochs, 0.03),
                "nasbench_graph": (
                    NasBenchGraph(),
                    GraphSize.preset("search", hidden=64),
                    graph,
                    100 * arguments.epochs,
                    0.1,
                ),
            }
            for seed in range(arguments.seeds):
                for problem, (space, size, data, epochs, lr) in problems.items():
                    if (problem, seed) in done:
                        continue
                    weights = trained(space, size, data, seed, epochs, lr)
                    batch = next(data.batches("alphas", 0, seed))
                    found = measure(problem, seed, weights, batch, arguments)
                    writer.writerows(found)
                    file.flush()
                    rows += [tuple(map(str, row)) for row in found]
    print(f"{'problem':16}{'scalars':9}{'tau':>6}  {'group':14}{'cosine':>8}{'length':>10}{'noise':>7}")
    for key in dict.fromkeys((row[0], row[3], row[2], row[4]) for row in rows):
        same = [row for row in rows if (row[0], row[3], row[2], row[4]) == key]
        middle = [sum(float(row[column]) for row in same) / len(same) for column in (5, 6, 7)]
        problem, scalars, tau, group = key
        print(
            f"{problem:16}{'yes' if scalars == 'True' else 'no':9}{tau:>6}  {group:14}"
            f"{middle[0]:8.2f}{middle[1]:10.2f}{middle[2]:7.2f}"
        )


if __name__ == "__main__":
    main()
