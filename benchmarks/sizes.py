"""What commands cost on large studies: CPU seconds and memory by the number of trials.

    python benchmarks/sizes.py --folder FOLDER [--trials 10000 100000 1000000] [--only trials front]

A database of each size is made in the folder once: a study with so many trials of three objectives on a table, among
them reused, rejected, failed and unfinished ones, and 199 small studies beside it. Every command is a process of its
own; a row has the least CPU time (user and system) of the rounds, and the largest resident memory. `search` is a whole
search in one process, up to 100,000 trials, whose study is then resumed for one more. A row that is in the csv file is
not measured again.
"""

from __future__ import annotations

import argparse
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rows import Rows

# What fills databases is imported there: the memory of a process that starts another counts as that one's.

HERE = Path(__file__).resolve().parent
FIELDS = ("commit", "trials", "what", "seconds", "mib", "note")
STUDIES = 200
SEARCHED = ("random", "regularized-evolution", "local-search")
LONGEST = 100_000  # trials of a whole search
FIRST = 1_000  # trials after which the memory of a search is looked at for the first time
CHUNK = 20_000  # trials per transaction
LIMIT = 900_000  # of params

SOME = "SELECT number, state, objective FROM trials WHERE study = 'large' LIMIT 50"
HIGHEST = "SELECT number, objective FROM trials WHERE study = 'large' ORDER BY objective DESC LIMIT 10"

COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "ls": (("ls",), "all"),
    "show": (("show", "large"), "all"),
    "show a trial": (("show", "large:1234"), "all"),
    "best": (("best", "large"), "all"),
    "query, 50 rows": (("query", SOME), "all"),
    "query, the best 10": (("query", HIGHEST), "all"),
    "trials on a terminal": (("trials", "large"), "terminal"),
    "trials on a terminal, sorted": (("trials", "large", "--sort", "val_accuracy"), "terminal"),
    "trials, first line": (("trials", "large"), "first"),
    "trials, all": (("trials", "large"), "all"),
    "trials, all, JSON": (("trials", "large", "--json"), "all"),
    "front": (("front", "large"), "all"),
}
"""Commands, and how their output is read: all of it, on a terminal, or its first line alone."""


def spec(folder: Path, strategy: str) -> Any:
    """A study on the table of 390,625 rows that `table_reading.py` makes."""
    from table_reading import CHOICES, OPTIONS, write

    from studies.setup.assemble import describe
    from studies.setup.config import SearchConfig

    count = len(OPTIONS) ** CHOICES
    table = folder / f"rows{count}.csv"
    if not table.with_suffix(".yaml").exists():
        write(folder, "", count)
    config: dict[str, Any] = {"space": f"{HERE / 'table_reading.py'}:Numbers", "strategy": strategy, "data": "made"}
    config |= {"table": str(table), "mapping": str(table.with_suffix(".yaml"))}
    return describe(SearchConfig(**config)).spec


# -- databases ------------------------------------------------------------------------------------------------


def fill(folder: Path, database: Path, trials: int) -> None:
    """A database with one large study and many small ones."""
    from nas_core.records import StopAt
    from studies.store.store import Store

    objectives, constraints = ("val_accuracy:max", "latency_ms:min", "params:min"), (f"params<={LIMIT}",)
    several = spec(folder, "regularized-evolution")
    several = several.model_copy(update={"objectives": objectives, "constraints": constraints})
    with Store(f"sqlite:///{database}") as store:
        add(store, store.create_study("large", several, StopAt(trials=trials)).id, trials, 0)
        for number in range(1, STUDIES):
            small = store.create_study(f"small-{number}", several, StopAt(trials=100))
            add(store, small.id, 20 + number, number)


def add(store: Any, study: int, trials: int, seed: int) -> None:
    """Trials as a search on a table leaves them, in large transactions."""
    import sqlalchemy as sa

    from studies.store import tables as t

    def work(connection: sa.Connection, numbers: range) -> None:
        found = list(drawn(study, numbers, trials, seed))
        first = (connection.execute(sa.select(sa.func.max(t.runs.c.id))).scalar() or 0) + 1
        archs = {row["architecture"]: text for row, text, _ in found}
        known = t.architectures.insert().prefix_with("OR IGNORE")
        connection.execute(known, [{"key": key, "json": text} for key, text in archs.items()])
        connection.execute(t.runs.insert(), [{**row, "id": first + n} for n, (row, _, _) in enumerate(found)])
        values = [
            {"run": first + n, "step": step, "name": name, "value": value, "number": "finite"}
            for n, (_, _, reports) in enumerate(found)
            for step, metrics in reports.items()
            for name, value in metrics.items()
        ]
        connection.execute(t.metrics.insert(), values)

    for start in range(0, trials, CHUNK):
        numbers = range(start, min(trials, start + CHUNK))
        store.write(lambda connection, numbers=numbers: work(connection, numbers))


