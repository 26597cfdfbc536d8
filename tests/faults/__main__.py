"""Plants faults one at a time and says which test finds each: `python -m tests.faults [NAME...]`.

Every fault is planted in a copy of the tree. First run the tests that execute the changed lines, then the folders of
tests of that package, and the whole gate only for what survived both; every test runs once at most, and the first
failure ends it, if that test passes without the fault. What came out is kept in `results.csv`: a fault with a result
of this commit is not tried again, and who found it before is asked first.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from tests.faults import record
from tests.faults.faults import HERE, ROOT, Fault, load, misfits
from tests.faults.plugin import PLAN

STAGES = LINES, FOLDER, GATE = "lines", "folder", "gate"
FOLDERS = {
    "nas_core": ("core", "contracts"),
    "search_spaces": ("fidelity", "contracts"),
    "training": ("training", "contracts"),
    "predictors": ("fidelity", "contracts"),
    "compressors": ("fidelity", "contracts"),
    "strategies": ("fidelity", "contracts"),
    "studies": ("studies", "crash"),
    "nas_cli": ("cli", "docs"),
}
RESULTS = HERE / "results.csv"
LARGEST = 300, 10  # seconds, and times what the tests took: beyond the sum, what runs is caught in the fault


@dataclass(frozen=True)
class Result:
    """`tried`: the last stage that ran. `found_by`: the test that failed, or nothing. `seconds`: of all that ran."""

    name: str
    digest: str
    commit: str
    tried: str
    found_by: str
    seconds: float


class Copy:
    """A copy of the tree, in which one fault at a time is planted."""

    def __init__(self, root: Path, place: Path) -> None:
        self.root, self.tree, self.place = root, place / "tree", place
        self.stamp = time.time()
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=root, check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            if (root / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, self.tree / name)

    def write(self, file: str, text: str) -> None:
        """Each time with a later time, which is what compiled files are checked against."""
        path = self.tree / file
        path.write_text(text, encoding="utf-8")
        self.stamp += 2
        os.utime(path, (self.stamp, self.stamp))

    def run(self, paths: Sequence[str], only: Sequence[str] | None, without: Sequence[str], limit: float) -> str | None:
        """The first test that fails among `only`, or among all of `paths`; None where none does."""
        running, failed, plan = (self.place / name for name in ("running", "failed", "plan.json"))
        running.unlink(missing_ok=True)
        failed.unlink(missing_ok=True)
        plan.write_text(
            json.dumps({"only": only, "without": sorted(without), "running": str(running), "failed": str(failed)})
        )
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "tests.faults.plugin", "-p", "no:cacheprovider"]
        command += [f"--basetemp={self.place / 'basetemp'}", *paths]
        environment = {**os.environ, PLAN: str(plan), "PYTHONPATH": str(self.tree), "OMP_NUM_THREADS": "1"}
        environment.setdefault("NAS_SHARED", str(self.root.parent / "shared"))
        with (self.place / "output").open("w") as output:
            process = subprocess.Popen(
                command, cwd=self.tree, env=environment, stdout=output, stderr=output, start_new_session=True
            )
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                return f"{running.read_text()} (does not end)"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        shutil.rmtree(self.tree / ".hypothesis", ignore_errors=True)
        if code in (0, 5):  # all passed, or there was nothing to run
            return None
        if failed.exists():
            return failed.read_text(encoding="utf-8")
        if code < 0 and running.exists():
            return f"{running.read_text(encoding='utf-8')} (signal {-code})"
        raise SystemExit(f"pytest ended with {code}:\n{(self.place / 'output').read_text()[-3000:]}")


@dataclass
class Finder:
    """Searches for the tests that find faults. A test counts that passes without the fault: `red` ones do not."""

    copy: Copy
    known: record.Record
    red: set[str] = field(default_factory=set)
    green: set[str] = field(default_factory=set)

    def search(self, fault: Fault, first: str, until: str) -> tuple[str, str]:
        """The last stage that ran, and who found the fault in it; `first` is asked before all others."""
        text = (self.copy.tree / fault.file).read_text(encoding="utf-8")
        tests = sorted(self.known.tests(fault, text), key=lambda test: (test != first, _distance(fault, test)))
        for stage in STAGES[: STAGES.index(until) + 1]:
            while True:
                self.copy.write(fault.file, fault.planted(text))
                try:
                    found = self._stage(stage, fault, tests)
                finally:
                    self.copy.write(fault.file, text)
                if not found:
                    break
                if self._passes(found):
                    return stage, found
        return until, ""

    def _stage(self, stage: str, fault: Fault, tests: Sequence[str]) -> str | None:
        """The first test that fails in a stage; what an earlier one has run is left out."""
        copy, known = self.copy, self.known
        if stage == LINES:
            left = [test for test in tests if test not in self.red]
            files = sorted({test.partition("::")[0] for test in left})
            there = [file for file in files if (copy.tree / file).is_file()]
            return copy.run(there, left, (), _limit(known, left)) if there else None
        names = FOLDERS.get(fault.file.partition("/")[0], ())
        folders = [f"tests/{name}" for name in names if (copy.tree / "tests" / name).is_dir()]
        done = {*known.failed, *self.red, *tests}
        if stage == FOLDER:
            return copy.run(folders, None, sorted(done), _limit(known, None)) if folders else None
        done |= {test for test in known.seconds if test.startswith(tuple(f"{name}/" for name in folders))}
        return copy.run([], None, sorted(done), _limit(known, None))

    def _passes(self, found: str) -> bool:
        """Whether a test that failed passes without the fault."""
        test = found.partition(" (")[0] if found.endswith(")") else found
        if test not in self.green | self.red:
            fails = self.copy.run([test.partition("::")[0]], [test] if "::" in test else None, (), LARGEST[0])
            (self.red if fails else self.green).add(test)
        return test in self.green


def _distance(fault: Fault, test: str) -> int:
    """How far a test is from a fault, by their names: of its module, of its package, or of another one."""
    if Path(fault.file).stem in Path(test.partition("::")[0]).stem:
        return 0
    folder = test.removeprefix("tests/").partition("/")[0]
    return 1 if folder in FOLDERS.get(fault.file.partition("/")[0], ()) else 2


def _limit(known: record.Record, tests: Sequence[str] | None) -> float:
    least, times = LARGEST
    return least + times * sum(known.seconds[test] for test in (known.seconds if tests is None else tests))


def commit(root: Path) -> str:
    """The commit of a tree, with a `+` where something but the faults has changed since."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!tests/faults")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def held(path: Path) -> dict[str, Result]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["name"]: Result(**{**row, "seconds": float(row["seconds"])}) for row in csv.DictReader(file)}


