"""The front of validation loss and active parameters on data of regimes: are there dense networks on it, and experts?

    python benchmarks/experts_front.py [--trials 60] [--seed 0] [--out experts_front.csv]

`nsga2` with populations of 20 on `moe(kinds=(gelu, glu))`, width 16, on 3,000 rows of 16 regimes
(`experts_regimes.py`), five epochs of batches of 64; nothing is enqueued. The file has a row for each network of the
front: its layers, validation loss (mean squared error of standardised targets), active and all parameters. A seed that
is in the file is not searched again; what is there is printed.
"""

from __future__ import annotations

import argparse
import csv
import math
import tempfile
import time
from pathlib import Path

import torch
from experts_regimes import data
from rows import Rows

import nas

FIELDS = ("trials", "seed", "trial", "ffn", "expert", "val_loss", "active_params", "params", "search_cpu_seconds")
ROWS, REGIMES, WIDTH, EPOCHS, BATCH = 3000, 16, 16, 5, 64


def searched(trials: int, seed: int, table: Rows) -> None:
    begun = time.process_time()
    torch.manual_seed(seed)
    x, y = data(REGIMES, ROWS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "rows.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*(f"x{number}" for number in range(x.shape[1])), "y"])
            writer.writerows(torch.cat([x, y], 1).tolist())
        study = nas.search(
            config={"strategy": {"population": 20}, "recipe": {"batch_size": BATCH}},
            study="front",
            space="moe(kinds=(gelu, glu))",
            data=f"csv:{folder / 'rows.csv'}?target=y",
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "experts_front.csv")
    arguments = parser.parse_args()
    table = Rows(arguments.out, FIELDS, named=3)
    wanted = (str(arguments.trials), str(arguments.seed))
    if not any((row["trials"], row["seed"]) == wanted for row in table):
        searched(arguments.trials, arguments.seed, table)
    for row in table:
        print(", ".join(row.values()))


if __name__ == "__main__":
    main()
