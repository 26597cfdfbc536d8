"""Fashion-MNIST: a small network alone and with a teacher (`nas train --teacher`), paired by seed.

    python benchmarks/distillation.py --data ../shared/data/fashion-mnist --folder distillation --out distillation.csv

Teacher and student are one cell of `nasbench201` at two sizes, trained by the recipe `standard` on 12,000 images of
which every tenth is for validation, and tested on all 10,000. The teacher is trained once. Every training is a row of
the file; a row that is there is not made again.
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

from search_spaces.nasbench201 import NasBench201
from training.checkpoint import write_tensors
from training.data import load
from training.data.loading import Loading
from training.data.protocol import Source
from training.data.split import Split
from training.fit import fit
from training.networks import build, load_trained
from training.recipe import Recipe, recipe
from training.teacher import Teacher

FIELDS = ("network", "way", "seed", "params", "val_accuracy", "test_accuracy", "seconds")
CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
TEACHER, STUDENT = {"channels": 16, "cells": 1}, {"channels": 4, "cells": 1}
WAYS: dict[str, dict[str, Any] | None] = {
    "alone": None,
    "logits": {},
    "logits, alpha 0.5": {"alpha": 0.5},
    "logits and features": {"features": 1.0},
    "features": {"alpha": 0.0, "features": 1.0},
}


def trained(source: Source, size: Any, plan: Recipe, seed: int, teacher: Teacher | None) -> tuple[Any, dict[str, Any]]:
    """A network after its training, and what its row says of it."""
    space = NasBench201()
    model = build(space, space.from_text(CELL), source.task, size, seed)
    data = source.bind("cpu", Loading(batch_size=plan.batch_size, augment=plan.augment, channels_last=True))
    begun = time.process_time()
    *_, last = fit(model, data, plan, device=torch.device("cpu"), seed=seed, test=True, teacher=teacher)
    found = {name: last.metrics[name] for name in ("val_accuracy", "test_accuracy")}
    params = sum(parameter.numel() for parameter in model.parameters())
    return model, {"seed": seed, "params": params, "seconds": round(time.process_time() - begun, 1), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--folder", type=Path, default=Path("distillation"), help="where the teacher's weights are")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--limit", type=int, default=12_000)
    parser.add_argument("--out", type=Path, default=Path("distillation.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    space = NasBench201()
    sizes = {name: space.Size(**values) for name, values in (("teacher", TEACHER), ("student", STUDENT))}
    source = load(f"idx:{arguments.data}", Split(limit=arguments.limit))
    rows = Rows(arguments.out, FIELDS, named=3)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    weights = arguments.folder / "teacher.safetensors"
    if not weights.exists():
        plan = recipe("standard", source.task, epochs=arguments.epochs)
        model, row = trained(source, sizes["teacher"], plan, 0, None)
        write_tensors(weights, model.state_dict())
        if not rows.get("teacher", "alone", 0):
            print(rows.write({"network": "teacher", "way": "alone", **row}), flush=True)
    teacher = Teacher(
        "teacher",
        hashlib.sha256(weights.read_bytes()).hexdigest(),
        source.task,
        None,
        partial(load_trained, space, space.from_text(CELL), source.task, sizes["teacher"], weights),
    )
    for seed in range(arguments.seeds):
        for way, settings in WAYS.items():
            if rows.get("student", way, seed):
                continue
            taught = {} if settings is None else {"distillation": settings}
            plan = recipe("standard", source.task, epochs=arguments.epochs, **taught)
            _, row = trained(source, sizes["student"], plan, seed, teacher if taught else None)
            print(rows.write({"network": "student", "way": way, **row}), flush=True)

    test = {(row["network"], row["way"], int(row["seed"])): float(row["test_accuracy"]) for row in rows}
    for way in WAYS:
        values = [test["student", way, seed] for seed in range(arguments.seeds)]
        gains = [test["student", way, seed] - test["student", "alone", seed] for seed in range(arguments.seeds)]
        spread = f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}"
        print(f"{way}: test {spread}, paired gain {statistics.fmean(gains):+.4f} (least {min(gains):+.4f})")


if __name__ == "__main__":
    main()
