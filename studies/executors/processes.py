"""Local worker processes: one candidate each, and one device each. A worker that dies costs only its candidate.

The standard library's pools share queues, whose lock dies with a killed worker, and hand over results at the end
only; here every worker has a pipe of its own, over which reports come as they are made.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import signal
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from multiprocessing import connection as wires
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from nas_core.errors import Notice, UsageError
from studies.executors import gpus
from studies.executors import worker as protocol
from studies.executors.pool import Pool
from studies.executors.where import Where
from studies.executors.worker import STOPPING, Remote

if TYPE_CHECKING:
    from studies.executors.choose import Elsewhere


class Process:
    """A worker process (`pool.Handle`). `work` is what `worker.packed` wrote."""

    def __init__(self, work: str, device: str | None, trial_seconds: float | None) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipe, far = spawn.Pipe()
        # Not daemonic: those may have no processes of their own, and a compression is proved by one.
        self.process = spawn.Process(target=protocol.main, args=(far, work, device, trial_seconds), daemon=False)
        with uninterrupted(STOPPING):
            self.process.start()
        atexit.register(self.process.kill)  # before multiprocessing waits for it
        far.close()

    def send(self, kind: str, **values: Any) -> None:
        with contextlib.suppress(OSError):
            protocol.send(self.pipe, kind, **values)

    def receive(self) -> dict[str, Any]:
        return protocol.receive(self.pipe)

    def end(self) -> str:
        self.process.kill()
        self.process.join()
        atexit.unregister(self.process.kill)
        self.pipe.close()
        code = self.process.exitcode
        return f"exit code {code}" if code is None or code >= 0 else _signal(-code)


class Processes:
    """Starts worker processes that do the same `work` (`pool.Launcher`). `devices` are given out in turn; none: its
    own."""

    advice = "use fewer --workers"

    def __init__(self, work: Remote, trial_seconds: float | None = None, devices: tuple[str, ...] = ()) -> None:
        self._work, self._trial_seconds, self._devices = protocol.packed(work), trial_seconds, devices

    def start(self, place: int) -> Process:
        device = self._devices[place % len(self._devices)] if self._devices else None
        return Process(self._work, device, self._trial_seconds)

    def heard(self, workers: Collection[Process], seconds: float) -> list[Process]:
        pipes = {worker.pipe: worker for worker in workers}
        return [pipes[pipe] for pipe in wires.wait(list(pipes), seconds)]  # type: ignore[index]

    def close(self) -> None: ...


def made(assignment: Elsewhere, where: Where) -> Pool[Process]:
    """With several CUDA devices the workers of work on "cuda" take turns on them. Raises UsageError and MachineError
    for a share of a GPU that does not fit."""
    limit, devices = assignment.trial_seconds, gpus.devices_of(assignment.device)
    share = gpus.share(where, assignment.device, lambda: gpus.memory_of(devices))
    slots = where.workers if share is None else min(where.workers, share * len(devices))
    if share is not None and where.workers == 1:
        raise UsageError("one evaluation at a time shares no GPU; say how many by --workers")
    if slots < where.workers:
        warnings.warn(Notice(f"{share} at a time on each of {len(devices)} GPUs: {slots} workers"), stacklevel=2)
    return Pool(Processes(assignment.remote, limit, devices), slots, limit, ahead=assignment.ahead)


@contextmanager
def uninterrupted(signals: Collection[signal.Signals] = (signal.SIGINT,)) -> Iterator[None]:
    """Processes that are started inside never hear of Ctrl-C, or of these signals, which reach all of them: the driver
    decides. It hears of one that comes meanwhile afterwards."""
    resource_tracker.ensure_running()  # whose start would let signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _signal(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"{name}, which the system sends when memory runs out" if number == signal.SIGKILL else name
