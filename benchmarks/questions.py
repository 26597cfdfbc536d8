"""Key-value retrieval: a dense transformer and one with Switch experts in every second block, at equal steps.

    python benchmarks/questions.py --pairs 64 --seeds 3 --folder questions --out questions.csv

Both are `moe(backbone=text)` of three blocks with 64 features and layers of 128, the second block with four Switch
experts of that size or not. They are trained on passages of 2, 4, 8, ... pairs up to `--pairs`, each stage from the
weights of the one before, for so many epochs each (125 steps of 64 passages at the default size): a key is learned to
be found among few, where a step costs a twentieth. Exact match and F1 of the test part, of keys that are in training
and of keys of other domains. A training is a row of the file, which is not made again; one that was interrupted goes on
from its last epoch (`--folder`).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rows import Rows

from nas_core import moves
from nas_core.architecture import Value
from nas_core.seeds import derive
from search_spaces.counter import active_params, params
from search_spaces.moe import Moe, Size
from training.data import load
from training.data.loading import Loading
from training.data.protocol import Source
from training.fit import Training, fit
from training.networks import build
from training.recipe import recipe

FIELDS = (
    *("network", "pairs", "seed", "steps", "params", "active_params"),
    *("exact_match", "f1", "unseen_exact_match", "unseen_f1", "seconds"),
)
LAYERS: Mapping[str, Value] = {"depth": 3, "expansion": 2.0}
EXPERTS = {
    "ffn": "switch",
    "switch/balance": 0.01,
    "experts": 4,
    "block1/ffn": "dense",
    "block2/ffn": "experts",
    "block3/ffn": "dense",
}
NETWORKS: Mapping[str, Mapping[str, Value]] = {"dense": {"ffn": "dense"}, "switch": EXPERTS}
DEVICE = torch.device("cpu")


def source_of(pairs: int, samples: int, keys: str = "seen") -> Source:
    return load(f"questions?pairs={pairs}&samples={samples}&keys={keys}")


def stages(pairs: int) -> Sequence[int]:
    """2, 4, 8, ... up to so many."""
    return [*(2**power for power in range(1, pairs.bit_length()) if 2**power < pairs), pairs]


def trained(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """A row of the file."""
    space, steps, begun, weights = Moe("text"), 0, time.process_time(), None
    arch = moves.complete(space, {**LAYERS, **NETWORKS[name]}, moves.first)
    for pairs, epochs in zip(stages(arguments.pairs), arguments.epochs, strict=True):
        source = source_of(pairs, arguments.samples)
        model = build(space, arch, source.task, Size(width=64), derive(seed, name))
        if weights is not None:
            model.load_state_dict(weights)
        plan = recipe("quick", source.task, epochs=epochs, lr=0.002)
        data, folder = (
            source.bind(DEVICE, Loading(batch_size=plan.batch_size)),
            arguments.folder / f"{name}-{seed}-{pairs}",
        )
        folder.mkdir(parents=True, exist_ok=True)
        # A budget below the recipe's epochs leaves a checkpoint, so that a stage that is over is not trained again.
        longer = plan.model_copy(update={"epochs": plan.epochs + 1})
        for report in fit(model, data, longer, device=DEVICE, seed=seed, budget=plan.epochs, folder=folder):
            print(f"{name}, seed {seed}, {pairs} pairs, epoch {report.step}: {report.metrics}", flush=True)
        weights = model.state_dict()
        steps += plan.epochs * sum(1 for _ in data.batches("train", 0, seed))
    found: dict[str, Any] = {}
    for keys, prefix in (("seen", ""), ("unseen", "unseen_")):
        data = source_of(arguments.pairs, arguments.samples, keys).bind(DEVICE, Loading(batch_size=plan.batch_size))
        measured = Training(model, data, plan, DEVICE, 0, None).evaluate("test")
        found |= {f"{prefix}{metric}": measured[f"test_{metric}"] for metric in ("exact_match", "f1")}
    counts = {"params": params(model), "active_params": active_params(model), "steps": steps}
    seconds = round(time.process_time() - begun, 1)
    return {"network": name, "pairs": arguments.pairs, "seed": seed, **counts, **found, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, nargs="+", default=[5, 10, 4, 2, 1, 1], help="of each stage")
    parser.add_argument("--samples", type=int, default=10_000, help="of all parts, of every stage")
    parser.add_argument("--folder", type=Path, default=Path("questions"), help="where checkpoints are")
    parser.add_argument("--out", type=Path, default=Path("questions.csv"))
    arguments = parser.parse_args()
    if len(arguments.epochs) != len(stages(arguments.pairs)):
        parser.error(f"{len(arguments.epochs)} epochs for the stages {stages(arguments.pairs)}: give one for each")
    torch.set_num_threads(1)
    rows = Rows(arguments.out, FIELDS, named=3)
    for seed in range(arguments.seeds):
        for name in NETWORKS:
            if not rows.get(name, arguments.pairs, seed):
                print(rows.write(trained(name, seed, arguments)), flush=True)
    for metric in ("exact_match", "f1", "unseen_exact_match", "unseen_f1"):
        values = {
            (row["network"], int(row["seed"])): float(row[metric])
            for row in rows
            if row["pairs"] == str(arguments.pairs) and int(row["seed"]) < arguments.seeds
        }
        every = {name: [values[name, seed] for seed in range(arguments.seeds)] for name in NETWORKS}
        gains = [switch - dense for dense, switch in zip(*every.values(), strict=True)]
        shown = ", ".join(f"{name} {statistics.fmean(found):.4f}" for name, found in every.items())
        error = f" +- {statistics.stdev(gains) / len(gains) ** 0.5:.4f}" if len(gains) > 1 else ""
        print(f"{metric}: {shown}; switch - dense {statistics.fmean(gains):+.4f}{error}")


if __name__ == "__main__":
    main()
