"""Every write of the sessions, one after the other: `python -m tests.crash OUT.csv [SESSION...]`.

What `-m slow tests/crash` asserts, as a table that a later run goes on with: a point that is there is not tried again.
`python -m tests.crash random OUT.csv` kills at random moments (`random_kills.py`), and `python -m tests.crash outcomes`
prints what both tables came to.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

from tests.crash import outcomes, random_kills
from tests.crash.injection import IO_ERROR, KILL, NO_SPACE, program
from tests.crash.test_every_write import ALL, SESSIONS

WAYS = {"KILL": KILL, "ENOSPC": NO_SPACE, "EIO": IO_ERROR}


def main(out: Path, names: list[str]) -> int:
    done: set[tuple[str, ...]] = set()
    if out.exists():
        with out.open(newline="") as file:
            done = {tuple(row[:3]) for row in csv.reader(file)}
    failed = 0
    with program(*ALL) as found, out.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                session = SESSIONS[name](Path(folder), found)
                left = [(way, point) for way in WAYS for point in session.points if (name, way, str(point)) not in done]
                for way, point in left:
                    try:
                        ended = "noticed" if session.check(point, WAYS[way]) else "unnoticed"
                    except AssertionError as error:
                        ended, failed = "failed", failed + 1
                        print(f"{name} {way} {point}: {error}", file=sys.stderr)
                    writer.writerow((name, way, point, ended))
                    file.flush()
            print(f"{name}: {len(left)} points tried", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["random"]:
        sys.exit(random_kills.main(sys.argv[2:]))
    if sys.argv[1:] == ["outcomes"]:
        sys.exit(print(outcomes.table()))
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:] or list(SESSIONS)))
