"""A time limit that also stops code which never comes back to us."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator
from types import FrameType

from nas_core.errors import TrialError
from nas_core.evaluation import Report

GRACE = 2.0  # seconds in which the evaluator's own check, at the next batch, comes first


def within(reports: Iterator[Report], seconds: float | None) -> Generator[Report]:
    """The reports; raises TrialError `time-limit` when they have taken more than `seconds` and a grace.

    By the interval timer of the process: only Python code of the main thread can be stopped so, and a call into a
    library only when it returns.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield from reports
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TrialError("time-limit", f"the candidate did not stop within {seconds:g} s")

    left = seconds + GRACE
    while True:
        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, left)
        try:
            report = next(reports, None)
        finally:
            left = signal.setitimer(signal.ITIMER_REAL, 0)[0] or 0.01
            signal.signal(signal.SIGALRM, before)
        if report is None:
            return
        yield report
