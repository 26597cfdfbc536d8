"""The first Ctrl-C (or SIGTERM) stops after checkpointing, the second stops now; both can be resumed."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any, Self


class Stopper:
    """While entered, notices signals. `stopping()` says whether one has come."""

    def __init__(self) -> None:
        self._stopping = False
        self._before: dict[signal.Signals, Any] = {}

    def stopping(self) -> bool:
        return self._stopping

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._notice)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        print("nas: stopping after the next checkpoint; once more stops now", file=sys.stderr)
