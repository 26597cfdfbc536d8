"""Fashion-MNIST: recovery of a pruned network with adapters beside the training of all weights, paired by seed.

    python benchmarks/compression_adapters.py --data ../shared/data/fashion-mnist --folder structured --out adapters.csv

The AE-CNN of `compression_structured.py` is pruned once per seed, by magnitude to half of its MACs, with the statistics
of batch normalisations made anew. Then it is trained for as many epochs each way, at three rates: `all` weights,
`vectors` (biases and normalisations alone, which adapters train too), and adapters of several ranks. The best rate is
that with the best validation accuracy. Every training is a row of the file; a row that is there is not made again.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from compressed import CPU, Problem, compressed, method
from rows import Rows
from torch import nn

from training.adapter import share, vectors
from training.fit import fit

FIELDS = ("way", "seed", "rate", "share", "before", "val_accuracy", "test_accuracy", "seconds")
RATES = (0.002, 0.005, 0.02)
RANKS = (2, 4, 16)
WAYS = ("all", "vectors", *(f"rank {rank}" for rank in RANKS))
TARGET = "macs<=0.5x"


def trained(problem: Problem, pruned: nn.Module, way: str, seed: int, rate: float) -> dict[str, Any]:
    """What a row says of one training of a pruned network."""
    network, begun = copy.deepcopy(pruned), time.process_time()
    assert problem.tuning is not None
    plan, trained = problem.tuning.model_copy(update={"lr": rate}), 1.0
    if way == "vectors":
        kept = {id(one) for one in vectors(network)}
        for one in network.parameters():
            one.requires_grad_(id(one) in kept)
        trained = sum(one.numel() for one in vectors(network)) / sum(one.numel() for one in network.parameters())
    elif way != "all":
        rank = int(way.removeprefix("rank "))
        trained = share(network, rank)
        plan = type(plan).model_validate({**plan.model_dump(), "adapters": {"rank": rank}})
    *_, last = fit(network, problem.data, plan, device=CPU, seed=seed, test=True)
    found = {name: last.metrics[name] for name in ("val_accuracy", "test_accuracy")}
    return {"share": round(trained, 4), "seconds": round(time.process_time() - begun, 1), **found}


def best(rows: list[Mapping[str, str]]) -> Mapping[str, str]:
    return max(rows, key=lambda row: float(row["val_accuracy"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--folder", type=Path, default=Path("structured"), help="where the dense weights are")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8, help="of the dense network, where it is not there")
    parser.add_argument("--tune", type=int, default=3, help="epochs after the pruning")
    parser.add_argument("--limit", type=int, default=12_000)
    parser.add_argument("--out", type=Path, default=Path("adapters.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    problem = Problem(arguments.data, arguments.folder, arguments.limit, arguments.epochs, arguments.tune)
    rows = Rows(arguments.out, FIELDS, named=3)
    for seed in range(arguments.seeds):
        if all(rows.get(way, seed, rate) for way in WAYS for rate in RATES):
            continue
        network = problem.network(seed)
        pruned = compressed(problem, network, method("magnitude", problem.subject(network, seed, {}, TARGET)), seed)
        for way in WAYS:
            for rate in RATES:
                if rows.get(way, seed, rate):
                    continue
                found = trained(problem, pruned.network, way, seed, rate)
                print(
                    rows.write({"way": way, "seed": seed, "rate": rate, "before": pruned.before, **found}), flush=True
                )
    for way in WAYS:
        of = [row for row in rows if row["way"] == way]
        chosen = [best([row for row in of if row["seed"] == seed]) for seed in dict.fromkeys(row["seed"] for row in of)]
        test = [100 * float(row["test_accuracy"]) for row in chosen]
        spread = f" ± {statistics.stdev(test):.2f}" if len(test) > 1 else ""
        print(f"{way:>8}: {100 * float(chosen[0]['share']):.1f}% trained, test {statistics.fmean(test):.2f}{spread}")


if __name__ == "__main__":
    main()
