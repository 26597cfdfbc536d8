"""Experts chosen by the task, beside a dense student that is distilled from them, of the size of one task's network.

    python benchmarks/task_experts.py --folder task_experts --out task_experts.csv

Digits with three tasks (`tasks:digits`): the layout `task-moe` of `moe(backbone=tasks)`, two of 32 experts in every
second block, of which the network of one task (`nas export --part task=NAME`) holds two; and `dense`, which has about
as many parameters as that, alone and taught by the experts of the same seed (`recipe.distillation`: alpha 0.9,
temperature 4). Width 16, 24 epochs of batches of 64, AdamW at 0.003, three seeds: about five minutes of one core. The
mean of the tasks' accuracies on the test part, and that of each task; differences are paired by seed, with the standard
error of their mean. Every training is a row of the file, experts are in `--folder`; what is there is not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rows import Rows

from nas_core.architecture import Architecture
from nas_core.seeds import derive
from search_spaces.counter import params
from search_spaces.moe import Moe, Size
from training.checkpoint import write_tensors
from training.data import load
from training.data.loading import Loading
from training.fit import fit
from training.networks import build, load_trained
from training.recipe import recipe
from training.teacher import Teacher

EXPERTS, ALONE, TAUGHT = "task-moe", "dense, alone", "dense, taught"
TASKS = ("digit", "parity", "at_least_five")
FIELDS = ("network", "seed", "params", "of_one_task", "accuracy", *TASKS, "seconds")
SOURCE, SPACE, SIZE = load("tasks:digits"), Moe("tasks"), Size(width=16)
RECIPE = {"batch_size": 64, "optimizer": "adamw", "nesterov": False, "lr": 0.003}


def arch_of(network: str) -> Architecture:
    return SPACE.named[EXPERTS if network == EXPERTS else "dense"]


def trained(network: str, seed: int, epochs: int, folder: Path) -> dict[str, Any]:
    """A row of the file; the weights of experts are left in the folder, from where the student of their seed has
    them."""
    weights = folder / f"experts-{seed}.safetensors"
    taught = {"distillation": {}} if network == TAUGHT else {}
    plan = recipe("quick", SOURCE.task, epochs=epochs, **RECIPE, **taught)
    model = build(
        SPACE, arch_of(network), SOURCE.task, SIZE, derive(seed, "student" if network != EXPERTS else EXPERTS)
    )
    data = SOURCE.bind("cpu", Loading(batch_size=plan.batch_size))
    begun = time.process_time()
    teacher = teacher_of(weights) if taught else None
    *_, last = fit(model, data, plan, device=torch.device("cpu"), seed=seed, test=True, teacher=teacher)
    if network == EXPERTS:
        write_tensors(weights, model.state_dict())
    return {
        "network": network,
        "seed": seed,
        "params": params(model),
        "of_one_task": params(SPACE.task_network(model, arch_of(network), 0)),
        "accuracy": last.metrics["test_accuracy"],
        **{task: last.metrics[f"test_accuracy.{task}"] for task in TASKS},
        "seconds": round(time.process_time() - begun, 1),
    }


def teacher_of(weights: Path) -> Teacher:
    network = partial(load_trained, SPACE, arch_of(EXPERTS), SOURCE.task, SIZE, weights)
    return Teacher(EXPERTS, hashlib.sha256(weights.read_bytes()).hexdigest(), SOURCE.task, None, network)


def report(rows: Rows, seeds: int) -> None:
    print("| network | parameters | of one task | accuracy | to dense alone |", " | ".join(TASKS), "|")
    print("|---" * (5 + len(TASKS)) + "|")
    for network in (EXPERTS, ALONE, TAUGHT):
        own, alone = ([rows.get(name, seed) for seed in range(seeds)] for name in (network, ALONE))
        made = [(row, other) for row, other in zip(own, alone, strict=True) if row is not None and other is not None]
        if not made:
            continue
        means = [f"{statistics.fmean(float(row[name]) for row, _ in made):.4f}" for name in ("accuracy", *TASKS)]
        gains = [float(row["accuracy"]) - float(other["accuracy"]) for row, other in made]
        error = f" +- {statistics.stdev(gains) / len(gains) ** 0.5:.4f}" if len(gains) > 1 else ""
        gain = "" if network == ALONE else f"{statistics.fmean(gains):+.4f}{error}"
        first = made[0][0]
        print("|", " | ".join([network, first["params"], first["of_one_task"], means[0], gain, *means[1:]]), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("task_experts"), help="where experts are left")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path("task_experts.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows = Rows(arguments.out, FIELDS, named=2)
    for seed in range(arguments.seeds):
        for network in (EXPERTS, ALONE, TAUGHT):
            if not rows.get(network, seed):
                print(rows.write(trained(network, seed, arguments.epochs, arguments.folder)), flush=True)
    report(rows, arguments.seeds)


if __name__ == "__main__":
    main()
