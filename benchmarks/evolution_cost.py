"""CPU milliseconds of the tabular loop under evolution as a study grows, by window of counted trials.

    python benchmarks/evolution_cost.py [--trials 20000] [--windows 5] [--table FILE.csv --data NAME --space SPACE]

Without a table: the one of 390,625 rows that `table_reading.py` makes, where few children are known already. Evolution
on a small table proposes the same candidates again and again; each is a committed row, and none is a counted trial.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from nas_core.records import StopAt
from studies.search.endings import Ending
from studies.search.loop import Search
from studies.setup.assemble import build, describe
from studies.setup.config import SearchConfig
from studies.store.store import Store

HERE = Path(__file__).resolve().parent


def made(folder: Path) -> SearchConfig:
    """A search on the large table, whose space is a file of its own."""
    sys.path.insert(0, str(HERE))
    from table_reading import CHOICES, OPTIONS, write

    table = write(folder, "", len(OPTIONS) ** CHOICES)
    space, mapping = f"{HERE / 'table_reading.py'}:Numbers", str(table.with_suffix(".yaml"))
    return SearchConfig(space=space, strategy="regularized-evolution", table=str(table), mapping=mapping, data="made")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--table")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--space", default="nasbench201")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        config = made(Path(name))
        if given.table:
            config = SearchConfig(
                space=given.space, strategy="regularized-evolution", table=given.table, data=given.data
            )
        spec = describe(config).spec
        with Store(f"sqlite:///{name}/benchmark.db") as store:
            study = store.create_study("s", spec, StopAt(trials=given.trials))
            search = Search(store, study, build(spec))
            search.run(StopAt(trials=10))
            print("counted trials | proposals per counted trial | CPU ms per proposal | CPU ms per counted trial")
            for window in range(1, given.windows + 1):
                told, counted, begun = search.told, search.evaluated, time.process_time()
                ending = search.run(StopAt(trials=given.trials * window // given.windows))
                seconds, told, counted = time.process_time() - begun, search.told - told, search.evaluated - counted
                shares = f"{told / counted:.2f} | {1000 * seconds / told:.2f} | {1000 * seconds / counted:.2f}"
                print(f"{search.evaluated - counted} to {search.evaluated} | {shares}", flush=True)
                if ending != Ending.TRIALS:
                    print(ending)
                    return


if __name__ == "__main__":
    main()
