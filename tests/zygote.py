"""A process that has imported modules already and forks a child for each call it is asked for: the start of Python, and
of torch, costs more than what the tests of a command do.

Over its pipe goes one JSON document per line, the fields of `Call`; it answers with the child's process number at once
and with its exit code at its end.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import NoReturn, Self

PR_SET_PTRACER, ANY = 0x59616D61, -1  # where only parents may trace


@dataclass(frozen=True)
class Call:
    """`function(arguments)` of a module (`package.module:function`), whose result is the exit code, in a folder, with
    `path` before `sys.path`. Where it is `stopped` the child stops itself first, so that a tracer can take hold.
    `program` runs what the interpreter would run with the same arguments."""

    function: str
    arguments: Sequence[str]
    folder: str
    stderr: str
    stdout: str = os.devnull
    stdin: str = os.devnull
    environment: Mapping[str, str] = field(default_factory=dict)
    path: Sequence[str] = ()
    stopped: bool = False


class Zygote:
    """The process, seen from the one that has started it. Children lead sessions of their own, one at a time: one that
    nobody has waited for, because its test has failed, is killed by the next."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, "OMP_NUM_THREADS": "1"},
            bufsize=0,
        )
        self._child: int | None = None  # nobody has waited for it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def start(self, call: Call) -> int:
        """The process number of the child that makes a call."""
        self._kill()
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(asdict(call))}\n".encode())
        self._child = int(self._line())
        return self._child

    def has_ended(self) -> bool:
        """Whether the child that was started last has, whose exit code has not been asked for."""
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def wait(self, child: int, limit: float | None = None) -> int | None:
        """The exit code of the child, minus the signal where one ended it; None where it had to be killed, with all it
        had started, after `limit` seconds."""
        ended = limit is None or bool(select.select([self._process.stdout], [], [], limit)[0])
        if not ended:
            os.killpg(child, signal.SIGKILL)
        code = int(self._line())
        self._child = None
        return code if ended else None

    def _kill(self) -> None:
        if self._child is not None:
            self.wait(self._child, 0)

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def every_module() -> list[str]:
    """Of the program, without what runs when it is imported: a command that was forked imports hundreds of them."""
    from nas_cli.packages import PACKAGES  # here: a zygote imports what it is told to, from where it is told to

    names = [
        info.name
        for package in PACKAGES
        for info in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    ]
    return [name for name in names if not name.endswith(".__main__") and ".migrations." not in name]


def main(modules: Sequence[str]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # children hear of closed terminals: `nohup` does not want it to
    gc.disable()
    for module in modules:
        importlib.import_module(module)
    gc.freeze()  # a child that collects would copy every page of what is imported
    gc.enable()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(Call(**json.loads(line)))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def run(call: Call) -> None:
    os.setsid()
    os.chdir(call.folder)
    os.environ.update(call.environment)
    sys.path[:0] = call.path
    for stream, name in ((0, call.stdin), (1, call.stdout), (2, call.stderr)):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644), stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - what the zygote has read ahead is not for the child
    if call.stopped:
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
    module, _, function = call.function.partition(":")
    try:
        code = getattr(importlib.import_module(module), function)(call.arguments)
    except SystemExit as ended:
        code = ended.code
    leave(code)


def leave(code: object) -> NoReturn:
    """Ends the process as the interpreter does, but for taking apart all that was imported: half a second, in which a
    fork copies every page of it. What a file that nobody has closed holds back is lost."""
    if isinstance(code, int | None):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError, ValueError):  # the interpreter says what is wrong with a stream
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code or 0)
    sys.exit(code)  # type: ignore[arg-type]


def program(arguments: Sequence[str]) -> None:
    """As `python -m MODULE` or `python FILE` would."""
    *module, name = arguments
    if module == ["-m"]:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(name, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
