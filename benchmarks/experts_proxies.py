"""How zero-cost proxies rank mixtures of experts: against the validation metric of trained networks of `moe`.

    python benchmarks/experts_proxies.py --data ../shared/data --db experts_proxies.db --out experts_proxies.csv

60 networks of the table backbone, drawn at random, width 32, six epochs of California housing, batches of 256; then
every proxy scores them. Spearman's rho with R2 of the validation part, with its 95% interval; of a proxy that has none
for some networks, why, and for how many. The search is in a database of its own and is gone on with.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from evonorm_proxies import ranked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with california_housing.csv.gz")
    parser.add_argument("--db", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    data = f"csv:{arguments.data.resolve() / 'california_housing.csv.gz'}?target=median_house_value"
    searching = ("--data", data, "--size", "width=32", "--epochs", str(arguments.epochs), "--objective", "val_r2")
    recipe = ("-s", "recipe.batch_size=256", "-s", "recipe.lr=0.003", "--device", "cpu", "--threads", "1")
    ranked("moe", (*searching, *recipe), arguments.networks, arguments.db, arguments.out)


if __name__ == "__main__":
    main()
