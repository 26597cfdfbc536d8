"""A dashboard that runs in a thread of the tests, and its answers."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from nas_core.architecture import Architecture
from nas_core.evaluation import Report
from nas_core.records import StopAt, Verdict
from nas_core.strategy import Proposal, State
from studies.records import Study
from studies.store.store import Store
from studies.store.testing import SPEC
from tests.html_pages import Element, read


@dataclass
class Served:
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, **query: Any
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            more = f"?{urlencode(query, doseq=True)}" if query else ""
            connection.request(method, f"{path}{more}", headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read().decode()
        finally:
            connection.close()

    def page(self, path: str, **query: Any) -> Element:
        """A page that is there."""
        status, _, text = self.ask(path, **query)
        assert status == 200, text
        return read(text)


@contextlib.contextmanager
def served(url: str, **options: Any) -> Iterator[Served]:
    """Serves a database until the end of `with`."""
    uvicorn = pytest.importorskip("uvicorn")
    from reports.dashboard.app import application

    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    config = uvicorn.Config(application(url, None, **options), log_level="error", lifespan="off",
                            timeout_graceful_shutdown=1)  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [made]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Served(made.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
        made.close()


def study(store: Store, name: str, *metrics: str, **changes: Any) -> Study:
    """A study of letters with these objectives, of `score` where none is given."""
    spec = SPEC.model_copy(update={"objectives": metrics or ("score:max",), "constraints": (), **changes})
    return store.create_study(name, spec, StopAt(trials=40))


def trial(store: Store, one: Study, number: int, value: float | None, state: State = State.COMPLETE,
          choice: str = "a", reason: str | None = None) -> int:  # fmt: skip
    metric = one.spec.objectives[0].rpartition(":")[0]
    arch = Architecture("letters", {choice: number % 3, "b": f"{choice}{number % 2}"})
    verdict = Verdict(state, reason, None if value is None else (value,), (), float(number % 7))
    return store.propose(
        one, number, Proposal(arch), f"i{number}", verdict, report=None if value is None else Report(1, {metric: value})
    )


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'nas.db'}"
