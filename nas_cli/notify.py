"""`--notify`: a command of the user's own that runs at a new best, at a trial that fails, and at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Self

from nas_cli.render import number
from nas_core.errors import UsageError
from nas_core.strategy import State
from studies.events import Event, Finished, Listener
from studies.search.start import Watching

if TYPE_CHECKING:
    from studies.search.endings import Ending
    from studies.search.start import Opened

BEST, FAILED, END = "best", "failed", "end"
SECONDS = 60.0  # that a command may take


@dataclass(frozen=True)
class Message:
    """What a command is told: an event, the study, the trial that it is about, and a line for a person. `before` is how
    many of the same event were to be told while another command ran; the last one is."""

    event: str
    study: str
    text: str
    trial: int | None = None
    before: int = 0

    def environment(self) -> dict[str, str]:
        also = f" ({self.before} more before)" if self.before else ""
        trial = "" if self.trial is None else str(self.trial)
        return {
            "NAS_EVENT": self.event,
            "NAS_STUDY": self.study,
            "NAS_TRIAL": trial,
            "NAS_MESSAGE": f"{self.study}: {self.text}{also}",
        }


class Notifier(Watching):
    """Runs a shell command with a `Message` in its environment, one at a time, in a thread of its own: a search never
    waits for it. Use as a context manager, at whose end what is still to be told is told. The first command that fails
    is named on stderr. Raises UsageError for an empty command."""

    def __init__(self, command: str, study: str, seconds: float = SECONDS) -> None:
        if not command.strip():
            raise UsageError("--notify is empty; give a shell command, such as 'echo \"$NAS_MESSAGE\" >> told.txt'")
        self._command, self._study, self._seconds = command, study, seconds
        self._pending: dict[str, Message] = {}  # by event
        self._changed = threading.Condition()
        self._over = self._warned = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        if error is not None:
            self.tell(Message(END, self._study, f"stopped: {str(error) or type(error).__name__}"))
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join()

    def tell(self, message: Message) -> None:
        """Let it be told when the command before has ended."""
        with self._changed:
            waiting = self._pending.pop(message.event, None)
            before = 0 if waiting is None else waiting.before + 1
            self._pending[message.event] = replace(message, before=before)
            self._changed.notify()

    def ended(self, ending: Ending) -> None:
        self.tell(Message(END, self._study, str(ending)))

    @contextmanager
    def search(self, opened: Opened, evaluated: int, best: tuple[float, int] | None) -> Iterator[Listener]:
        """Hears of every trial; `best` is what an earlier process had found."""
        objective = opened.objects.objectives[0]
        leading = None if best is None else best[0]

        def heard(event: Event) -> None:
            nonlocal leading
            if not isinstance(event, Finished):
                return
            verdict = event.verdict
            if verdict.state == State.FAILED:
                self.tell(Message(FAILED, self._study, f"trial {event.number} failed: {verdict.reason}", event.number))
            elif verdict.values and verdict.feasible and (leading is None or verdict.values[0] > leading):
                leading = verdict.values[0]
                text = f"trial {event.number} is the best: {objective.metric} {number(objective.orient(leading))}"
                self.tell(Message(BEST, self._study, text, event.number))

        yield heard

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._over)
                if not self._pending:
                    return
                message = self._pending.pop(next(iter(self._pending)))
            self._call(message)

    def _call(self, message: Message) -> None:
        """In a session of its own: what interrupts the search is not meant for it."""
        environment = {**os.environ, **message.environment()}
        with TemporaryFile() as said:
            command = subprocess.Popen(
                self._command,
                shell=True,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
            try:
                code = command.wait(self._seconds)
            except subprocess.TimeoutExpired:
                os.killpg(command.pid, signal.SIGKILL)
                command.wait()
                self._warn(f"did not end within {self._seconds:g} s")
                return
            if code:
                said.seek(0)
                lines = said.read().decode(errors="replace").strip().splitlines()
                self._warn(f"ended with exit code {code}{f': {lines[-1]}' if lines else ''}")

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            print(f"nas: warning: --notify: '{self._command}' {what}", file=sys.stderr)
