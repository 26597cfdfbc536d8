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


@dataclass(frozen=True)
class Record:
    """`seconds`: of every test that was recorded. `failed`: those that find nothing, as they fail without a fault.
    `sources`: the files as they were."""

    data: CoverageData
    seconds: Mapping[str, float]
    failed: frozenset[str]
    sources: Mapping[str, str]

    def tests(self, fault: Fault, text: str) -> list[str]:
        """The tests that execute what a fault changes in the file's present text, the shortest first. What runs at
        import is taken to be executed by whoever executes anything else of the file."""
        if fault.file not in self.sources:
            return []
        lines, inside = statements(text, changed_lines(text, fault.planted(text)))
        contexts = self.data.contexts_by_lineno(fault.file)
        names: set[str] = set()
        if inside:
            recorded = (then for line in lines for then in self._then(fault.file, text, line))
            names = {name for then in recorded for name in contexts.get(then, ())} - {""}
        names = names or {name for line in contexts.values() for name in line} - {""}
        files = {name for name in names if "::" not in name}
        found = {test for test in self.seconds if test in names or test.partition("::")[0] in files}
        return sorted(found - self.failed, key=lambda test: (self.seconds[test], test))

    def _then(self, file: str, text: str, line: int) -> Iterable[int]:
        """The lines that a line of the present text was when the record was made."""
        old, new = self.sources[file].splitlines(), text.splitlines()
        for _, start, end, first, last in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if first < line <= last:
                return [start + line - first] if end - start == last - first else range(start + 1, end + 1)
        return []


def make(paths: Sequence[str], place: Path = ROOT / PLACE, root: Path = ROOT) -> int:
    """Run tests (all of the gate without `paths`) under coverage and add them to the record; pytest's exit code."""
    place.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={Path(__file__).parent / 'coveragerc'}"]
    command += [f"--data-file={place / 'new'}", "-m", "pytest", "-q", "-p", "tests.faults.plugin", *paths]
    environment = {**os.environ, RECORD: str(place / "tests.json"), "OMP_NUM_THREADS": "1", "COVERAGE_CORE": "ctrace"}
    code = subprocess.run(command, cwd=root, env=environment, check=False).returncode
    new = json.loads((place / "tests.json").read_text(encoding="utf-8"))
    record = {"seconds": {}, "failed": [], "sources": {}, **_stored(place)}
    data, added = CoverageData(str(place / "coverage")), CoverageData(str(place / "new"))
    added.read()
    data.read()
    sources = {name: (root / name).read_text(encoding="utf-8") for name in sorted(added.measured_files())}
    changed = [name for name, text in record["sources"].items() if sources.get(name, text) != text]
    if changed:
        raise SystemExit(f"the record is of another {', '.join(changed)}; remove {place} and record all again")
    data.update(added)
    data.write()
    record["seconds"] |= new["seconds"]
    record["failed"] = sorted({*record["failed"], *new["failed"]})
    record["sources"] |= sources
    (place / "record.json").write_text(json.dumps(record), encoding="utf-8")
    (place / "new").unlink()
    (place / "tests.json").unlink()
    return code


def load(place: Path = ROOT / PLACE) -> Record:
    """What was recorded. Raises SystemExit where nothing was."""
    stored = _stored(place)
    if not stored:
        raise SystemExit(
            "there is no record of which tests execute which lines; make it once: python -m tests.faults --record"
        )
    data = CoverageData(str(place / "coverage"))
    data.read()
    return Record(data, stored["seconds"], frozenset(stored["failed"]), stored["sources"])


def _stored(place: Path) -> dict:
    path = place / "record.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