def drawn(
    study: int, numbers: range, trials: int, seed: int
) -> Iterator[tuple[dict[str, Any], str, dict[float, dict[str, float]]]]:
    """Rows of trials, with the JSON of their architectures and their metrics by step."""
    import numpy
    from table_reading import CHOICES, OPTIONS

    from nas_core.architecture import Architecture
    from nas_core.records import Verdict
    from nas_core.strategy import State
    from studies.store import rows

    rng = numpy.random.default_rng([seed, numbers.start])
    chosen = numpy.array(OPTIONS)[rng.integers(len(OPTIONS), size=(len(numbers), CHOICES))]
    luck, noise = rng.random(len(numbers)), rng.normal(size=(len(numbers), 2))
    complete: list[tuple[int, Architecture, dict[str, float]]] = []
    for place, number in enumerate(numbers):
        arch = Architecture("numbers", {f"layer{n}": value for n, value in enumerate(chosen[place].tolist())})
        width = float(chosen[place].sum())
        accuracy = round(float(0.95 - 1.2 / (width + 2) + 0.01 * noise[place, 0]), 5)
        metrics = {
            "val_accuracy": accuracy,
            "test_accuracy": accuracy - 0.01,
            "latency_ms": round(float(2 + 0.4 * width * (1 + 0.1 * noise[place, 1])), 6),
            "params": 20_000 * width,
        }
        reuses, excess = None, metrics["params"] / LIMIT - 1
        values = accuracy, -metrics["latency_ms"], -metrics["params"]
        verdict = Verdict(State.COMPLETE, None, values, (excess,), 40 + width)
        if number >= trials - 4:
            verdict, metrics = Verdict(State.RUNNING), {}
        elif luck[place] < 0.05:
            cause = "out-of-memory: 2.31 GiB" if luck[place] < 0.02 else f"exception: ValueError: no layer {number}"
            verdict, metrics = Verdict(State.FAILED, cause, seconds=40 + width), {}
        elif excess > 0:
            reason = f"constraint: params is {metrics['params']:g}, not <={LIMIT}"
            verdict, metrics = Verdict(State.REJECTED, reason, None, (excess,)), {"params": metrics["params"]}
        elif luck[place] < 0.25 and complete:
            reuses, arch, metrics = complete[int(luck[place] * 1e6) % len(complete)]
            values = metrics["val_accuracy"], -metrics["latency_ms"], -metrics["params"]
            excess = metrics["params"] / LIMIT - 1
            verdict = Verdict(State.REUSED, f"same as trial {reuses}", values, (excess,), 0.0)
        else:
            complete.append((number, arch, metrics))
        ended = None if verdict.state == State.RUNNING else 1.8e9 + number
        row = {
            "study": study,
            "kind": "trial",
            "number": number,
            "architecture": arch.key,
            "identity": arch.key,
            "repeat": 0,
            "note": '{"role":"child","of":17}',
            "reuses": reuses,
            "attempt": 1,
            "tries": 0,
            "asked_after": number,
            "told": None if ended is None else number,
            "started": 1.8e9 + number,
            **rows.verdict_row(verdict, ended),
        }
        early = {12.0: {"val_accuracy": accuracy - 0.1}} if number % 5 == 0 and verdict.values else {}
        yield row, arch.to_json(), {**early, **({200.0: metrics} if metrics else {})}


def search(folder: Path, database: Path, strategy: str, trials: int) -> None:
    """A whole search; prints how memory and open handles have grown since its first trials."""
    from nas_core.records import StopAt
    from studies.search.loop import Search
    from studies.setup.assemble import build
    from studies.store.store import Store

    def held() -> tuple[float, int]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir("/proc/self/fd"))

    asked = spec(folder, strategy)
    with Store(f"sqlite:///{database}") as store:
        study = store.create_study("s", asked, StopAt())
        searched, until = Search(store, study, build(asked)), FIRST
        searched.stopping = lambda: searched.next >= until
        searched.run(StopAt())
        memory, handles = held()
        until = trials
        searched.run(StopAt())
        later, more = held()
    grown = 2**20 * (later - memory) / (trials - FIRST)
    print(
        f"{memory:.0f} to {later:.0f} MiB since trial {FIRST} ({grown:.0f} bytes a trial); handles {handles} to {more}"
    )


