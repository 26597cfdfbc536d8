"""What a dashboard costs the search that it shows: trials per second beside one with an open page, and alone.

    python benchmarks/dashboard.py [--trials 2000] [--repeats 7] [--work 0,300000] [--rows FILE.csv]

A search by random proposals, whose evaluator counts to `work` (0: the store's writes are all there is), is run in turns
alone, and beside `nas dashboard` with the page of its study open in a headless Chromium, where it hears of every change
and renews what it shows. Trials per second are those between the beginning of the first trial and the end of the last
one, as they are stored, and beside them stand those per second of the search's own CPU time, its start included: where
other work takes the cores, only these tell waiting for locks and more work from waiting for a core. Ratios are of
medians. A run that was measured is not measured again.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import sqlalchemy as sa
from rows import Rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from nas_core.records import TRIAL
from studies.store import tables as t
from studies.store.store import Store
from tests.browser import Page, started

ALONE, BESIDE = "alone", "beside"
FIELDS = ("work", "trials", "repeat", "mode", "rate", "cpu", "renewed")
EVALUATOR = '''
from nas_core.config import Config
from nas_core.evaluation import Metric, Report
from nas_core.task import Task


class Count:
    """Counts, and then scores by the architecture's key."""

    class Settings(Config):
        work: int = 0

    metrics = (Metric("score"),)
    fidelity = None
    deterministic = True
    in_process = True
    task = Task(kind="image-classification", input_shape=(1, 8, 8), outputs=10)

    @classmethod
    def open(cls, settings, problem):
        return cls(settings), "made"

    def __init__(self, settings):
        self.settings = settings

    def identity(self, arch):
        return None

    def costs(self, arch, names):
        return {}

    def evaluate(self, proposal, budget, context):
        for _ in range(self.settings.work):
            pass
        yield Report(1, {"score": int(proposal.arch.key, 16) % 1000 / 1000})
'''


def nas(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "nas_cli", *words]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def shown(folder: Path) -> Iterator[Page]:
    """The open page of the study `s`."""
    command = [sys.executable, "-m", "nas_cli", "dashboard", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            with started() as browser:
                page = browser.page()
                page.look(1200)
                page.go(f"{address}study?name=s")
                page.until("document.getElementById('live').textContent === 'live'")
                yield page
                page.go("about:blank")
        finally:
            process.terminate()


def resumed(folder: Path, trials: int) -> float:
    """The seconds of CPU that the search takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    nas(folder, "resume", "s", "--trials", str(trials))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(mode: str, work: int, trials: int) -> tuple[float, float, int]:
    """Trials per second and per second of CPU, and the newest trial that the page showed when the search had ended."""
    with tempfile.TemporaryDirectory() as made:
        folder, seen = Path(made), 0
        (folder / "mine.py").write_text(EVALUATOR)
        evaluator = ["--evaluator", "mine.py:Count", "-s", f"evaluator.work={work}"]
        nas(folder, "search", "--study", "s", "--space", "darts", *evaluator, "--strategy", "random", "--trials", "1")
        if mode == BESIDE:
            with shown(folder) as page:
                cpu = resumed(folder, trials)
                seen = int(page.evaluate("document.querySelector('#rows tbody a').textContent"))
                assert page.errors == [], page.errors
        else:
            cpu = resumed(folder, trials)
        with Store(f"sqlite:///{folder / 'nas.db'}", reading=True) as store:
            r = t.runs.c
            columns = sa.func.min(r.started), sa.func.max(r.ended), sa.func.count()
            (row,) = store.read(sa.select(*columns).where(t.is_kind(r, TRIAL), r.number > 0))
        return row[2] / (row[1] - row[0]), row[2] / cpu, seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--work", default="0,300000", help="what the evaluator counts to, comma-separated")
    parser.add_argument("--rows", type=Path, default=Path("dashboard.csv"))
    asked = parser.parse_args()
    rows = Rows(asked.rows, FIELDS, 4)
    for work in map(int, asked.work.split(",")):
        trials = asked.trials if work == 0 else asked.trials // 5
        found: dict[str, list[Mapping[str, str]]] = {ALONE: [], BESIDE: []}
        for repeat in range(asked.repeats):
            for mode in (ALONE, BESIDE) if repeat % 2 == 0 else (BESIDE, ALONE):
                row = rows.get(work, trials, repeat, mode)
                if row is None:
                    rate, cpu, seen = measured(mode, work, trials)
                    row = rows.write({"work": work, "trials": trials, "repeat": repeat, "mode": mode,
                                      "rate": round(rate, 2), "cpu": round(cpu, 2), "renewed": seen})  # fmt: skip
                found[mode].append(row)
                print(f"work {work}, repeat {repeat}, {mode}: {row['rate']} a second, {row['cpu']} of CPU", flush=True)
        for field in ("rate", "cpu"):
            alone, beside = (statistics.median(float(row[field]) for row in found[mode]) for mode in (ALONE, BESIDE))
            print(f"work {work}, {field}: {alone:.1f} alone, {beside:.1f} beside, ratio {beside / alone:.3f}")


if __name__ == "__main__":
    main()
