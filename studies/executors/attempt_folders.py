"""Each attempt of a queue works in a folder of its own inside of the run's, so that a worker who was thought dead and
goes on writes where nobody reads.

Who begins an attempt copies what the one before has left, under new names on the disk even for files that somebody
still has open; the driver moves what an attempt leaves in good order to where everybody expects it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from itertools import count
from pathlib import Path

_PREFIX = "attempt-"
_TRIES = 5  # copies of a folder in which somebody still writes


def begin(run: Path, attempt: int) -> Path:
    """The folder of an attempt, with what it can go on from. Raises OSError."""
    own = _of(run, attempt)
    if own.is_dir():  # another worker has given it back
        return own
    staged = own.with_name(f"{own.name}.new")
    for tries in count(1):
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        earlier = [path for path in _attempts(run) if _number(path) < attempt]
        try:
            for path in max(earlier, key=_number, default=run).iterdir():
                _copy(path, staged / path.name)
            break
        except FileNotFoundError:  # something was replaced meanwhile: a copy without its successor would be torn
            if tries == _TRIES:
                raise
    os.replace(staged, own)
    for path in earlier:
        shutil.rmtree(path, ignore_errors=True)
    return own


def hand_in(run: Path, attempt: int) -> None:
    """Move what an attempt has left to the run's folder; whoever was killed in this does it again. Raises OSError."""
    own = _of(run, attempt)
    for path in own.iterdir() if own.is_dir() else ():
        target = run / path.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(path, target)
    for path in _attempts(run):
        shutil.rmtree(path, ignore_errors=True)


def abandon(run: Path, attempt: int, *, wanted: bool) -> None:
    """Remove what an attempt has left that is over for its worker, and the run's folder where nothing else is in it.
    Where the run is `wanted` another attempt goes on from it, unless that has begun already."""
    if wanted and not any(_number(path) > attempt for path in _attempts(run)):
        return
    shutil.rmtree(_of(run, attempt), ignore_errors=True)
    with contextlib.suppress(OSError):
        run.rmdir()


def _of(run: Path, attempt: int) -> Path:
    return run / f"{_PREFIX}{attempt}"


def _attempts(run: Path) -> list[Path]:
    return [path for path in run.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]


def _number(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _copy(path: Path, target: Path) -> None:
    """Without what belongs to attempts, and without files that were being written."""
    if path.name.startswith(_PREFIX) or path.suffix == ".tmp":
        return
    if path.is_dir():
        target.mkdir()
        for inside in path.iterdir():
            _copy(inside, target / inside.name)
    else:
        shutil.copyfile(path, target)
