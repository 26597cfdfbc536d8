"""Why a candidate failed: the reason that is counted, and where in the user's own files its exception came from.

Both are stored, so neither holds an absolute path of this machine.
"""

from __future__ import annotations

import os
import re
import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path

from nas_core.errors import Rejected, TrialError

ATTEMPTS = 3  # processes that may end in a candidate, without a report of it in between, before it has failed
WORKER_DIED = "worker-died"  # the reason then
UNSOUND = "unsound: "  # before the reasons of a space (`nas_core.space.HasUnsound`)

FRAMES = 8  # of each exception, the last ones
LENGTH = 4_000  # characters of a traceback, the last ones
LINE = 300  # characters of an exception's message in a reason

_HOME = Path(__file__).resolve().parent.parent
_LIBRARIES = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib"))
_INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]")
_FOLDERS = re.compile(r"(?<![\w.:/~\\])/(?:[^\s/'\"<>|:;,()\[\]]+/)+(?=[^\s/'\"<>|:;,()\[\]])")


@dataclass(frozen=True, slots=True)
class Failure:
    """`reason`: a short word, a colon, and what happened; `traceback`: None where no code of the user's was at work.
    `rejected`: the candidate was turned down (`errors.Rejected`), and how many seconds that took."""

    reason: str
    traceback: str | None = None
    rejected: float | None = None


def failure(error: BaseException) -> Failure:
    """What a candidate's exception comes to. A TrialError keeps its own words; the traceback is that of its cause."""
    if isinstance(error, Rejected):
        return Failure(without_paths(str(error)), rejected=error.seconds)
    if isinstance(error, TrialError):
        return Failure(without_paths(str(error)), user_traceback(error.__cause__ or error))
    first = (str(error).strip().splitlines() or [""])[0][:LINE]
    what = "out-of-memory" if isinstance(error, MemoryError) else "exception"
    return Failure(without_paths(f"{what}: {type(error).__name__}: {first}"), user_traceback(error))


def word(reason: str | None) -> str:
    """The word by which a reason is counted; of what a space knows as unsound its own."""
    return (reason or "unknown").removeprefix(UNSOUND).split(":")[0]


def died(attempts: int, cause: str = "", of: str = "this candidate") -> str:
    """The reason of a candidate that has taken processes down; `cause`: how the last of them ended."""
    last = f", the last with {cause}" if cause else ""
    return f"{WORKER_DIED}: {attempts} processes ended in {of} without a report of it{last}"


def user_traceback(error: BaseException) -> str | None:
    """The traceback of an exception, cut down to the last frames in the user's own files; None where it has none."""
    found = traceback.TracebackException.from_exception(error, compact=True)
    return without_paths("".join(found.format()).rstrip())[-LENGTH:] if _cut(found) else None


def user_place(error: BaseException) -> str | None:
    """The last place in the user's own files that an exception came from: `my_space.py, line 12, in allowed`."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_users(frame.filename):
            return f"{without_paths(os.path.abspath(frame.filename))}, line {frame.lineno}, in {frame.name}"
    return None


def without_paths(text: str) -> str:
    """The text with paths below this folder made relative, and of other absolute paths the last name alone."""
    return _FOLDERS.sub("", text.replace(f"{os.getcwd()}{os.sep}", ""))


def _cut(found: traceback.TracebackException) -> int:
    """Leave only the user's frames in an exception and in those behind it; how many there are."""
    own = [frame for frame in found.stack if _is_users(frame.filename)]
    found.stack[:] = own[-FRAMES:]
    return len(own) + sum(_cut(one) for one in (found.__cause__, found.__context__) if one is not None)


def _is_users(file: str) -> bool:
    if file.startswith("<") or file.startswith(_LIBRARIES) or _INSTALLED.search(file):
        return False
    path = Path(file).absolute()
    package = path.relative_to(_HOME).parts[0] if path.is_relative_to(_HOME) else None
    return package is None or not (_HOME / package / "__init__.py").is_file()
