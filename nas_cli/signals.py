"""The first Ctrl-C, SIGTERM or SIGHUP stops after checkpointing, a second Ctrl-C or SIGTERM at once; both can be
resumed."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any, Self

from nas_cli.errors import INTERRUPTED
from studies.executors.worker import STOPPING


class Stopped(KeyboardInterrupt):
    """The second signal: at once. `code` is the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


class Stopper:
    """While entered, notices signals. `stopping()` says whether one has come, `code` the exit code then: 128 and the
    number of the signal, as a shell gives it."""

    def __init__(self) -> None:
        self._stopping = False
        self._before: dict[signal.Signals, Any] = {}
        self.code = INTERRUPTED

    def stopping(self) -> bool:
        return self._stopping

    def __enter__(self) -> Self:
        for number in STOPPING:
            before = signal.getsignal(number)
            if number != signal.SIGINT and before == signal.SIG_IGN:
                continue  # as `nohup` wants it
            self._before[number] = before
            signal.signal(number, self._notice)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if not self._stopping:
            self._stopping, self.code = True, 128 + number
            print("nas: stopping after the next checkpoint; once more stops now", file=sys.stderr)
        elif number in (signal.SIGINT, signal.SIGTERM):  # a terminal that closes may say so more than once
            raise Stopped(self.code)
