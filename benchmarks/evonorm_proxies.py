"""How zero-cost proxies rank layers: against the mean accuracy over hosts of layers that the screens have let through.

    python benchmarks/evonorm_proxies.py --data idx:FASHION --db layers.db --layers 60 --out evonorm_proxies.csv
    python benchmarks/evonorm_proxies.py --data digits --db tiny.db --layers 4 --screen finite --out tiny.csv
    python benchmarks/evonorm_proxies.py --of random-0 --db layers.db --out evonorm_proxies.csv

A search by `random` (what it draws is not bent towards what is good) is made in a database of its own, or gone on with,
until so many layers are trained; then every proxy scores them in the first host. Spearman's rho with its 95% interval;
of a proxy that has none for some layers, why, and for how many. `--of`: a study that is there, such as one of
`evonorm_search.py`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rows import Rows

FIELDS = ("space", "score", "layers", "spearman", "low", "high", "without", "reasons")
STUDY = "proxies"


def nas(*words: str) -> str:
    """What a command prints; its progress is shown."""
    command = [sys.executable, "-m", "nas_cli", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def ranked(space: str, searching: Sequence[str], trials: int, db: Path, out: Path) -> None:
    """The rank correlation of every proxy with the objective of a random search of so many trials, which is made in a
    database of its own, or gone on with; `searching` are further words of the search. Rows of `out`, and printed."""
    database = ("--db", f"sqlite:///{db}")
    if db.exists():
        nas("resume", STUDY, "--trials", str(trials), *database)
    else:
        words = ("--study", STUDY, "--space", space, "--strategy", "random", "--trials", str(trials))
        nas("search", *words, *searching, *database)
    scored(space, STUDY, db, out)


def scored(space: str, study: str, db: Path, out: Path) -> None:
    """The rank correlation of every proxy with the objective of a study's trials. Rows of `out`, and printed."""
    words = ("score", "--of", study, "--proxies", "all", "--json", "--db", f"sqlite:///{db}")
    found: dict[str, Any] = json.loads(nas(*words))
    rows = Rows(out, FIELDS, 3)
    for score in found["scores"]:
        if rows.get(space, score["score"], score["count"]) is not None:
            continue
        rho, reasons = score["spearman"], score.get("reasons", {})
        row = (space, score["score"], score["count"], *(rho[key] for key in ("value", "low", "high")))
        rows.write(dict(zip(FIELDS, (*row, sum(reasons.values()), "; ".join(reasons)), strict=True)))
    for written in rows:
        print(*written.values(), sep="  ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="what a search is made on")
    parser.add_argument("--of", metavar="STUDY", help="no search: this study of the database")
    parser.add_argument("--db", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--space", default="evonorm")
    parser.add_argument("--hosts", default="resnet,mobilenet,vgg")
    parser.add_argument("--layers", type=int, default=60)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--screen", nargs="*", default=["quality", "stability"])
    parser.add_argument("-s", action="append", default=[], help="KEY=VALUE of the search")
    arguments = parser.parse_args()
    if arguments.of is not None:
        scored(arguments.space, arguments.of, arguments.db, arguments.out)
        return
    if arguments.data is None:
        parser.error("name the --data of the search, or a study that is there by --of")
    size = f"width={arguments.width},depth={arguments.depth}"
    screens = [word for screen in arguments.screen for word in ("--screen", screen)]
    settings = [word for each in arguments.s for word in ("-s", each)]
    searching = (
        "--data",
        arguments.data,
        "--hosts",
        arguments.hosts,
        "--size",
        size,
        "--epochs",
        str(arguments.epochs),
    )
    ranked(arguments.space, (*searching, *screens, *settings), arguments.layers, arguments.db, arguments.out)


if __name__ == "__main__":
    main()
