"""A search for a layer without batch moments, judged with batches of four images, where batch statistics suffer.

    python benchmarks/evonorm_small.py --data ../shared/data/fashion-mnist --folder FOLDER [--candidates 100]

The strategy `evonorm` on `evonorm(batch=false)` in the ResNet host, fresh founders, with the screens `quality` and
`stability`, until so many candidates were trained, those that a screen turned down among them. Each has 2,000 steps of
4 on Fashion-MNIST at 16 x 16 (one epoch of 8,000 images), as the part `small` of `evonorm_layers.py` has. The best one
by validation is trained again beside known layers without batch moments, paired by seed: rows of `small.csv` in the
folder, and a table of the accuracies of the test part. A later run goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from evonorm_layers import IMAGES, RATE
from evonorm_search import fashion, paid, seconds, survivors, trained
from rows import Rows
from stored import trials

import nas
from nas_core.strategy import State
from search_spaces.evonorm.space import EvoNorm
from training.data.split import Split
from training.evaluators.train import Train
from training.recipe import recipe

BATCH = 4
LIMIT = round(IMAGES / 0.9)  # a tenth is for validation
HOST = "resnet"
STUDY = "small"
SPACE = EvoNorm(batch=False)
KNOWN = ("gn-relu", "gn-silu", "frn", "evonorm-s0")


def learned() -> dict[str, Any]:
    return {"batch_size": BATCH, "lr": RATE * BATCH / 64, "precision": "float32", "epochs": 1}


def search(db: Path, data: str, candidates: int) -> None:
    """Go on until so many candidates were trained."""
    while len(paid(found := trials(db, STUDY))) < candidates:
        if found:
            passed = sum(run.state in (State.COMPLETE, State.FAILED) for run in found)  # what --trials counts
            nas.resume(STUDY, trials=passed + 1, db=db)
        else:
            screens = ["quality(steps=40)", "stability(steps=20)"]
            nas.search(
                study=STUDY, space="evonorm(batch=false)", strategy="evonorm", seed=0, lag=1, trials=1, db=db,
                data=f"{Path(__file__).resolve().parent / 'evonorm_search.py'}:fashion:{data}", hosts=[HOST],
                split={"limit": LIMIT, "valid": 0.1}, recipe={"name": "quick", **learned()}, screen=screens,
                threads=1, device="cpu",
            )  # fmt: skip
        now = trials(db, STUDY)
        print(f"{len(paid(now))} trained in {seconds(now):.0f} s, {len(survivors(now))} survived", flush=True)
        if len(now) == len(found):
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--folder", type=Path, required=True, help="of the study and its table")
    parser.add_argument("--candidates", type=int, default=100, help="to train")
    parser.add_argument("--seeds", type=int, default=5, help="of the trainings afterwards")
    given = parser.parse_args()
    folder, data = given.folder.resolve(), f"16:{given.data.resolve()}"
    folder.mkdir(parents=True, exist_ok=True)
    search(folder / "nas.db", data, given.candidates)
    best = sorted(survivors(trials(folder / "nas.db", STUDY)), key=lambda run: -run.metrics["val_accuracy"])
    for run in best[:5]:
        print(f"{STUDY}:{run.number}: {100 * run.metrics['val_accuracy']:.2f} {SPACE.to_text(run.arch)}")
    wanted = {name: SPACE.named[name] for name in KNOWN} | {"searched": best[0].arch}
    source = fashion(data, Split(limit=LIMIT, valid=0.1))
    plan = recipe("quick", source.task, **learned())
    evaluator = Train(SPACE, source, SPACE.Size.parse(f"host={HOST}"), plan, device="cpu", threads=1, test=True)
    rows = Rows(folder / "small.csv", ("layer", "formula", "seed", "val_accuracy", "test_accuracy"), named=3)
    for name, arch in wanted.items():
        row: dict[str, Any] = {"layer": name, "formula": SPACE.to_text(arch)}
        for seed in range(given.seeds):
            if rows.get(*row.values(), seed) is None:
                last = trained(evaluator, arch, seed, folder / "trained" / f"{name}-{seed}")
                figures = {one: round(last[one], 4) for one in ("val_accuracy", "test_accuracy")}
                print(rows.write({**row, "seed": seed, **figures}), flush=True)
        column = [100 * float(found["test_accuracy"]) for found in rows if found["layer"] == name]
        print(f"| {name} | {statistics.fmean(column):.2f} ± {statistics.stdev(column) / len(column) ** 0.5:.2f} |")


if __name__ == "__main__":
    main()
