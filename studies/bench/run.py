"""Run what is missing of a bench, in parallel over its children; what has been searched stays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

from nas_core.errors import NasError
from nas_core.failures import ATTEMPTS
from nas_core.records import Bench
from studies.bench.plan import Plan
from studies.bench.worker import Child, Place, Searches, child_name, finished
from studies.environment import environment
from studies.events import Counted, Listener, silent
from studies.executors import Died, Ended, Halted, choose
from studies.executors.where import HERE, Where
from studies.store.store import Store

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run(
    store: Store,
    bench: Bench,
    plan: Plan,
    *,
    jobs: int | None = None,
    where: Where = HERE,
    durable: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    listener: Listener = silent,
) -> bool:
    """Search every child that has not been finished, by `jobs` workers (None: one per core); False when stopped.

    `listener` hears how many children are finished. Raises the first NasError of a child; what all of them had
    committed is kept. A worker that dies is replaced, and its child goes on, up to three times.
    """
    done = {study.name for study in store.studies_of(bench) if finished(study)}
    every = [Child(number, *child) for number, child in enumerate(plan.children())]
    waiting = {child.number: child for child in every if child_name(bench, child.label, child.seed) not in done}
    count = len(every) - len(waiting)
    listener(Counted(count, len(every)))
    if not waiting:
        return True
    where = replace(where, workers=min(jobs or len(os.sched_getaffinity(0)), len(waiting)))
    place = Place(store.url, store.files, durable, store.environment(environment(plan.problem)))
    work = choose.Elsewhere(remote=Searches(place, bench, plan), folder=store.files / bench.name)
    attempts = dict.fromkeys(waiting, 0)
    with _one_thread(), closing(choose.pool(work, where)) as pool:
        for child in waiting.values():
            pool.submit(child)
        while waiting:
            event = pool.next(stopping)
            child = waiting[event.number]
            if isinstance(event, Died):
                attempts[event.number] += 1
                if attempts[event.number] == ATTEMPTS:
                    raise NasError(
                        f"{ATTEMPTS} processes died, the last with {event.cause}, while they searched with "
                        f"'{child.label}', seed {child.seed}; what they had committed is kept"
                    )
                pool.submit(child)
            elif isinstance(event, Ended):
                count += 1
                listener(Counted(count, len(every)))
                del waiting[event.number]
            elif isinstance(event, Halted):
                del waiting[event.number]
    if count == len(every):
        _tidy(store, bench, every)
    return count == len(every)


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


def _tidy(store: Store, bench: Bench, children: Sequence[Child]) -> None:
    """Remove the empty folders that locking the children has left."""
    for files in {store.files, store.default_files}:
        for child in children:
            folder = files / child_name(bench, child.label, child.seed)
            (folder / "lock").unlink(missing_ok=True)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        top = files / bench.name
        (top / "lock").unlink(missing_ok=True)
        for folder in [*top.glob("*"), top]:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
