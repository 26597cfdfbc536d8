"""One-shot strategies on NAS-Bench-201: what they derive from a small supernet, looked up in the table.

    python benchmarks/one_shot.py --data ../shared/data [--methods darts,dropnas] [--seeds 5] [--out runs.jsonl]

The supernet has C=8, N=1 and is trained on Fashion-MNIST at 16x16 pixels (padded to 32, means of 2x2). Per method and
seed: the CIFAR-10 test accuracy of the derived cell (recorded, 200 epochs), the share of its operations that have no
parameters, and its parameters at C=16, N=5. `random` trains random cells from scratch, each for a few epochs, until
they have cost as many multiply-accumulates as the images that a first-order DARTS run has passed through the supernet,
and takes the one with the best validation accuracy. Runs are appended to `--out`, and not repeated.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch

import strategies
from nas_core import moves, refs
from nas_core.architecture import Architecture
from nas_core.config import validate
from nas_core.evaluation import Constraint, Context
from nas_core.one_shot import Compute
from nas_core.seeds import derive, generator
from nas_core.strategy import Proposal, Setting
from nas_core.task import IMAGE_CLASSIFICATION, Task
from search_spaces.nasbench201.space import NONE, OPERATIONS, POOL, SKIP, NasBench201, Size
from search_spaces.supernet.supernet import Supernet
from training.checkpoint import write_tensors
from training.data import load
from training.data.augment import Augment
from training.data.loading import Loading
from training.data.split import Split

SPACE = NasBench201()
SIZE = Size(channels=8, cells=1)
FULL, CIFAR = Size(channels=16, cells=5), Task(kind=IMAGE_CLASSIFICATION, input_shape=(3, 32, 32), outputs=10)
FAST = {"alpha_lr": 3e-3}  # ten times the published rate: a minute of training instead of a day
METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "darts": ("darts", FAST),
    "darts-2": ("darts", {**FAST, "order": 2}),
    "single-level": ("darts", {**FAST, "bilevel": False}),
    "gdas": ("gdas", FAST),
    "gdas-drawn": ("gdas", {**FAST, "scalars": False}),
    "drnas": ("drnas", FAST),
    "dropnas": ("dropnas", FAST),
    "rc-darts": ("rc-darts", FAST),
    "enas": ("enas", {"batch_size": 160}),
    "spos": ("spos", {}),
}
RANDOM_EPOCHS = 3


def small_images(folder: Path, target: Path) -> None:
    """Fashion-MNIST at 16x16 as an npz file."""
    arrays = {}
    for prefix, name in (("", "train"), ("test_", "t10k")):
        with gzip.open(folder / f"{name}-images-idx3-ubyte.gz") as file:
            images = numpy.frombuffer(file.read(), numpy.uint8, offset=16).reshape(-1, 28, 28)
        with gzip.open(folder / f"{name}-labels-idx1-ubyte.gz") as file:
            labels = numpy.frombuffer(file.read(), numpy.uint8, offset=8)
        padded = numpy.pad(images, ((0, 0), (2, 2), (2, 2))).astype(numpy.float32)
        small = padded.reshape(-1, 16, 2, 16, 2).mean((2, 4)).round().astype(numpy.uint8)
        arrays |= {f"{prefix}images": small[:, None], f"{prefix}labels": labels.astype(numpy.int64)}
    numpy.savez(target, **arrays)


def steps(strategy: Any, source: Any, config: Any, seed: int) -> Iterator[Any]:
    """Train a supernet as the loop of a search does, without its records."""
    compute = Compute("cpu", "float32")
    data = source.bind(
        "cpu",
        Loading(batch_size=config.batch_size, augment=Augment(crop=config.crop, flip=config.flip), channels_last=True),
    )

    def make() -> Supernet:
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, "supernet"))
            return Supernet(SPACE, source.task, SIZE)

    def seeded(purpose: int | str, work: Callable[[], Any]) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, purpose, "one-shot"))
            return work()

    seeded("start", lambda: strategy.start(make, data, compute))
    for epoch in range(config.epochs):
        progress = seeded(epoch, lambda epoch=epoch: strategy.step(epoch))
        yield progress
        if progress.done:
            return


def one_shot(method: str, seed: int, source: Any, arguments: argparse.Namespace) -> Mapping[str, Architecture]:
    """What the method derives; where it has a rule for `none`, also what it would derive with the other one."""
    reference, settings = METHODS[method]
    kind = refs.find(reference, strategies.ONE_SHOT, strategies.GROUP, "strategy")
    config = validate(kind.Config, {"batch_size": 64, **settings, "epochs": arguments.epochs}, method)
    lower, upper = (float(bound) for bound in arguments.bounds.split(","))
    band = (Constraint("params", ">=", lower), Constraint("params", "<=", upper))
    constraints = band if method == "rc-darts" else ()
    strategy = kind(Setting(SPACE, seed, (), constraints), config)
    for progress in steps(strategy, source, config, seed):
        if arguments.verbose:
            print(method, seed, {name: round(value, 4) for name, value in progress.metrics.items()}, progress.arch)
    result = strategy.result()
    if not result:
        return {method: best_path(strategy.supernet, source, seed, arguments.paths)}
    if not hasattr(config, "none"):
        return {method: result[0]}
    other = strategy.supernet.derive(strategy.alphas.softmax(), none=not config.none)
    return {method: result[0], f"{method}, {'without' if config.none else 'with'} none": other}


def best_path(supernet: Supernet, source: Any, seed: int, count: int) -> Architecture:
    """The best of uniformly drawn architectures by their accuracy with the shared weights."""
    from training.evaluators.supernet import SupernetEvaluator

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        write_tensors(weights, supernet.state_dict())
        evaluator = SupernetEvaluator(
            SPACE, source, SIZE, weights, device="cpu", threads=torch.get_num_threads(), precision="float32"
        )
        rng = generator(seed, "paths")
        scored = []
        for _ in range(count):
            arch = moves.sample(SPACE, rng)
            (report,) = evaluator.evaluate(Proposal(arch), None, Context(seed, Path(folder)))
            scored.append((report.metrics["supernet_accuracy"], arch))
    return max(scored, key=lambda pair: pair[0])[1]


def random_search(seed: int, source: Any, arguments: argparse.Namespace) -> Mapping[str, Architecture]:
    """As many short trainings as the passes of a first-order DARTS run cost."""
    from training.evaluators.train import Train
    from training.recipe import recipe

    costs = Supernet(SPACE, source.task, SIZE).costs("macs")
    whole = costs.fixed + sum(float(values.sum()) for values in costs.operations.values())
    left = whole * arguments.epochs  # per training image
    plan = recipe("quick", source.task, epochs=RANDOM_EPOCHS, batch_size=64)
    evaluator = Train(SPACE, source, SIZE, plan, device="cpu", threads=torch.get_num_threads())
    rng, scored = generator(seed, "random"), []
    while left > 0:
        arch = moves.sample(SPACE, rng)
        left -= RANDOM_EPOCHS * SPACE.costs(arch, source.task, SIZE)["macs"]
        with tempfile.TemporaryDirectory() as folder:
            *_, last = evaluator.evaluate(Proposal(arch), None, Context(derive(seed, len(scored)), Path(folder)))
        scored.append((last.metrics["val_accuracy"], arch))
    print(f"random, seed {seed}: {len(scored)} cells trained for {RANDOM_EPOCHS} epochs")
    return {"random": max(scored, key=lambda pair: pair[0])[1]}


@cache
def table(data: Path) -> dict[str, float]:
    with gzip.open(data / "nb201.csv.gz", "rt") as file:
        return {row["arch"]: float(row["c10_test"]) for row in csv.DictReader(file)}


def record(method: str, seed: int, arch: Architecture, seconds: float, data: Path) -> dict[str, Any]:
    simple = sum(value in (NONE, SKIP, POOL) for value in arch.values.values())
    return {
        "method": method,
        "seed": seed,
        "test": table(data)[SPACE.to_text(arch)],
        "parameter_free": simple / len(arch.values),
        "params": SPACE.costs(arch, CIFAR, FULL)["params"],
        "ops": "".join(str(OPERATIONS.index(str(value))) for value in arch.values.values()),
        "seconds": seconds,
    }


def interval(values: list[float]) -> float:
    """Half the width of the 95% interval of the mean (Student)."""
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def show(runs: list[dict[str, Any]]) -> None:
    print(f"{'method':<26} seeds  test mean    std    min    max  parameter-free  params (M)")
    by_method: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        by_method.setdefault(run["method"], {})[run["seed"]] = run
    for method, found in by_method.items():
        tests = [run["test"] for run in found.values()]
        std = statistics.stdev(tests) if len(tests) > 1 else math.nan
        free = statistics.fmean(run["parameter_free"] for run in found.values())
        params = statistics.fmean(run["params"] for run in found.values()) / 1e6
        print(
            f"{method:<26} {len(tests):>5}  {statistics.fmean(tests):>9.2f} {std:>6.2f} {min(tests):>6.2f} "
            f"{max(tests):>6.2f}  {free:>14.2f}  {params:>10.3f}"
        )
    for one, other in (
        ("dropnas", "single-level"),
        ("dropnas", "single-level, without none"),
        ("dropnas, with none", "single-level"),
    ):
        first, second = by_method.get(one, {}), by_method.get(other, {})
        gaps = [first[seed]["test"] - second[seed]["test"] for seed in sorted(first.keys() & second.keys())]
        if len(gaps) > 1:
            print(f"{one} - {other}: {statistics.fmean(gaps):+.2f} ± {interval(gaps):.2f} ({len(gaps)} seeds)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with fashion-mnist and nb201.csv.gz")
    parser.add_argument("--methods", default=",".join([*METHODS, "random"]))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--images", type=int, default=16_000, help="for training and validation, 9 to 1")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--bounds", default="45000,60000", help="of rc-darts: parameters at C=8, N=1")
    parser.add_argument("--paths", type=int, default=100, help="of spos: paths that are compared")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("one_shot.jsonl"))
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    done = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "fashion16.npz"
        small_images(arguments.data / "fashion-mnist", small)
        source = load(f"npz:{small}", Split(limit=arguments.images))
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            for method in arguments.methods.split(","):
                if any(run["method"] == method and run["seed"] == seed for run in done):
                    continue
                begun = time.perf_counter()
                search = random_search if method == "random" else lambda *rest, m=method: one_shot(m, *rest)
                found = search(seed, source, arguments)
                seconds = time.perf_counter() - begun
                rows = [record(label, seed, arch, seconds, arguments.data) for label, arch in found.items()]
                with arguments.out.open("a") as file:
                    file.writelines(json.dumps(row) + "\n" for row in rows)
                print(*rows, sep="\n", flush=True)
                done += rows
    show(done)


if __name__ == "__main__":
    main()