def keep(path: Path, result: Result, order: Sequence[str]) -> None:
    """Beside what others have kept meanwhile, in the order of the faults."""
    results = {**held(path), result.name: result}
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [one.name for one in fields(Result)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(results[name]) for name in order if name in results)
    new.replace(path)


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    options = _parser().parse_args(arguments)
    place = root / record.PLACE
    if options.record:
        return record.make(options.names, place, root)
    path, kept = root / HERE.relative_to(ROOT) / "faults.yaml", root / RESULTS.relative_to(ROOT)
    faults = load(path)
    named = {fault.name: fault for fault in faults}
    if not named.keys() >= set(options.names):
        raise SystemExit(f"no such fault: {', '.join(sorted(set(options.names) - named.keys()))}")
    wrong = list(misfits(faults, root))
    if wrong:
        raise SystemExit("\n".join(wrong))
    chosen = [named[name] for name in options.names] or faults
    now, order = commit(root), list(named)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        finder: Finder | None = None
        for fault in chosen:
            before = held(kept).get(fault.name)
            if before and before.digest == fault.digest and _decided(before, now, options.until):
                result = before
            else:
                finder = finder or Finder(Copy(root, Path(folder)), record.load(place))
                begun, first = time.monotonic(), before.found_by if before else ""
                tried, found = finder.search(fault, first, options.until)
                result = Result(fault.name, fault.digest, now, tried, found, round(time.monotonic() - begun, 1))
                keep(kept, result, order)
            print(_line(fault, result), flush=True)
    return _summary(chosen, held(kept))


def _decided(result: Result, now: str, until: str) -> bool:
    """Whether a result of an earlier run answers this one."""
    far = STAGES.index(result.tried) >= STAGES.index(until)
    return result.commit == now and not now.endswith("+") and (bool(result.found_by) or far)


def _line(fault: Fault, result: Result) -> str:
    if result.found_by:
        return f"{fault.name}: found by {result.found_by} ({result.tried}, {result.seconds:.0f} s)"
    return f"{fault.name}: UNSEEN after {result.tried} ({result.seconds:.0f} s): {fault.unseen or fault.breaks}"


def _summary(chosen: Sequence[Fault], results: Mapping[str, Result]) -> int:
    found = [fault for fault in chosen if fault.name in results and results[fault.name].found_by]
    print(f"{len(found)} of {len(chosen)} faults found ({len(found) / max(len(chosen), 1):.1%})")
    return 0 if len(found) >= 0.95 * len(chosen) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Plant faults, and see who finds them.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of faults, by default all; with --record, of tests")
    parser.add_argument("--record", action="store_true", help="record which tests execute which lines, then end")
    parser.add_argument("--until", choices=STAGES, default=GATE, help="the last stage that runs (default: gate)")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the tests that run end as well
    sys.exit(main(sys.argv[1:]))
