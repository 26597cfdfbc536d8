"""CPU seconds of `nas --help` and of `nas ls` on a database with 100,000 trials, beside a bare interpreter.

    python benchmarks/cli_startup.py [--trials 100000] [--rounds 5]

Each round runs all three commands in turn; figures are the medians of user and system time of the process.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import sqlalchemy as sa

from nas_core.architecture import Architecture
from nas_core.evaluation import Report
from nas_core.records import StopAt, Verdict
from nas_core.strategy import Proposal, State
from studies.store import tables
from studies.store.store import Store
from studies.store.testing import SPEC

STUDIES = 4


def fill(database: Path, trials: int) -> None:
    """A database with so many complete trials in a few studies."""
    with Store(f"sqlite:///{database}") as store:
        studies = [store.create_study(f"study{n}", SPEC, StopAt(trials=trials)) for n in range(STUDIES)]
        arch = Architecture("letters", {"a": 1})
        verdict = Verdict(State.COMPLETE, None, (0.5,), (-0.5,), 1.0)
        first = store.propose(studies[0], 0, Proposal(arch), "same", Verdict(State.RUNNING), asked_after=0)
        store.finish(first, verdict, Report(1, {"score": 0.5, "params": 2.0}))
    engine = sa.create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        row = dict(connection.execute(sa.select(tables.runs)).mappings().one())
        rows = [
            {**row, "id": n + 1, "study": studies[n % STUDIES].id, "number": n // STUDIES, "objective": n / trials}
            for n in range(1, trials)
        ]
        connection.execute(tables.runs.insert(), rows)


def cpu(command: list[str]) -> float:
    """User and system seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "large.db"
        fill(database, arguments.trials)
        nas = str(Path(sys.executable).parent / "nas")
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "nas --help": [nas, "--help"],
            f"nas ls, {arguments.trials:,} trials": [nas, "ls", "--db", f"sqlite:///{database}"],
        }
        measured: dict[str, list[float]] = {name: [] for name in commands}
        for round_ in range(arguments.rounds + 1):
            for name, command in commands.items():
                seconds = cpu(command)
                if round_:  # the first round fills the caches
                    measured[name].append(seconds)
    bare = statistics.median(measured["python -c pass"])
    for name, values in measured.items():
        middle = statistics.median(values)
        print(f"{name:<24} {middle:.3f} s of CPU ({min(values):.3f} to {max(values):.3f}), {middle / bare:.1f} x bare")


if __name__ == "__main__":
    main()
