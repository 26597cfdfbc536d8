"""A worker of a bench: loads the table once, then searches the children that it is sent, one after the other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from nas_core.errors import NasError
from nas_core.records import Bench
from nas_core.strategy import Outcome, Pending, Proposal, Strategy
from studies.bench.plan import Plan, parts_of
from studies.executors import worker as protocol
from studies.executors.simulated import Simulated
from studies.executors.worker import Message, Terms, check_reachable
from studies.records import Study
from studies.search.endings import Ending
from studies.search.loop import Search
from studies.setup.assemble import StudyObjects, build
from studies.store.store import Store

LOOK = 0.05  # seconds between two looks for the word to stop


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


@dataclass(frozen=True, slots=True)
class Child:
    """A search of the bench (`executors.pool.Task`)."""

    number: int
    label: str
    seed: int

    def packed(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Searches:
    """The searches of a bench, as another process does them (`executors.worker.Remote`): it loads the table once, and
    commits what it finds."""

    place: Place
    bench: Bench
    plan: Plan

    def messages(self, terms: Terms) -> Iterator[Message]:
        place = self.place
        check_reachable(place.url, terms.here)
        with Store(place.url, place.files, durable=place.durable, create=False) as store:
            shared = build(self.plan.problem).cached_in(store)
            yield {"kind": protocol.READY}
            while True:
                told = terms.listen(True)
                if told is None or told["kind"] != protocol.JOB:
                    continue  # of a search that has ended meanwhile
                yield {"kind": protocol.STARTED, "number": told["number"]}
                child, facts = (told["label"], told["seed"]), place.environment
                halted = _Halted(terms)
                done = search(store, self.bench, self.plan, shared, *child, stopping=halted, environment=facts)
                yield {"kind": protocol.ENDED if done else protocol.HALTED, "number": told["number"], "failure": None}

    def plain(self) -> dict[str, Any]:
        place = {**self.place._asdict(), "files": str(self.place.files)}
        return {"place": place, "bench": asdict(self.bench), "plan": self.plan.model_dump(mode="json")}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        place = Place(**{**plain["place"], "files": Path(plain["place"]["files"])})
        return cls(place, Bench(**plain["bench"]), Plan.model_validate(plain["plan"]))


class _Halted:
    """Whether a worker has been told to stop. Asked after every look-up, so it listens now and then only."""

    def __init__(self, terms: Terms) -> None:
        self._listen, self._told, self._next = terms.listen, False, 0.0

    def __call__(self) -> bool:
        if not self._told and time.monotonic() >= self._next:
            self._next = time.monotonic() + LOOK
            while (message := self._listen(False)) is not None:
                self._told |= message["kind"] == protocol.HALT
        return self._told


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
