"""What the crash tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.crash.running import Fork, forks
from tests.crash.test_every_write import ALL


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., Fork]]:
    """Starts commands as forks, one at a time, whose worker processes are forks as well."""
    with forks(*ALL, "studies.executors.processes") as run:
        yield partial(run, function="tests.crash.eager:run")
