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


class Rejected(TrialError):
    """An evaluation that turns its candidate down after having spent something on it: the trial is rejected, keeps its
    reports, and the same candidate is never paid for again. `seconds`: how long it has taken, of all attempts.

    What it ran of the training is what it has reported before: a step may be a fraction of an epoch.
    """

    def __init__(self, reason: str, message: str, seconds: float = 0.0) -> None:
        super().__init__(reason, message)
        self.seconds = seconds


class Notice(UserWarning):
    """Something that the user should know and that stops nothing; given by `warnings.warn`."""


SYNONYMS = {
    "acc": "accuracy",
    "top1": "accuracy",
    "batch": "batch_size",
    "bs": "batch_size",
    "cutout_length": "cutout",
    "decay": "weight_decay",
    "evolution": "regularized-evolution",
    "flops": "macs",
    "init_channels": "channels",
    "iterations": "trials",
    "latency": "latency_ms",
    "layers": "cells",
    "learning_rate": "lr",
    "madds": "macs",
    "max_epochs": "epochs",
    "multadds": "macs",
    "n_epochs": "epochs",
    "num_cells": "cells",
    "num_epochs": "epochs",
    "num_parameters": "params",
    "parameters": "params",
    "pop_size": "population",
    "population_size": "population",
    "rate": "lr",
    "rea": "regularized-evolution",
    "sample_size": "sample",
    "tournament_size": "sample",
    "valid": "val",
    "validation": "val",
    "wd": "weight_decay",
    "width": "channels",
}
"""What others call a thing, and how it is called here; used for hints alone."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known word that means the same or is the closest, or an empty string."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    within = [name for name in names if len(word) > 2 and word.lower() in name.lower()]
    found = next(iter(filter(None, (_synonym(word, names), *close, *within))), None)
    return f"; did you mean '{found}'?" if found else ""


def _synonym(word: str, names: list[str]) -> str | None:
    """The first known name that is, or ends with, what the word or its parts mean: `valid_acc` is `val_accuracy`."""
    plain = word.lower().replace("-", "_")
    meant = SYNONYMS.get(plain) or "_".join(SYNONYMS.get(part, part) for part in plain.split("_"))
    if meant == plain:
        return None
    return next((name for name in names if name == meant), None) or next(
        (name for name in names if name.endswith(f"_{meant}")), None
    )


def unknown(kind: str, word: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in a list: value, nearest name, and all names."""
    names = list(known)
    listed = f"known: {', '.join(names)}" if names else "there are none here"
    return UsageError(f"unknown {kind} '{word}'{nearest(word, names)} ({listed})")