# -- measuring ------------------------------------------------------------------------------------------------


def used(command: Sequence[str], how: str = "all") -> tuple[float, float, str]:
    """CPU seconds and MiB of a process whose output is read as `how` says, and what was read last. Raises SystemExit
    where it fails."""
    ours, theirs = pty.openpty() if how == "terminal" else os.pipe()
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parent}:{HERE}", "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    last = b""
    with subprocess.Popen([sys.executable, *command], stdout=theirs, stderr=subprocess.DEVNULL, env=environment) as one:
        os.close(theirs)
        try:
            while read := os.read(ours, 1 << 16):
                last = (last + read)[-1000:]
                if how == "first" and b"\n" in read:
                    break
        except OSError:  # how a terminal says that nobody writes to it any more
            pass
        os.close(ours)
        _, status, usage = os.wait4(one.pid, 0)
        one.returncode = os.waitstatus_to_exitcode(status)
    if one.returncode:
        raise SystemExit(f"{' '.join(command)} ends with {one.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, last.decode().strip()


def made(path: Path, *words: str) -> tuple[float, float, str] | None:
    """What it took to make a database by this program; None: it is there. What was cut short is made anew."""
    if path.exists():
        return None
    half = path.with_suffix(".part")
    for left in path.parent.glob(f"{half.name}*"):
        left.unlink()
    taken = used([__file__, "--folder", str(path.parent), "--make", str(half), *words])
    half.rename(path)
    return taken


def resumed(folder: Path, database: Path) -> tuple[float, float, str]:
    """A resume for one more trial, of a copy."""
    copy = folder / "copy.db"
    shutil.copyfile(database, copy)
    with sqlite3.connect(copy) as connection:
        counted = "SELECT COUNT(*) FROM runs WHERE state IN ('complete', 'pruned', 'failed')"
        trials = connection.execute(counted).fetchone()[0] + 1
    connection.close()
    found = used(["-m", "nas_cli", "resume", "s", "--trials", str(trials), "--db", f"sqlite:///{copy}"])
    return *found[:2], f"{trials:,} counted trials"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "sizes.csv")
    parser.add_argument("--trials", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[""], help="words with which the rows that are wanted begin")
    parser.add_argument("--make", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.make:
        database, trials, *strategy = given.make
        if strategy:
            search(given.folder, Path(database), strategy[0], int(trials))
        else:
            fill(given.folder, Path(database), int(trials))
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--exclude", "*"]
    commit = subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
    table = Rows(given.out, FIELDS, named=3)

    def write(trials: int, what: str, found: tuple[float, float, str]) -> None:
        seconds, mib, note = found
        table.write(dict(zip(FIELDS, (commit, trials, what, f"{seconds:.3f}", f"{mib:.0f}", note), strict=True)))
        print(f"{trials:>9,} {what:<32} {seconds:8.3f} s {mib:6.0f} MiB  {note}", flush=True)

    def wanted(trials: int, what: str) -> bool:
        return what.startswith(tuple(given.only)) and table.get(commit, trials, what) is None

    for trials in given.trials:
        database = given.folder / f"trials{trials}.db"
        made(database, str(trials))
        for what, (words, how) in COMMANDS.items():
            if wanted(trials, what):
                rounds = 1 if what.startswith("trials, all") and trials > LONGEST else given.rounds
                command = ["-m", "nas_cli", *words, "--db", f"sqlite:///{database}"]
                found = [used(command, how) for _ in range(rounds)]
                write(trials, what, (*map(min, zip(*[one[:2] for one in found], strict=True)), ""))
        for strategy in SEARCHED if trials <= LONGEST else ():
            database = given.folder / f"{strategy}{trials}.db"
            taken = made(database, str(trials), strategy)
            if taken is not None:
                write(trials, f"search, {strategy}", taken)
            if wanted(trials, f"resume, {strategy}"):
                found = [resumed(given.folder, database) for _ in range(given.rounds)]
                write(trials, f"resume, {strategy}", min(found))


if __name__ == "__main__":
    main()
