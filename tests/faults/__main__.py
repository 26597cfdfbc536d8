"""Plants faults one at a time and says which test finds each: `python -m tests.faults [NAME...]`.

Every fault is planted in a copy of the tree. First run the files of tests that name its module, the nearest first, then
the tests that execute the changed lines, then the folders of tests of that package, and the whole gate only for what
survived all; every test runs once at most, and the first failure ends it, if that test passes without the fault. What
came out is kept in `results.csv`: a fault with a result of this commit is not tried again, and who found it before is
asked first.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

from tests.faults import record
from tests.faults.faults import HERE, ROOT, Fault, load, misfits
from tests.faults.plugin import PLAN
from tests.zygote import Call, Zygote

STAGES = NEAR, LINES, FOLDER, GATE = "near", "lines", "folder", "gate"
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
# What tests import that is not ours, and takes seconds: imported once, before all forks.
PRELOADED = (
    "hypothesis",
    "optuna",
    "pytest",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.ensemble",
    "sqlalchemy",
    "torch._dynamo",
    "torch.profiler",
    "torch_geometric.nn",
    "typer",
)
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


@dataclass(frozen=True)
class Round:
    """Tests that run together: of `paths` those of `only` in that order, or all but `without` and those of the files
    that are `ignored`; for `limit` seconds at most."""

    stage: str
    paths: Sequence[str]
    only: Sequence[str] | None = None
    without: Iterable[str] = ()
    ignored: Sequence[str] = ()
    limit: float = LARGEST[0]


class Copy:
    """A copy of the tree, in which one fault at a time is planted; its tests run in forks of `zygote`."""

    def __init__(self, root: Path, place: Path, zygote: Zygote) -> None:
        self.root, self.tree, self.place, self.zygote = root, place / "tree", place, zygote
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

    def run(self, tests: Round, without: Iterable[str] = ()) -> str | None:
        """The first test that fails; None where none does."""
        running, failed, plan = (self.place / name for name in ("running", "failed", "plan.json"))
        running.unlink(missing_ok=True)
        failed.unlink(missing_ok=True)
        plan.write_text(
            json.dumps(
                {
                    "only": tests.only,
                    "without": sorted({*without, *tests.without}),
                    "running": str(running),
                    "failed": str(failed),
                }
            )
        )
        output = self.place / "output"
        output.unlink(missing_ok=True)
        arguments = ["-x", "-q", "-p", "tests.faults.plugin", "-p", "no:cacheprovider"]
        arguments += [
            f"--basetemp={self.place / 'basetemp'}",
            *(f"--ignore={file}" for file in tests.ignored),
            *tests.paths,
        ]
        environment = {PLAN: str(plan), "PYTHONPATH": str(self.tree)}
        if "NAS_SHARED" not in os.environ:
            environment["NAS_SHARED"] = str(self.root.parent / "shared")
        text, tree = str(output), str(self.tree)
        call = Call("pytest:main", arguments, tree, text, text, environment=environment, path=[tree])
        code = self.zygote.wait(self.zygote.start(call), tests.limit)
        if code is None:
            return f"{running.read_text()} (does not end)"
        shutil.rmtree(self.tree / ".hypothesis", ignore_errors=True)
        if code in (0, 5):  # all passed, or there was nothing to run
            return None
        if failed.exists():
            return failed.read_text(encoding="utf-8")
        if code < 0 and running.exists():
            return f"{running.read_text(encoding='utf-8')} (signal {-code})"
        raise SystemExit(f"pytest ended with {code}:\n{output.read_text()[-3000:]}")


class Finder:
    """Searches for the tests that find faults. A test counts that passes without the fault: `red` ones do not."""

    def __init__(self, copy: Copy, records: Path) -> None:
        self.copy, self.records = copy, records
        self.red, self.green = set[str](), set[str]()
        tests = sorted((copy.tree / "tests").rglob("test_*.py"))
        self.texts = {str(path.relative_to(copy.tree)): path.read_text(encoding="utf-8") for path in tests}

    @cached_property
    def known(self) -> record.Record:
        return record.load(self.records)

    def search(self, fault: Fault, first: str, until: str) -> tuple[str, str]:
        """The last stage that ran, and who found the fault in it; `first` is asked before all others."""
        text = (self.copy.tree / fault.file).read_text(encoding="utf-8")
        for tests in self._rounds(fault, text, first, STAGES[: STAGES.index(until) + 1]):
            while True:
                self.copy.write(fault.file, fault.planted(text))
                try:
                    found = self.copy.run(tests, self.red)
                finally:
                    self.copy.write(fault.file, text)
                if not found:
                    break
                if self._passes(found):
                    return tests.stage, found
        return until, ""

    def _rounds(self, fault: Fault, text: str, first: str, stages: Sequence[str]) -> Iterator[Round]:
        """The tests of each stage in turn; what an earlier one has run is left out."""
        if first in self.texts or first.partition("::")[0] in self.texts:
            yield Round(NEAR, [first.partition("::")[0]], [first] if "::" in first else None)
        files = near(fault.file, self.texts)
        yield from (Round(NEAR, [file]) for file in files)
        if LINES not in stages:
            return
        tests = sorted(self.known.tests(fault, text), key=lambda test: _distance(fault, test))
        left = [test for test in tests if test.partition("::")[0] in self.texts.keys() - set(files)]
        if left:
            yield Round(LINES, sorted({test.partition("::")[0] for test in left}), left, limit=_limit(self.known, left))
        done = {*self.known.failed, *tests}
        folders = _folders(fault.file)
        there = [folder for folder in folders if (self.copy.tree / folder).is_dir()]
        if FOLDER in stages and there:
            yield Round(FOLDER, there, None, done, files, _limit(self.known, None))
        done |= {test for test in self.known.seconds if test.startswith(tuple(f"{folder}/" for folder in folders))}
        if GATE in stages:
            yield Round(GATE, [], None, done, files, _limit(self.known, None))

    def _passes(self, found: str) -> bool:
        """Whether a test that failed passes without the fault."""
        test = found.partition(" (")[0] if found.endswith(")") else found
        if test not in self.green | self.red:
            fails = self.copy.run(Round(NEAR, [test.partition("::")[0]], [test] if "::" in test else None))
            (self.red if fails else self.green).add(test)
        return test in self.green


def near(file: str, texts: Mapping[str, str]) -> list[str]:
    """The files of tests that name a module in their name, import it, or import from its package: in this order, the
    shortest first."""
    module = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    package, _, name = module.rpartition(".")
    imports = re.compile(rf"^\s*(from|import) {re.escape(module)}\b", re.MULTILINE) if package else None
    beside = re.compile(rf"^\s*from {re.escape(package)}(\.\w+)? import (?P<names>.*)", re.MULTILINE)

    def rank(test: str) -> int | None:
        text = texts[test]
        if name in Path(test).stem:
            return 0
        if (imports and imports.search(text)) or any(
            name in found["names"].split(", ") for found in beside.finditer(text)
        ):
            return 1
        return 2 if "." in package and beside.search(text) else None

    ranks = {test: rank(test) for test in texts}
    return sorted((t for t, r in ranks.items() if r is not None), key=lambda t: (ranks[t], len(texts[t])))


def _folders(file: str) -> list[str]:
    return [f"tests/{name}" for name in FOLDERS.get(file.partition("/")[0], ())]


def _distance(fault: Fault, test: str) -> int:
    """How far a test is from a fault, by their names: of its module, of its package, or of another one."""
    if Path(fault.file).stem in Path(test.partition("::")[0]).stem:
        return 0
    folder = test.removeprefix("tests/").partition("/")[0]
    return 1 if f"tests/{folder}" in _folders(fault.file) else 2


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


def main(arguments: Sequence[str], root: Path = ROOT, preloaded: Sequence[str] = PRELOADED) -> int:
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
    with ExitStack() as stack:
        finder: Finder | None = None
        for fault in chosen:
            before = held(kept).get(fault.name)
            if before and before.digest == fault.digest and _decided(before, now, options.until):
                result = before
            else:
                if finder is None:
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
                    finder = Finder(Copy(root, folder, stack.enter_context(Zygote(preloaded, os.environ))), place)
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
