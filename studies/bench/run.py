"""Run what is missing of a bench, in parallel over its children; what has been searched stays."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection as wires
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from nas_core.errors import NasError
from nas_core.records import Bench
from studies.bench import worker
from studies.bench.plan import Plan
from studies.bench.worker import Place, child_name, finished
from studies.environment import environment
from studies.events import Counted, Listener, silent
from studies.executors.processes import uninterrupted
from studies.store.store import Store

TICK = 0.2  # seconds between two looks at `stopping`
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Child = tuple[str, int]  # label of the strategy, and seed


def run(
    store: Store,
    bench: Bench,
    plan: Plan,
    *,
    jobs: int | None = None,
    durable: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    listener: Listener = silent,
) -> bool:
    """Search every child that has not been finished, by `jobs` processes (None: one per core); False when stopped.

    `listener` hears how many children are finished. Raises the first NasError of a child or process,
    after the others have stopped with everything stored.
    """
    done = {study.name for study in store.studies_of(bench) if finished(study)}
    children = list(plan.children())
    waiting = deque(child for child in children if child_name(bench, *child) not in done)
    count = len(children) - len(waiting)
    listener(Counted(count, len(children)))
    if not waiting:
        return True
    count_of_jobs = min(jobs or len(os.sched_getaffinity(0)), len(waiting))
    place = Place(store.url, store.files, durable, store.environment(environment(plan.problem)))
    with _Crew(place, bench, plan, count_of_jobs) as crew:
        crew.begin(waiting)
        while crew.busy:
            if stopping():
                crew.stop()
                waiting.clear()
            more = crew.finished(waiting)
            if more:
                count += more
                listener(Counted(count, len(children)))
        if crew.trouble is not None:
            raise crew.trouble
    if count == len(children):
        _tidy(store, bench, children)
    return count == len(children)


@dataclass(slots=True, eq=False)
class _Member:
    pipe: Connection
    process: SpawnProcess
    child: Child | None = None  # that it is searching

    def give(self, child: Child) -> None:
        self.child = child
        with suppress(OSError):  # it is dead, which reading its pipe will show
            self.pipe.send(child)

    def answer(self) -> bool | NasError:
        """Whether the child was searched to its end, or what went wrong."""
        assert self.child is not None
        (label, seed), self.child = self.child, None
        try:
            answer: bool | NasError = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            cause = f"signal {-code}" if code < 0 else f"exit code {code}"
            return NasError(
                f"a process died ({cause}) while it searched with '{label}', seed {seed}; what it had committed is kept"
            )
        return answer


class _Crew:
    """The processes. Each has a pipe of its own, so that one that dies leaves no lock behind."""

    def __init__(self, place: Place, bench: Bench, plan: Plan, count: int) -> None:
        self.trouble: NasError | None = None  # the first
        spawn = multiprocessing.get_context("spawn")
        self._stop = spawn.RawValue(ctypes.c_bool, False)
        self._members: list[_Member] = []
        with _one_thread(), uninterrupted():
            for _ in range(count):
                pipe, far = spawn.Pipe()
                process = spawn.Process(target=worker.main, args=(far, place, bench, plan, self._stop), daemon=True)
                process.start()
                far.close()
                self._members.append(_Member(pipe, process))

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for member in self._members:
            if kind is not None:
                member.process.terminate()
            member.pipe.close()  # an idle process ends
            member.process.join()

    @property
    def busy(self) -> bool:
        return any(member.child is not None for member in self._members)

    def begin(self, waiting: deque[Child]) -> None:
        for member in self._members:
            member.give(waiting.popleft())

    def stop(self) -> None:
        """Ask all to stop after what they are evaluating."""
        self._stop.value = True

    def finished(self, waiting: deque[Child]) -> int:
        """Wait a moment, and count the children that are searched to their end; their processes get the next ones."""
        at_work = [member for member in self._members if member.child is not None]
        ready = wires.wait([member.pipe for member in at_work], TICK)
        count = 0
        for member in at_work:
            if member.pipe not in ready:
                continue
            answer = member.answer()
            if isinstance(answer, NasError):
                self.trouble = self.trouble or answer
                self.stop()
                waiting.clear()
                continue
            count += answer
            if waiting:
                member.give(waiting.popleft())
        return count


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that are started inside compute on one thread each: there are as many as cores."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _tidy(store: Store, bench: Bench, children: list[Child]) -> None:
    """Remove the empty folders that locking the children has left."""
    for files in {store.files, store.default_files}:
        for label, seed in children:
            folder = files / child_name(bench, label, seed)
            (folder / "lock").unlink(missing_ok=True)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        top = files / bench.name
        for folder in [*top.glob("*"), top]:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
