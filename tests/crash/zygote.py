"""A process that has imported the program already and forks one that runs each command line it is sent: the start of
Python costs more than the commands of these tests do. `python zygote.py MODULE...`; one JSON document per line.

The child stops itself before it begins, so that a tracer can take hold of it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys

PR_SET_PTRACER, ANY = 0x59616D61, -1  # where only parents may trace


def main(modules: list[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            run(job)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def run(job: dict[str, str]) -> None:
    os.chdir(job["folder"])
    os.environ["NAS_DB"] = job["db"]
    for stream, name in ((0, os.devnull), (1, job["stdout"]), (2, job["stderr"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644), stream)
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    from nas_cli.app import run as nas

    sys.exit(nas(job["arguments"]))


if __name__ == "__main__":
    main(sys.argv[1:])
