"""Workers on a Ray cluster: an actor each, with CPUs or a share of a GPU, on whatever node has room.

An actor does what a worker process does (`worker.py`) and stays: it opens its work once. Its reports are a stream; what
it is told comes while it evaluates, in a thread of its own. An actor that is gone with its process or its node costs
its candidate an attempt, and another one is made. All end with the driver, which alone writes to the store.

Nodes need the same version of this program, and see the folders that the driver works with at the same paths.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from nas_core import distribution
from nas_core.errors import MachineError, Notice, UsageError
from studies.executors import gpus
from studies.executors import worker as protocol
from studies.executors.pool import Pool
from studies.executors.processes import uninterrupted
from studies.executors.where import Where
from studies.executors.worker import Message
from studies.store import locks

if TYPE_CHECKING:
    from studies.executors.choose import Elsewhere

PROBE = 5.0  # seconds in which a cluster's address answers; Ray itself waits for minutes
PATIENCE = 60.0  # seconds without any worker after which that is said
LOOK = 5.0  # seconds between two looks at whether the cluster is still there
AWAY = 20.0  # seconds for which its head may be away; Ray would end this process after 60, and say nothing of the study


@dataclass(frozen=True, slots=True)
class Request:
    """What an actor asks of its node, in CPUs and GPUs."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} CPU{'s' if self.cpus != 1 else ''}"] if self.cpus else []
        return " and ".join([*parts, *([f"{self.gpus:g} GPU"] if self.gpus else [])])

    def room(self, node: Mapping[str, float]) -> int:
        """How many a node with these resources has room for."""
        asked = (("CPU", self.cpus), ("GPU", self.gpus))
        # Ray counts in ten thousandths: three thirds fit.
        return min(int(node.get(name, 0) * 10_000) // int(amount * 10_000) for name, amount in asked if amount)


def made(assignment: Elsewhere, where: Where) -> Pool[Actor]:
    """Workers on the cluster at the address that is given (`ray:HOST:PORT`), else on the one that runs here or that
    RAY_ADDRESS names, else on one that is started here and ends with this process.

    Raises UsageError and MachineError where there is no such cluster, or none that has room.
    """
    cluster = Cluster.joined(where.given)
    try:
        nodes = cluster.nodes()
        share = gpus.share(where, assignment.device, cluster.memory)
        request = requested(assignment, share, nodes)
        room = sum(request.room(node) for node in nodes)
        if not room:
            largest = max((node.get("GPU" if request.gpus else "CPU", 0) for node in nodes), default=0)
            have = f"{largest:g} {'GPU' if request.gpus else 'CPU'}s"
            raise MachineError(f"no node of the Ray cluster has room: a worker needs {request}, the largest has {have}")
        if room < where.workers:
            said = f"the Ray cluster has room for {room} of {where.workers} workers, of {request} each; the others wait"
            warnings.warn(Notice(said), stacklevel=2)
        actors, limit = Actors(cluster, assignment, request), assignment.trial_seconds
        return Pool(actors, where.workers, limit, ahead=assignment.ahead)
    except BaseException:
        cluster.leave()
        raise


def requested(assignment: Elsewhere, share: int | None, nodes: Sequence[Mapping[str, float]]) -> Request:
    """What a worker asks for: a share of a GPU, where it is on one; else its threads as CPUs, at most those that the
    largest node has, as threads are the study's and not the cluster's."""
    if gpus.is_gpu(assignment.device):
        return Request(0.0, 1.0 / (share or 1))
    largest = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
    return Request(max(1.0, min(float(assignment.threads or 1), largest)), 0.0)


class Cluster:
    """A Ray cluster that this process has joined, or has started where `own`."""

    def __init__(self, ray: Any, own: bool) -> None:
        self.ray, self._own = ray, own
        context = ray.get_runtime_context()
        self.head, self._node = str(context.gcs_address), context.get_node_id()
        self._next = 0.0  # when to look again at whether it is there
        self._away: float | None = None  # since when the head has not answered

    @classmethod
    def joined(cls, address: str) -> Cluster:
        """Raises MachineError."""
        # No statistics are sent anywhere; what a dead actor would still have answered is not printed.
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_IGNORE_UNHANDLED_ERRORS": "1"}
        try:
            import ray
        except ModuleNotFoundError:
            raise MachineError("--executor ray needs Ray; run: pip install 'nas-search[ray]'") from None
        if ray.is_initialized():  # the user's own session
            joined = ray.get_runtime_context().gcs_address
            if address not in ("", joined):
                raise UsageError(f"--executor ray:{address}: this process has joined the Ray cluster {joined} already")
            return cls(ray, own=False)
        if address:
            _probe(address)
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        with _own_signals(), uninterrupted():
            try:
                ray.init(address=address or None, **quiet)
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise MachineError(f"cannot join the Ray cluster '{address}': {first}") from None
        # What nodes print as they end goes to everyone's screen, and there is no public switch for it.
        ray._private.worker._worker_logs_enabled = False
        return cls(ray, own=True)

    def nodes(self) -> list[Mapping[str, float]]:
        """The resources of each."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def check(self) -> None:
        """Raises MachineError where the head of the cluster has been away for too long, or the node of this process is
        gone. Looks now and then only."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LOOK
        again = "what was found so far is stored: resume it, on any executor"
        try:
            _reach(self.head)
        except OSError:
            self._away = now if self._away is None else self._away
            if now - self._away >= AWAY:
                raise MachineError(
                    f"the head of the Ray cluster, {self.head}, does not answer any more; {again}"
                ) from None
            return
        self._away = None
        if not any(node["Alive"] and node["NodeID"] == self._node for node in self.ray.nodes()):
            raise MachineError(f"this machine is no node of the Ray cluster {self.head} any more; {again}")

    def memory(self) -> list[float]:
        """Of all GPUs, in GiB."""
        ray = self.ray
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy

        @ray.remote(num_cpus=0, max_calls=1)
        def measured() -> list[float]:
            import os

            os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # Ray hides them from who asks for none
            from studies.executors.gpus import devices_of, memory_of

            return memory_of(devices_of("cuda"))

        alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
        asked = [measured.options(scheduling_strategy=strategy(node["NodeID"], False)).remote() for node in alive]
        return [gib for found in ray.get(asked) for gib in found]

    def leave(self) -> None:
        if self._own:
            with _own_signals():
                self.ray.shutdown()


class Actor:
    """A worker on a node (`pool.Handle`)."""

    def __init__(self, ray: Any, actor: Any, told: str) -> None:
        self._ray, self._actor = ray, actor
        self.stream = actor.work.remote(told)
        self.ready = False
        self._host = "a node"
        self._cause = ""

    def send(self, kind: str, **values: Any) -> None:
        self._actor.hear.remote(json.dumps({"kind": kind, **values}))

    def receive(self) -> Message:
        try:
            message: Message = json.loads(self._ray.get(next(self.stream)))
        except StopIteration:
            raise EOFError from None
        except self._ray.exceptions.RayError as error:
            self._cause = _cause(self._ray, error)
            raise EOFError from None
        if message["kind"] == protocol.READY:
            self.ready, self._host = True, message["host"]
        return message

    def end(self) -> str:
        self._ray.kill(self._actor)
        return f"{self._cause or 'the end of its process'} on {self._host}"


class Actors:
    """Starts actors that do the same work (`pool.Launcher`)."""

    advice = "see the logs of Ray on its nodes"

    def __init__(self, cluster: Cluster, assignment: Elsewhere, request: Request) -> None:
        self._cluster = cluster
        options = {"num_cpus": request.cpus, "num_gpus": request.gpus, "max_restarts": 0}
        self._new = _worker_class(cluster.ray).options(**options)
        # What every node must find where this process has written it: in the file whose lock it holds.
        self._seen, mark = assignment.folder.absolute() / locks.NAME, uuid4().hex
        self._seen.parent.mkdir(parents=True, exist_ok=True)
        self._seen.write_text(mark)
        self._told = json.dumps(
            {
                "version": distribution.version(),
                "folder": os.getcwd(),
                "seen": str(self._seen),
                "mark": mark,
                "machine": machine(),
                "work": protocol.packed(assignment.remote),
                "device": "cuda" if gpus.is_gpu(assignment.device) else None,
                "trial_seconds": assignment.trial_seconds,
            }
        )
        self._alone = time.monotonic()  # since when there has been no worker

    def start(self, place: int) -> Actor:
        return Actor(self._cluster.ray, self._new.remote(), self._told)

    def heard(self, workers: Collection[Actor], seconds: float) -> list[Actor]:
        self._cluster.check()
        if not workers:
            time.sleep(seconds)
            return []
        self._wait_for_room(workers)
        wait, streams = self._cluster.ray.wait, [worker.stream for worker in workers]
        wait(streams, num_returns=1, timeout=seconds)
        ready, _ = wait(streams, num_returns=len(streams), timeout=0)
        return [worker for worker in workers if any(worker.stream is stream for stream in ready)]

    def _wait_for_room(self, workers: Collection[Actor]) -> None:
        if any(worker.ready for worker in workers):
            self._alone = time.monotonic()
        elif time.monotonic() - self._alone > PATIENCE:
            self._alone = time.monotonic()
            warnings.warn(Notice("no node of the Ray cluster has room for a worker now; waiting"), stacklevel=2)

    def close(self) -> None:
        self._cluster.leave()


def serve(told: Mapping[str, Any], inbox: SimpleQueue[Message]) -> Iterator[Message]:
    """What an actor says, on its node. Another version of this program does not come to here."""
    host = socket.gethostname()

    def fault(text: str) -> Message:
        return {"kind": protocol.ERROR, "type": MachineError.__name__, "text": f"node {host}: {text}"}

    def listen(wait: bool) -> Message | None:
        with contextlib.suppress(Empty):
            return inbox.get(block=wait)
        return None

    seen = Path(told["seen"])
    if not seen.is_file() or seen.read_text() != told["mark"]:
        yield fault(f"it does not see the folder '{seen.parent}' of this machine; share it, at the same path (--files)")
        return
    with contextlib.suppress(OSError):  # what is named from there will be missed
        os.chdir(told["folder"])
    terms = protocol.Terms(listen, told["device"], told["trial_seconds"], told["machine"] == machine())
    for message in protocol.messages(told["work"], terms):
        if message["kind"] == protocol.ERROR:
            yield fault(
                f"{message['text']}\nNodes read what this machine reads, at the same paths: share '{os.getcwd()}'"
            )
        else:
            yield {**message, "host": host}


def machine() -> str:
    """The same for all processes of one machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _worker_class(ray: Any) -> Any:
    """The class of actors. It is sent to the nodes as it is here, so that one of another version can say so."""

    @ray.remote(concurrency_groups={"work": 1, "hear": 1})
    class Worker:
        def __init__(self) -> None:
            from queue import SimpleQueue

            self.inbox: Any = SimpleQueue()

        @ray.method(concurrency_group="hear")
        def hear(self, message: str) -> None:
            import json

            self.inbox.put(json.loads(message))

        @ray.method(concurrency_group="work")
        def work(self, text: str) -> Any:
            import json
            import socket

            told = json.loads(text)
            try:
                from nas_core import distribution

                found = distribution.version()
            except ImportError:
                found = "none"
            if found != told["version"]:
                said = f"node {socket.gethostname()} has version {found} of nas-search, this is {told['version']}; "
                said += "install the same on all nodes"
                yield json.dumps({"kind": "error", "type": "MachineError", "text": said})
                return
            from studies.executors.ray import serve

            for message in serve(told, self.inbox):
                yield json.dumps(message)

    return Worker


def _cause(ray: Any, error: Exception) -> str:
    """How an actor has ended, in words."""
    text = " ".join(str(error).split())
    if isinstance(error, ray.exceptions.RayTaskError):
        return f"{type(error.cause).__name__} ({' '.join(str(error.cause).split())[:200]})"
    if isinstance(error, ray.exceptions.ActorUnavailableError) or "node has died" in text or "node died" in text:
        return "the loss of its node or of the connection to it,"
    return "memory running out" if "running low on memory" in text else "the end of its process"


def _probe(address: str) -> None:
    """Raises UsageError for what is no address, MachineError where nobody answers."""
    host, _, port = address.rpartition(":")
    if address in ("auto", "local"):
        return
    if not host or not port.isdecimal() or "/" in host:
        raise UsageError(f"--executor ray:{address}: write ray:HOST:PORT, as in ray:10.0.0.1:6379")
    try:
        _reach(address)
    except (OSError, OverflowError) as error:
        raise MachineError(f"no Ray cluster answers at {address} ({error}); start one: ray start --head") from None


def _reach(address: str) -> None:
    """Raises OSError where nobody answers at HOST:PORT."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), PROBE).close()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray's start and end leave the signals of this process as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
