"""A process of a bench: loads the table once, then searches the children that it is sent, one after the other."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from nas_core.errors import NasError
from nas_core.records import Bench
from nas_core.strategy import Outcome, Pending, Proposal, Strategy
from studies.bench.plan import Plan, parts_of
from studies.executors.simulated import Simulated
from studies.records import Study
from studies.search.endings import Ending
from studies.search.loop import Search
from studies.setup.assemble import StudyObjects, build
from studies.store.store import Store


class Place(NamedTuple):
    """A store that another process can open, and the id of the environment there."""

    url: str
    files: Path
    durable: bool
    environment: int


class Timed:
    """A strategy whose asks and tells are timed, in seconds."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self.asks: list[float] = []
        self.tells: list[float] = []

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        begun = time.perf_counter()
        proposal = self._strategy.ask(number, pending)
        self.asks.append(time.perf_counter() - begun)
        return proposal

    def tell(self, outcome: Outcome) -> None:
        begun = time.perf_counter()
        self._strategy.tell(outcome)
        self.tells.append(time.perf_counter() - begun)


def main(pipe: Connection, place: Place, bench: Bench, plan: Plan, stop: Any) -> None:
    """The process. It is sent (label, seed) and answers with True (searched), False (stopped) or a NasError;
    `stop` is shared with the driver."""
    os.dup2(2, 1)  # what a user's code prints belongs to the progress, not to the data
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the driver decides
    driver = os.getppid()

    def stopping() -> bool:
        return bool(stop.value) or os.getppid() != driver

    try:
        try:
            _work(pipe, place, bench, plan, stopping)
        except NasError as error:
            pipe.send(error)
    except (EOFError, OSError):
        return  # the driver is gone


def _work(pipe: Connection, place: Place, bench: Bench, plan: Plan, stopping: Callable[[], bool]) -> None:
    with Store(place.url, place.files, durable=place.durable, create=False) as store:
        shared = build(plan.problem).cached_in(store)
        while (child := pipe.recv()) is not None:
            pipe.send(search(store, bench, plan, shared, *child, stopping=stopping, environment=place.environment))


def search(
    store: Store,
    bench: Bench,
    plan: Plan,
    shared: StudyObjects,
    label: str,
    seed: int,
    *,
    stopping: Callable[[], bool] = lambda: False,
    environment: int | None = None,
) -> bool:
    """Search one child to its end and commit what was measured of it; False when it was stopped before.

    `shared` are the parts of any child, for their table. Raises NasError, also for an exception of the strategy.
    """
    spec = plan.spec(label, seed)
    parts = parts_of(shared, spec)
    timed: list[Timed] = []

    def make(setting: Any, config: Any) -> Any:
        timed.append(Timed(parts.strategy(setting, config)))
        return timed[-1]

    name = child_name(bench, label, seed)
    study = store.study_or_new(name, spec, plan.stop_at, bench=bench.id)
    executor = Simulated(parts.evaluator, plan.workers) if plan.simulated else None
    begun = time.perf_counter()
    with store.lock(study):
        try:
            loop = Search(
                store,
                study,
                replace(parts, strategy=make),
                stopping=stopping,
                environment=environment,
                executor=executor,
            )
            ending = loop.run(plan.stop_at)
        except NasError:
            raise
        except Exception as error:  # a strategy of a user's own
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise NasError(f"strategy '{label}', seed {seed} ({name}): {text}") from error
        if ending == Ending.INTERRUPTED:
            return False
        measured = {"seconds": time.perf_counter() - begun, "spent": loop.spent.total}
        if timed[0].asks:
            measured["ask_seconds"] = statistics.median(timed[0].asks)
        if timed[0].tells:
            measured["tell_seconds"] = statistics.median(timed[0].tells)
        if loop.parts.scored is not None and loop.parts.scored.count:
            measured["scored"] = loop.parts.scored.count
        if executor is not None:
            measured["simulated_seconds"] = executor.now
        store.set_measured(study, measured)
    return True


def child_name(bench: Bench, label: str, seed: int) -> str:
    return f"{bench.name}/{label}/{seed}"


def finished(study: Study) -> bool:
    """Whether a child has been searched to its end: that is when it is measured."""
    return bool(study.measured)
