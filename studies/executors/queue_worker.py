"""The other end of `queued.py`: a worker that takes what the driver of a study wants done, one evaluation at a time.

It evaluates by an executor, a process of its own behind it, and speaks for that: while a batch runs it goes on giving
signs, and when the process dies it says so at once. It holds no lock and writes nothing but its messages and the folder
of its attempt, so whatever happens to it costs an attempt and no more.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NoReturn, TypeVar

from nas_core import distribution
from nas_core.errors import InfeasibleError, MachineError, NasError, NotFoundError, UsageError
from nas_core.failures import without_paths
from studies.executors import Begun, Died, Ended, Event, Executor, Halted, Job, Reported, attempt_folders
from studies.executors import worker as protocol
from studies.executors.pool import Pool
from studies.executors.processes import Processes
from studies.executors.queued import DIED, MARK, SIGNS, mark_of, name_of_this
from studies.executors.worker import Candidates, JobWork, Remote
from studies.records import Study
from studies.setup.assemble import moved
from studies.store.queue import Driver, Queue, Wanted
from studies.store.store import Store

T = TypeVar("T")

Make = Callable[[Mapping[str, Any]], Executor]

_SHORTEST, _LONGEST = 0.05, 1.0  # seconds between two looks for something to do
_AGAIN = 1.0  # seconds between two tries to reach the database


class _Lost(NasError):
    """Nobody listens to this attempt any more: its lease was over, or it is not wanted."""


class _Unreachable(MachineError):
    """The database has been away for too long."""


class QueueWorker:
    """Works on a study until it is told to stop, or has found nothing to do, or no database, for `idle` seconds.

    `executor(work)` makes what evaluates here, by whose work it is (`Wanted.work`). `say` hears, in words, what
    happens. `run` raises MachineError and UsageError where this machine is not one for the study.
    """

    def __init__(
        self,
        store: Store,
        study: Study,
        executor: Make,
        *,
        idle: float,
        stopping: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda text: None,
        name: str | None = None,
    ) -> None:
        self.name = name or name_of_this()
        self.done = 0  # evaluations that have come to an end
        self._store, self._study, self._make = store, study, executor
        self._queue = Queue(store, study)
        self._idle, self._stopping, self._say = idle, stopping, say
        self._session = ""  # of the driver that was looked at
        self._waits_for = ""  # what was said to be missing
        self._lease = math.inf
        self._work: Mapping[str, Any] | None = None  # what the executor does
        self._executor: Executor | None = None
        self._next_sign = 0.0  # time.monotonic()
        self._heard = 0.0  # when the database was reached last
        self._halting = False
        self._abandoned: list[tuple[str, int]] = []  # where an evaluation that is not wanted may still be writing

    def run(self) -> None:
        """Take one after the other."""
        since, pause = time.monotonic(), _SHORTEST
        try:
            while not self._stopping():
                claimed = self._claim()
                if claimed is not None:
                    self._evaluate(*claimed)
                    since, pause = time.monotonic(), _SHORTEST
                elif time.monotonic() - since >= self._idle:
                    return
                else:
                    time.sleep(min(pause, self._idle))
                    pause = min(2 * pause, _LONGEST)
        finally:
            self._close()

    def _claim(self) -> tuple[int, Wanted] | None:
        driver = self._reached(self._queue.driver)
        claimed = None
        if driver is not None:
            if driver.session != self._session:
                self._check(driver)
                self._session, self._lease = driver.session, driver.lease
            claimed = self._reached(lambda: self._queue.claim(self.name))
        if claimed is None:
            self._say_what_it_waits_for(driver)
        return claimed

    def _check(self, driver: Driver) -> None:
        """Raises MachineError where this program or these files are not the driver's."""
        own = distribution.version()
        if driver.version != own:
            raise MachineError(
                f"the driver of study '{self._study.name}' ({driver.name}) is nas {driver.version}, and this is {own}; "
                "install the same version everywhere"
            )
        folder = self._store.folder(self._study)
        with contextlib.suppress(OSError):
            if (folder / MARK).read_text() == mark_of(self._study):
                return
        raise MachineError(
            f"'{folder}' is not the folder that the driver of study '{self._study.name}' ({driver.name}) writes to; "
            "put it where all machines see it, and name it by --files"
        )

    def _say_what_it_waits_for(self, driver: Driver | None) -> None:
        """Once, as long as it is the same."""
        name, lag, text = self._study.name, self._study.spec.lag, ""
        if driver is None or driver.silent is None or driver.silent > driver.lease:
            text = f"no driver wants anything of study '{name}' now: nas resume {name} --executor queue"
        elif len(self._reached(self._queue.attempts)) >= lag:
            text = f"other workers have as many candidates of study '{name}' as its lag allows ({lag}); this one waits"
        if text not in ("", self._waits_for):
            self._say(text)
        self._waits_for = text

    # -- one attempt --------------------------------------------------------------------------------------

    def _evaluate(self, attempt: int, wanted: Wanted) -> None:
        """See an attempt to its end, whatever that is."""
        run, begun = self._store.files / wanted.folder, False
        self._halting, self._next_sign = False, 0.0
        try:
            executor = self._executor_for(wanted.work)
            folder = attempt_folders.begin(run, attempt)
            executor.submit(Job.of_packed({**wanted.job, "workdir": str(folder)}))
            begun = not executor.apart
            over = begun and self._forward(attempt, wanted, Begun(wanted.number))
            while not over:
                event = executor.next(lambda: self._sign(attempt))
                begun |= isinstance(event, Begun)
                over = self._forward(attempt, wanted, event)
        except _Lost:
            assert self._executor is not None
            self._executor.drop(wanted.number)
            self._abandoned.append((wanted.folder, attempt))
            self._say(f"{wanted.folder}: not wanted any more")
        except _Unreachable:
            raise
        except (NasError, OSError) as error:
            self._close()
            self._refuse(attempt, wanted, begun, error)
        except BaseException:
            self._close()
            with contextlib.suppress(NasError):
                self._queue.give_back(attempt, self.name)
            raise

    def _forward(self, attempt: int, wanted: Wanted, event: Event) -> bool:
        """Say what has happened; whether the attempt is over by it."""
        match event:
            case Begun():
                self._sweep()  # whatever ran before has ended
                self._tell(attempt, {"kind": protocol.STARTED})
                self._say(f"{wanted.folder}: begun")
            case Reported(_, report):
                self._tell(attempt, protocol.reported(wanted.number, report))
            case Ended(_, failed):
                body = {"kind": protocol.ENDED, "failure": None if failed is None else asdict(failed)}
                self._tell(attempt, body, last=True)
                self._say(f"{wanted.folder}: {'done' if failed is None else failed.reason}")
                self.done += 1
                return True
            case Died(_, cause):
                self._tell(attempt, {"kind": DIED, "cause": cause}, last=True)
                self._say(f"{wanted.folder}: its process has ended with {cause}")
                return True
            case Halted():
                with contextlib.suppress(_Lost):  # then somebody else has it already
                    self._until_it_counts(lambda: self._queue.give_back(attempt, self.name))
                self._say(f"{wanted.folder}: given back")
                return True
        return False

    def _refuse(self, attempt: int, wanted: Wanted, begun: bool, error: Exception) -> None:
        """An error that is no candidate's: of what was asked for, which the driver says; or of this machine, which
        raises it here, and where nothing has begun costs no attempt."""
        if begun and isinstance(error, UsageError | InfeasibleError):
            body = {"kind": protocol.ERROR, "type": type(error).__name__, "text": str(error)}
            with contextlib.suppress(_Lost):
                self._tell(attempt, body, last=True)
            return
        with contextlib.suppress(_Lost):
            if begun:
                self._tell(attempt, {"kind": DIED, "cause": without_paths(str(error))}, last=True)
            else:
                self._until_it_counts(lambda: self._queue.give_back(attempt, self.name))
        if begun or not isinstance(error, NasError):
            raise error
        self._unfit(error)

    def _unfit(self, error: NasError) -> NoReturn:
        hint = (
            "A worker needs the files and the data of its study: copy them here under the same names, or start it in "
            "a folder that has them (data elsewhere: --data)"
        )
        raise type(error)(f"{error}\n{hint}" if isinstance(error, UsageError | NotFoundError) else str(error))

    # -- the database -------------------------------------------------------------------------------------

    def _sign(self, attempt: int) -> bool:
        """Give a sign of life where one is due; whether the evaluation is to stop. Asked several times a second.

        Raises _Lost, and _Unreachable. A database that cannot be reached is tried again, and the evaluation goes on."""
        now = time.monotonic()
        if now >= self._next_sign:
            try:
                self._counts(self._queue.renew(attempt, self.name))
                self._heard, self._next_sign = now, now + self._lease / SIGNS
            except MachineError as error:
                self._bear(error)
                self._next_sign = now + _AGAIN
        return self._halting or self._stopping()

    def _tell(self, attempt: int, body: Mapping[str, Any], *, last: bool = False) -> None:
        self._until_it_counts(lambda: self._queue.say(attempt, self.name, body, last=last))

    def _until_it_counts(self, verb: Callable[[], bool | None]) -> None:
        """Say something, as soon as the database can be reached. Raises _Lost, and _Unreachable."""
        self._counts(self._reached(verb))

    def _counts(self, halting: bool | None) -> None:
        if halting is None:
            raise _Lost
        self._halting = halting

    def _reached(self, verb: Callable[[], T]) -> T:
        self._heard = time.monotonic()
        while True:
            try:
                return verb()
            except MachineError as error:
                self._bear(error)
                time.sleep(_AGAIN)

    def _bear(self, error: MachineError) -> None:
        """Raises _Unreachable where the database has been away for too long."""
        if self._stopping() or time.monotonic() - self._heard > self._idle:
            raise _Unreachable(str(error)) from None

    # -- what evaluates -----------------------------------------------------------------------------------

    def _executor_for(self, work: Mapping[str, Any]) -> Executor:
        if self._executor is None or self._work != work:
            self._close()
            self._work, self._executor = work, self._make(work)
        return self._executor

    def _close(self) -> None:
        if self._executor is not None:
            self._executor.close()
            self._executor = None
        self._sweep()

    def _sweep(self) -> None:
        """Remove what evaluations have left that were not wanted any more."""
        while self._abandoned:
            folder, attempt = self._abandoned.pop()
            with contextlib.suppress(NasError):
                wanted = self._queue.is_wanted(folder)
                attempt_folders.abandon(self._store.files / folder, attempt, wanted=wanted)


def local(store: Store, study: Study, device: str | None = None, data: str | None = None) -> Make:
    """What evaluates on this machine, in a process of its own, on another `device` of the same type and with the same
    data at another place where they are said. Raises UsageError for a device of another type than the study's."""

    def check(named: str | None) -> None:
        if device is not None and (named is None or device.partition(":")[0] != named.partition(":")[0]):
            raise UsageError(
                f"--device {device}: study '{study.name}' works on {named or 'no device'}, and results of another type "
                "of device would not be its own; leave it out, or start the worker where that is"
            )

    def make(work: Mapping[str, Any]) -> Executor:
        spec = moved(study.spec, data)
        facts = spec.evaluator.facts
        remote: Remote = Candidates(spec)
        named, limit = facts.device, facts.trial_seconds
        if work:
            settings = {**work["settings"], **({} if data is None else {"data": data})}
            remote = JobWork(spec, work["kind"], settings, store.url, store.files)
            named, limit = settings["device"], None
        check(named)
        return Pool(Processes(remote, limit, () if device is None else (device,)), 1, limit)

    if study.spec.evaluator.facts.device is not None:  # without one it may have trainings, which name theirs
        check(study.spec.evaluator.facts.device)
    return make
