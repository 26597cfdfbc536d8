"""Do experts pay on real data? Dense networks, networks of equal total parameters and of experts, paired by seed.

    python benchmarks/experts_data.py shakespeare --data ../shared/data --seeds 3 --out experts_data.csv

A part is a data set with a space, a recipe and architectures by name, `dense` and `dense-total` among them; a new one
is a function that is listed in `PARTS`. Every training is a row of the file; a row that is there is not made again. At
the end the differences from both dense networks of the same seed, with the standard error of their mean.

shakespeare: tiny Shakespeare by characters in windows of 64, split by position, 1,000 steps of 12 windows, each of
which is seen once; causal transformers `moe(backbone=text)` of four blocks and 64 features; the loss in nats per
character of the test part.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rows import Rows

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.seeds import derive
from search_spaces.counter import active_params, params
from search_spaces.moe import Moe, Size
from training.data import load
from training.data.loading import Loading
from training.data.protocol import Source
from training.data.split import Split
from training.fit import fit
from training.networks import build
from training.recipe import Recipe, recipe

FIELDS = ("part", "network", "seed", "steps", "params", "active_params", "metric", "valid", "test", "seconds")
DENSE = ("dense", "dense-total")


@dataclass(frozen=True)
class Part:
    """What is trained on what. `metric` is that of both parts of the data which are reported, less is better where
    `less`."""

    source: Source
    space: Moe
    size: Size
    plan: Recipe
    networks: Mapping[str, Architecture]
    metric: str
    less: bool = True


def shakespeare(arguments: argparse.Namespace) -> Part:
    """As many windows as the steps read, each once."""
    batch, reference = 12, f"text:{arguments.data / 'tinyshakespeare.txt.gz'}?window=64"
    sizes, windows = load(reference).sizes, arguments.steps * batch
    limit = round(windows * (sizes["train"] + sizes["valid"]) / sizes["train"])
    source, space = load(reference, Split(limit=limit)), Moe("text")
    plan = recipe("quick", source.task, epochs=1, batch_size=batch, schedule="constant")
    networks = {name: space.named[name] for name in (*DENSE, "sparsely-gated")}
    networks["loss-free"] = instead(space, "sparsely-gated", "loss-free")
    return Part(source, space, Size(width=arguments.width), plan, networks, "loss")


PARTS: Mapping[str, Callable[[argparse.Namespace], Part]] = {"shakespeare": shakespeare}


def instead(space: Moe, layout: str, router: str) -> Architecture:
    """A known layout with another router, whose options are the first ones."""
    values = space.named[layout].values
    kept = {name: value for name, value in values.items() if not name.startswith(f"{values['ffn']}/")}
    return moves.complete(space, {**kept, "ffn": router}, moves.first)


def trained(part: Part, name: str, seed: int) -> dict[str, Any]:
    """A row of the file."""
    model = build(part.space, part.networks[name], part.source.task, part.size, derive(seed, name))
    data = part.source.bind("cpu", Loading(batch_size=part.plan.batch_size))
    steps = part.plan.epochs * sum(1 for _ in data.batches("train", 0, seed))
    row = {
        "network": name,
        "seed": seed,
        "steps": steps,
        "params": params(model),
        "active_params": active_params(model),
    }
    begun = time.process_time()
    *_, last = fit(model, data, part.plan, device=torch.device("cpu"), seed=seed, test=True)
    found = {word: last.metrics[f"{prefix}_{part.metric}"] for word, prefix in (("valid", "val"), ("test", "test"))}
    return {**row, **found, "metric": part.metric, "seconds": round(time.process_time() - begun, 1)}


def report(part: Part, name: str, rows: Rows, seeds: int) -> None:
    """The mean of each network, and its differences from the dense ones, over the seeds that are there for both."""
    test = {(row["network"], int(row["seed"])): float(row["test"]) for row in rows if row["part"] == name}
    word = "less is better" if part.less else "more is better"
    print(f"\n{name}: {part.metric} of the test part, {word}")
    for network in part.networks:
        values = [test[network, seed] for seed in range(seeds) if (network, seed) in test]
        line = f"{network}: {statistics.fmean(values):.4f}"
        for other in DENSE:
            gains = [
                test[network, seed] - test[other, seed]
                for seed in range(seeds)
                if {(network, seed), (other, seed)} <= test.keys()
            ]
            if network != other and len(gains) > 1:
                error = statistics.stdev(gains) / len(gains) ** 0.5
                line += f"; {statistics.fmean(gains):+.4f} +- {error:.4f} against {other}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=tuple(PARTS))
    parser.add_argument("--data", type=Path, required=True, help="folder with tinyshakespeare.txt.gz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--width", type=int, default=64, help="features of a token")
    parser.add_argument("--out", type=Path, default=Path("experts_data.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    part, rows = PARTS[arguments.part](arguments), Rows(arguments.out, FIELDS, named=3)
    for seed in range(arguments.seeds):
        for name in part.networks:
            if not rows.get(arguments.part, name, seed):
                print(rows.write({"part": arguments.part, **trained(part, name, seed)}), flush=True)
    report(part, arguments.part, rows, arguments.seeds)


if __name__ == "__main__":
    main()
