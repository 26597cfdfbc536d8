"""Adult and California housing: a searched network of space `mlp` beside boosted trees of scikit-learn.

    python benchmarks/tables.py --data ../shared/data --folder tables --out tables.csv

A search of 30 candidates (`tpe`, 8 epochs each, half of the width) and five trainings of its winner at full width (16
epochs, of Adult 8), by the commands that a user would type, in batches of 1,024: about 20 minutes of one core. Every
training and every baseline is a row of the file. A row that is there is not made again, and what was interrupted goes
on: studies and trainings are in `--folder`. Both see the same parts, encoded alike. The trees are
`HistGradientBoosting` with its defaults, and with as many iterations (up to 500) as are best on the validation part.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trees import DEFAULTS, boosted

from training.data import load
from training.data.split import Split
from training.data.table_source import TableSource

FIELDS = ("data", "model", "seed", "metric", "validation", "test", "params", "seconds")
SEARCHED = "searched mlp"
METRICS = {"adult": "accuracy", "california": "rmse"}
EPOCHS = {"adult": 8, "california": 16}  # of the trainings of the winner: Adult has twice the rows
# Large batches: rows are short, so that a step of 256 costs hardly less.
RECIPE = ("batch_size=1024", "lr=0.003")


def references(folder: Path) -> dict[str, str]:
    """The data of each table, as the commands take them."""
    adult = f"header=no&target=c14&missing=?&test={folder / 'adult_test.csv.gz'}"
    return {
        "adult": f"csv:{folder / 'adult_train.csv.gz'}?{adult}",
        "california": f"csv:{folder / 'california_housing.csv.gz'}?target=median_house_value",
    }


def nas(folder: Path, *words: str) -> Any:
    """What a command prints as a document; its progress goes to stderr. An error of it ends the benchmark."""
    command = [sys.executable, "-m", "nas_cli", *words, "--json", "--db", f"sqlite:///{folder.resolve()}/nas.db"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def searched(name: str, reference: str, folder: Path, trials: int, seeds: int) -> Iterator[dict[str, Any]]:
    """The trainings of the best of the candidates."""
    metric = METRICS[name]
    recipe = [word for text in RECIPE for word in ("-s", f"recipe.{text}")]
    if (folder / "nas.db").exists() and name in [study["study"] for study in nas(folder, "ls")]:
        nas(folder, "resume", name, "--trials", str(trials))
    else:
        problem = ("--space", "mlp", "--data", reference, "--objective", f"val_{metric}", "--final-size", "full")
        search = ("--strategy", "tpe", "--trials", str(trials), "--threads", "1", "--seed", "0")
        nas(folder, "search", "--study", name, *problem, *search, *recipe)
    trained = nas(folder, "train", name, "--seeds", str(seeds), "--epochs", str(EPOCHS[name]), *recipe)
    for number, training in enumerate(trained["runs"]):
        found = training["metrics"]
        yield {
            "model": SEARCHED,
            "seed": number,
            "validation": found[f"val_{metric}"],
            "test": found[f"test_{metric}"],
            "params": int(found["params"]),
            "seconds": nas(folder, "show", training["address"])["seconds"],
        }


def boosted_rows(name: str, source: TableSource) -> Iterator[dict[str, Any]]:
    for found in boosted(source, METRICS[name]):
        yield {"seed": 0, "validation": found.pop("valid"), "params": "", **found}


def summary(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line per table and model: mean and deviation over the seeds."""
    yield f"{'data':<11} {'model':<37} {'seeds':>5} {'validation':>12} {'test':>21} {'seconds':>8}"
    for name, model in dict.fromkeys((row["data"], row["model"]) for row in rows):
        mine = [row for row in rows if (row["data"], row["model"]) == (name, model)]
        valid, test, seconds = ([float(row[key]) for row in mine] for key in ("validation", "test", "seconds"))
        spread = statistics.stdev(test) if len(test) > 1 else 0.0
        yield (
            f"{name:<11} {model:<37} {len(mine):5} {statistics.mean(valid):12.6g} {statistics.mean(test):12.6g} ± "
            f"{spread:<6.2g} {statistics.mean(seconds):8.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the three files")
    parser.add_argument("--folder", type=Path, default=Path("tables"), help="of the studies")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=list(METRICS), help="one of the two tables")
    parser.add_argument("--out", type=Path, default=Path("tables.csv"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    if arguments.out.exists():
        with arguments.out.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    for name, reference in references(arguments.data.resolve()).items():
        if arguments.only not in (None, name):
            continue
        source = load(reference, Split())
        assert isinstance(source, TableSource)
        makers = {
            SEARCHED: lambda name=name, reference=reference: searched(
                *(name, reference, arguments.folder, arguments.trials, arguments.seeds)
            ),
            DEFAULTS: lambda name=name, source=source: boosted_rows(name, source),
        }
        for model, make in makers.items():
            if any((row["data"], row["model"]) == (name, model) for row in rows):
                continue
            rows += [{"data": name, "metric": METRICS[name], **row} for row in make()]
            with arguments.out.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, FIELDS)
                writer.writeheader()
                writer.writerows(rows)
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
