"""CPU seconds of reading a table of 390,625 rows (8 choices of 5 options, two metrics), as a search does at its start.

    python benchmarks/table_reading.py [--rounds 3]

Beside it, what rows cost that must be looked at one by one (numbers written in another way than the options), on a
tenth of the rows, times ten.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

from nas_core.choice import Choice
from nas_core.space import SearchSpace
from training.evaluators.table import Table

CHOICES, OPTIONS = 8, (1, 2, 3, 5, 8)


class Numbers(SearchSpace):
    """Independent numbers."""

    name = "numbers"
    tasks = frozenset({"image-classification"})
    choices = tuple(Choice(f"layer{n}", OPTIONS) for n in range(CHOICES))


def write(folder: Path, suffix: str, rows: int) -> Path:
    """A table of so many rows whose numbers end in `suffix`."""
    table = folder / f"rows{rows}.csv"
    with table.open("w") as file:
        file.write(",".join(f"c{n}" for n in range(CHOICES)) + ",valid,test\n")
        for number, values in enumerate(itertools.islice(itertools.product(OPTIONS, repeat=CHOICES), rows)):
            cells = [f"{value}{suffix}" for value in values]
            file.write(",".join([*cells, f"{number % 9973 / 100}", f"{number % 9967 / 100}"]) + "\n")
    columns = ", ".join(f"layer{n}: c{n}" for n in range(CHOICES))
    table.with_suffix(".yaml").write_text(
        f"files: [{table.name}]\nspace: numbers\nmatch: architecture\nrow: {{choices: {{{columns}}}}}\ndata:\n  made:\n"
        "    task: {kind: image-classification, input_shape: [3, 32, 32], outputs: 10}\n"
        "    metrics: {val_accuracy: {column: valid, scale: 0.01}, test_accuracy: {column: test, scale: 0.01}}\n"
    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    count = len(OPTIONS) ** CHOICES
    with tempfile.TemporaryDirectory() as folder:
        for name, suffix, rows in (("column by column", "", count), ("one by one", ".0", count // 10)):
            table, seconds = write(Path(folder), suffix, rows), []
            for _ in range(rounds):
                begun = time.process_time()
                Table(Numbers(), table, "made")
                seconds.append((time.process_time() - begun) * count / rows)
            print(f"{count:,} rows {name}: {statistics.median(seconds):.2f} s of CPU")


if __name__ == "__main__":
    main()
