"""Errors that a user can act on; each carries the exit code of the command line.

Everything raised on purpose derives from `NasError`. The command line prints its message on stderr
and exits with `exit_code`; any other exception is a defect of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NasError(Exception):
    """Something failed while running."""

    exit_code = 1


class UsageError(NasError):
    """A wrong option, name, value or file content."""

    exit_code = 2


class NotFoundError(NasError):
    """A study, trial, file or data set that does not exist."""

    exit_code = 3


class InfeasibleError(NasError):
    """No candidate satisfies the constraints."""

    exit_code = 4


class MachineError(NasError):
    """The machine stands in the way: missing extra, no device, full disk, unreachable or newer database."""

    exit_code = 5


class VerificationError(NasError):
    """A written file or a stored study does not hold what it should."""

    exit_code = 7


class TrialError(NasError):
    """One candidate cannot be evaluated: the trial fails with this reason, the search goes on.

    `reason` is a short word that is counted (`nan-loss`, `out-of-memory`, `time-limit`, `exception`).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def unknown(kind: str, word: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in a list: value, nearest name, and all names."""
    names = list(known)
    return UsageError(f"unknown {kind} '{word}'{nearest(word, names)} (known: {', '.join(names)})")
