"""One-shot strategies on NAS-Bench-Graph: what they derive on Cora, looked up in the table, beside random search.

    python benchmarks/one_shot_graph.py --data ../shared/data [--methods darts,gdas,spos] [--seeds 5] [--hidden 64]

The supernet is trained on Cora's public split; an epoch is one step on the whole graph (for darts and gdas one of the
weights on the training nodes and one of the architecture on the validation nodes). `valid` and `test` are the recorded
accuracies, in percent, of what is derived. With spos that is the best of `--paths` random architectures by their
validation accuracy with the shared weights (batch normalisation recalibrated for each).

`n` is how many random architectures could have been trained by themselves in the seconds that the search took, at the
same width for `--train-epochs` epochs each, at the mean time of a few of them. `random` is the mean recorded test
accuracy of a random architecture; `best of n` the test accuracy of the one with the best recorded validation accuracy
of n, and `better` the share of random architectures whose recorded test accuracy is lower; both over 2,000 draws.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

import strategies
from nas_core import moves, refs
from nas_core.architecture import Architecture
from nas_core.batch import Data
from nas_core.config import validate
from nas_core.evaluation import Context
from nas_core.one_shot import Compute, OneShot
from nas_core.seeds import derive, generator
from nas_core.strategy import Proposal, Setting
from search_spaces.nasbench_graph.space import GraphSize, NasBenchGraph
from search_spaces.supernet.supernet import Supernet
from training.data import load
from training.evaluators.table import Table
from training.recalibration import recalibrate

SPACE = NasBenchGraph()
# An epoch is one step, so there are more of them, and larger steps, than on images; where one path is trained at a time
# an operation learns in one of nine. Chosen by the training loss, which after 400 epochs of paths is still above 1.
METHODS: Mapping[str, Mapping[str, Any]] = {
    "darts": {"epochs": 200, "lr": 0.1, "alpha_lr": 0.03},
    "gdas": {"epochs": 1500, "lr": 0.1, "alpha_lr": 0.03},
    "spos": {"epochs": 1500, "lr": 0.1},
}
DRAWS = 2000

Recorded = Callable[[Architecture], tuple[float, float]]


def table(folder: Path) -> Recorded:
    """Recorded validation and test accuracy on Cora, in percent."""
    rows = Table(SPACE, folder / "nasbench_graph.csv.gz", "cora")

    def recorded(arch: Architecture) -> tuple[float, float]:
        (report,) = rows.evaluate(Proposal(arch), None, Context(0, Path()))
        return 100 * report.metrics["val_accuracy"], 100 * report.metrics["test_accuracy"]

    return recorded


def search(method: str, data: Data, size: GraphSize, seed: int, arguments: argparse.Namespace) -> Architecture:
    """Train a supernet as the loop of a search does, without its records, and derive."""
    kind = refs.find(method, strategies.ONE_SHOT, strategies.GROUP, "strategy")
    given = {"epochs": arguments.epochs} if arguments.epochs else {}
    config = validate(kind.Config, {**METHODS[method], **given}, method)
    strategy: OneShot = kind(Setting(SPACE, seed, ()), config)

    def make() -> Supernet:
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, "supernet"))
            return Supernet(SPACE, data.task, size)

    torch.manual_seed(derive(seed, "start", "one-shot"))
    strategy.start(make, data, Compute())
    for epoch in range(config.epochs):
        torch.manual_seed(derive(seed, epoch, "one-shot"))
        progress = strategy.step(epoch)
        if arguments.verbose and (epoch + 1) % 20 == 0:
            numbers = ", ".join(f"{name} {value:.3f}" for name, value in progress.metrics.items())
            print(
                f"  {epoch + 1} {numbers} {'' if progress.arch is None else SPACE.to_text(progress.arch)}", flush=True
            )
        if progress.done:
            break
    found = strategy.result()
    if found:
        return found[0]
    assert isinstance(strategy.supernet, Supernet)
    return best_path(strategy.supernet, data, seed, arguments.paths)


def best_path(supernet: Supernet, data: Data, seed: int, count: int) -> Architecture:
    """The best of uniformly drawn architectures by their accuracy with the shared weights."""
    rng = generator(seed, "paths")
    paths = [moves.sample(SPACE, rng) for _ in range(count)]
    return max(paths, key=lambda arch: shared_accuracy(supernet, data, arch))


def shared_accuracy(supernet: Supernet, data: Data, arch: Architecture) -> float:
    network = supernet.extract(arch)
    recalibrate(network, lambda batch: network(*batch.inputs), data.batches("train", 0, 0))
    (batch,) = data.batches("valid", 0, 0)
    with torch.no_grad():
        sums = data.metrics(network(*batch.inputs), batch)
    return float(sums["accuracy"] / sums["count"])


def step_seconds(data: Data, size: GraphSize, archs: Sequence[Architecture]) -> float:
    """Mean time of one training step of these architectures by themselves."""
    (batch,) = data.batches("train", 0, 0)
    spent = []
    for arch in archs:
        network = SPACE.build(arch, data.task, size)
        optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            optimizer.zero_grad()
            data.loss(network(*batch.inputs), batch).backward()
            optimizer.step()
            times.append(time.perf_counter() - begun)
        spent.append(statistics.median(times))
    return statistics.mean(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="planetoid_cora.npz and nasbench_graph.csv.gz")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="instead of those of the method")
    parser.add_argument("--hidden", type=int, default=64, help="width of the supernet")
    parser.add_argument("--paths", type=int, default=200, help="architectures that spos tries on the supernet")
    parser.add_argument("--train-epochs", type=int, default=200, help="of a random architecture")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = load(f"graph:{arguments.data / 'planetoid_cora.npz'}").bind("cpu")
    size = GraphSize.preset("search", hidden=arguments.hidden)
    recorded = table(arguments.data)
    rng = generator("random architectures")
    pool = [moves.sample(SPACE, rng) for _ in range(DRAWS)]
    drawn = numpy.array([recorded(arch) for arch in pool])
    each = arguments.train_epochs * step_seconds(data, size, pool[:20])
    mean = drawn[:, 1].mean()
    print(f"random: valid {drawn[:, 0].mean():.2f}, test {mean:.2f}; trained by itself in {each:.1f} s")
    print(
        f"{'method':8}{'seed':>5}{'valid':>8}{'test':>8}{'better':>8}{'n':>5}{'best of n':>11}{'seconds':>9}  derived"
    )
    for method in arguments.methods.split(","):
        tests = []
        for seed in range(arguments.seeds):
            begun = time.perf_counter()
            arch = search(method, data, size, seed, arguments)
            seconds = time.perf_counter() - begun
            valid, test = recorded(arch)
            tests.append(test)
            n = max(1, round(seconds / each))
            picks = rng.integers(DRAWS, size=(DRAWS, n))
            best = drawn[picks[numpy.arange(DRAWS), drawn[picks, 0].argmax(1)], 1].mean()
            print(
                f"{method:8}{seed:5}{valid:8.2f}{test:8.2f}{(drawn[:, 1] < test).mean():8.1%}{n:5}{best:11.2f}"
                f"{seconds:9.1f}  {SPACE.to_text(arch)}",
                flush=True,
            )
        spread = f" +- {statistics.stdev(tests):.2f}" if len(tests) > 1 else ""
        print(f"{method}: test {statistics.mean(tests):.2f}{spread} over {len(tests)} seeds")


if __name__ == "__main__":
    main()
