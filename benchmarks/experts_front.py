"""The front of validation loss and active parameters on data of regimes: are there dense networks on it, and experts?

    python benchmarks/experts_front.py [--trials 60] [--seed 0] [--out experts_front.csv]
    python benchmarks/experts_front.py --dense [--trials 60] [--seed 0] [--dense-out experts_front_dense.csv]

`nsga2` with populations of 20 on `moe(kinds=(gelu, glu))`, width 16, on 3,000 rows of 16 regimes
(`experts_regimes.py`), five epochs of batches of 64; nothing is enqueued. The file has a row for each network of the
front: its layers, validation loss (mean squared error of standardised targets), active and all parameters. A seed that
is in the file is not searched again; what is there is printed.

`--dense` trains every network of `moe(ffn=dense)`, all depths and expansions, as the search does its candidates, and
says of each which member of the front has no larger loss and no more active parameters, if one has: of a front without
dense networks that is why. A network is a row of a second file, which is not made again.
"""

from __future__ import annotations

import argparse
import csv
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from experts_regimes import data
from rows import Rows

import nas
from nas_core import moves
from nas_core.seeds import derive
from search_spaces.counter import active_params
from search_spaces.moe import Moe, Size
from training.data import load
from training.data.loading import Loading
from training.fit import fit
from training.networks import build
from training.recipe import recipe

FIELDS = ("trials", "seed", "trial", "ffn", "expert", "val_loss", "active_params", "params", "search_cpu_seconds")
DENSE_FIELDS = ("seed", "depth", "expansion", "val_loss", "active_params")
ROWS, REGIMES, WIDTH, EPOCHS, BATCH = 3000, 16, 16, 5, 64


def written(folder: Path, seed: int) -> str:
    """The rows of a seed in a file, as a reference of data."""
    torch.manual_seed(seed)
    x, y = data(REGIMES, ROWS)
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"x{number}" for number in range(x.shape[1])), "y"])
        writer.writerows(torch.cat([x, y], 1).tolist())
    return f"csv:{folder / 'rows.csv'}?target=y"


def searched(trials: int, seed: int, table: Rows) -> None:
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = nas.search(
            config={"strategy": {"population": 20}, "recipe": {"batch_size": BATCH}},
            study="front",
            space="moe(kinds=(gelu, glu))",
            data=written(folder, seed),
            size={"width": WIDTH},
            strategy="nsga2",
            objective=["val_loss", "active_params"],
            epochs=EPOCHS,
            trials=trials,
            seed=seed,
            device="cpu",
            threads=1,
            db=folder / "nas.db",
            files=folder / "files",
        )
        lowest = math.inf  # of the networks with fewer active parameters
        done = [(one["metrics"], one) for one in study.trials() if one["state"] == "complete"]
        for metrics, one in sorted(done, key=lambda pair: (pair[0]["active_params"], pair[0]["val_loss"])):
            if metrics["val_loss"] >= lowest:
                continue
            lowest = metrics["val_loss"]
            table.write(
                {
                    "trials": trials,
                    "seed": seed,
                    "trial": one["number"],
                    "ffn": one["architecture"]["ffn"],
                    "expert": one["architecture"].get("expert"),
                    "val_loss": round(metrics["val_loss"], 5),
                    "active_params": int(metrics["active_params"]),
                    "params": int(metrics["params"]),
                    "search_cpu_seconds": round(time.process_time() - begun, 1),
                }
            )


def dense(seed: int, front: Sequence[Mapping[str, str]], table: Rows) -> None:
    """Trains all dense networks, and says what dominates each."""
    space = Moe(ffn="dense")
    with tempfile.TemporaryDirectory() as name:
        source = load(written(Path(name), seed))
    plan = recipe("quick", source.task, epochs=EPOCHS, batch_size=BATCH)
    for arch in moves.enumerate_all(space):
        depth, expansion = arch.values["depth"], arch.values["expansion"]
        if not table.get(seed, depth, expansion):
            torch.manual_seed(seed)
            model = build(space, arch, source.task, Size(width=WIDTH), derive(seed, "dense"))
            data = source.bind("cpu", Loading(batch_size=plan.batch_size))
            *_, last = fit(model, data, plan, device=torch.device("cpu"), seed=seed)
            loss = round(last.metrics["val_loss"], 5)
            named = {"seed": seed, "depth": depth, "expansion": expansion}
            table.write({**named, "val_loss": loss, "active_params": active_params(model)})
        row = table.get(seed, depth, expansion)
        assert row is not None
        by = [
            one for one in front if all(float(one[name]) <= float(row[name]) for name in ("val_loss", "active_params"))
        ]
        found = min(by, key=lambda one: float(one["val_loss"]), default=None)
        said = "by none" if found is None else f"by {found['ffn']}: {found['val_loss']} at {found['active_params']}"
        print(f"depth {depth}, expansion {expansion}: {row['val_loss']} at {row['active_params']}; dominated {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "experts_front.csv")
    parser.add_argument("--dense", action="store_true", help="what dominates each dense network")
    results = Path(__file__).parent / "results"
    parser.add_argument("--dense-out", type=Path, default=results / "experts_front_dense.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Rows(arguments.out, FIELDS, named=3)
    wanted = (str(arguments.trials), str(arguments.seed))
    if not any((row["trials"], row["seed"]) == wanted for row in table):
        searched(arguments.trials, arguments.seed, table)
    if arguments.dense:
        front = [row for row in table if (row["trials"], row["seed"]) == wanted]
        dense(arguments.seed, front, Rows(arguments.dense_out, DENSE_FIELDS, named=3))
        return
    for row in table:
        print(", ".join(row.values()))


if __name__ == "__main__":
    main()
