"""CPU time of what users wait for, beside an earlier version of this project: the ratio earlier / now, in pairs.

    git worktree add ../earlier COMMIT
    python benchmarks/earlier.py --earlier ../earlier [--pairs 9] [--only fit]

One process per version imports everything once, then both take turns, so that other load on the machine meets both; who
goes first changes from pair to pair. Where start-up is measured, every round is a process of its own.
A round is measured in user and system time. The ratio is the geometric mean over the pairs, with the 95% interval of
Student's t; a ratio of 1 or more means that nothing was paid.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from scipy import stats

SEARCH = ("search", "--space", "nasbench201", "--data", "digits", "--threads", "1", "--seed", "1")
FIT = (*SEARCH, "--size", "channels=8,cells=1", "--epochs", "8", "--trials", "1")
DARTS = (*SEARCH, "--size", "channels=4,cells=1", "--strategy", "darts", "-s", "strategy.epochs=2")
LISTED = 100_000
TRIALS = 1_000


def commands(*words: str) -> Callable[[Path], None]:
    """A command, run within this process on a database of its own."""

    def run(folder: Path) -> None:
        from nas_cli.app import run as app

        place = Path(tempfile.mkdtemp(dir=folder))
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
            code = app([*words, "--study", "s", "--db", f"sqlite:///{place}/nas.db", "--files", str(place / "files")])
        if code:
            raise SystemExit(said.getvalue())

    return run


def started(*words: str) -> Callable[[Path], None]:
    """A command in a new process."""

    def run(folder: Path) -> None:
        database = ["--db", f"sqlite:///{folder}/large.db"] if words[0] != "--help" else []
        subprocess.run([sys.executable, "-m", "nas_cli", *words, *database], check=True, stdout=subprocess.DEVNULL)

    return run


def stored(folder: Path) -> None:
    importlib.import_module("benchmarks.store_throughput").ours(folder, 6, TRIALS)


def looped(folder: Path) -> None:
    importlib.import_module("benchmarks.store_throughput").loop(folder, TRIALS)


MEASURED: dict[str, Callable[[Path], None]] = {
    "help": started("--help"),
    "ls": started("ls"),
    "commits": stored,
    "loop": looped,
    "fit": commands(*FIT),
    "darts": commands(*DARTS),
}


def serve(name: str, folder: Path) -> None:
    """Run a round for every line of stdin; print the seconds of each."""
    if name == "ls":
        importlib.import_module("benchmarks.cli_startup").fill(folder / "large.db", LISTED)
    MEASURED[name](folder)  # fills the caches
    print("ready", flush=True)
    for _ in sys.stdin:
        before = _seconds()
        MEASURED[name](folder)
        print(_seconds() - before, flush=True)


def _seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Served:
    """A version of the project in a process, which runs a round when it is asked to."""

    def __init__(self, tree: Path, name: str, folder: Path) -> None:
        folder.mkdir()
        command = [sys.executable, __file__, "--serve", name, "--folder", str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, env=environment, cwd=folder, text=True, **pipes)  # type: ignore[call-overload]
        if self._answer() != "ready":
            raise SystemExit(f"{tree}: {name} cannot be measured there")

    def round(self) -> float:
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> str:
        return str(self._process.stdout.readline()).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--earlier", type=Path, help="a tree of the earlier version")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--only", choices=MEASURED, action="append", help="may be repeated")
    parser.add_argument("--serve", choices=MEASURED, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.folder)
        return
    trees = {"now": Path(__file__).parents[1], "earlier": arguments.earlier}
    for name in arguments.only or MEASURED:
        with tempfile.TemporaryDirectory() as folder:
            served = {who: Served(tree, name, Path(folder) / who) for who, tree in trees.items()}
            seconds: dict[str, list[float]] = {who: [] for who in trees}
            for pair in range(arguments.pairs):
                for who in sorted(trees, reverse=pair % 2 == 0):
                    seconds[who].append(served[who].round())
            for one in served.values():
                one.close()
        logs = [math.log(earlier / now) for earlier, now in zip(seconds["earlier"], seconds["now"], strict=True)]
        middle = statistics.fmean(logs)
        reach = stats.t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
        low, high = (math.exp(middle + sign * reach) for sign in (-1, 1))
        medians = ", ".join(f"{who} {statistics.median(values):.3f} s" for who, values in seconds.items())
        print(f"{name}: earlier / now {math.exp(middle):.3f} [{low:.3f}, {high:.3f}] ({medians})", flush=True)


if __name__ == "__main__":
    main()
