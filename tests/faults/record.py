"""Which tests execute which lines, recorded once by coverage's contexts, and read for the code as it is now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from coverage import CoverageData

from tests.faults.faults import ROOT, Fault, changed_lines, statements
from tests.faults.plugin import RECORD

PLACE = ".faults"  # below the root; git ignores it


@dataclass(frozen=True, eq=False)
class Part:
    """What one run recorded. `seconds`: of every test that ran. `failed`: those that find nothing, as they fail without
    a fault. `sources`: the files as they were."""

    data: CoverageData
    seconds: Mapping[str, float]
    failed: frozenset[str]
    sources: Mapping[str, str]

    def executing(self, fault: Fault, text: str) -> set[str]:
        """The tests that execute what a fault changes in the file's present text. What runs at import is taken to be
        executed by whoever executes anything else of the file."""
        if fault.file not in self.sources:
            return set()
        lines, inside = statements(text, changed_lines(text, fault.planted(text)))
        contexts = self.data.contexts_by_lineno(fault.file)
        names: set[str] = set()
        if inside:
            recorded = (then for line in lines for then in self._then(fault.file, text, line))
            names = {name for then in recorded for name in contexts.get(then, ())} - {""}
        names = names or {name for line in contexts.values() for name in line} - {""}
        files = {name for name in names if "::" not in name}
        return {test for test in self.seconds if test in names or test.partition("::")[0] in files}

    def _then(self, file: str, text: str, line: int) -> Iterable[int]:
        """The lines that a line of the present text was when the record was made."""
        old, new = self.sources[file].splitlines(), text.splitlines()
        for _, start, end, first, last in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if first < line <= last:
                return [start + line - first] if end - start == last - first else range(start + 1, end + 1)
        return []


class Record:
    """All that was recorded, perhaps in several runs and of several states of the code: of a test the newest counts."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._newest = {test: part for part in parts for test in part.seconds}
        self.seconds = {test: part.seconds[test] for test, part in self._newest.items()}
        self.failed = {test for test, part in self._newest.items() if test in part.failed}

    def tests(self, fault: Fault, text: str) -> list[str]:
        """The tests that execute what a fault changes (`Part.executing`) and find something, the shortest first."""
        found = {
            test
            for part in set(self._newest.values())
            for test in part.executing(fault, text)
            if self._newest[test] is part
        }
        return sorted(found - self.failed, key=lambda test: (self.seconds[test], test))


def make(paths: Sequence[str], place: Path = ROOT / PLACE, root: Path = ROOT) -> int:
    """Run tests (all of the gate without `paths`) under coverage and add them to the record; pytest's exit code."""
    folder = place / f"{len(list(place.glob('*/record.json'))) + 1:03}"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={Path(__file__).parent / 'coveragerc'}"]
    command += [f"--data-file={folder / 'coverage'}", "-m", "pytest", "-q", "-p", "tests.faults.plugin", *paths]
    tests = folder / "tests.json"
    environment = {**os.environ, RECORD: str(tests), "OMP_NUM_THREADS": "1", "COVERAGE_CORE": "ctrace"}
    code = subprocess.run(command, cwd=root, env=environment, check=False).returncode
    data = CoverageData(str(folder / "coverage"))
    data.read()
    sources = {name: (root / name).read_text(encoding="utf-8") for name in sorted(data.measured_files())}
    record = {**json.loads(tests.read_text(encoding="utf-8")), "sources": sources}
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    tests.unlink()
    return code


def load(place: Path = ROOT / PLACE) -> Record:
    """What was recorded. Raises SystemExit where nothing was."""
    parts = []
    for path in sorted(place.glob("*/record.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        data = CoverageData(str(path.with_name("coverage")))
        data.read()
        parts.append(Part(data, stored["seconds"], frozenset(stored["failed"]), stored["sources"]))
    if not parts:
        raise SystemExit(
            "there is no record of which tests execute which lines; make it once: python -m tests.faults --record"
        )
    return Record(parts)
