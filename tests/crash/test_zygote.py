"""A child that a failed test leaves running does not keep later ones from starting; it ends as an interpreter does."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.zygote import Call, Zygote


def test_a_child_that_nobody_waits_for_is_killed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "sleep.py").write_text(
        "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(20)\npathlib.Path('slept').touch()\n"
    )
    (tmp_path / "end.py").write_text("import sys\nsys.exit(7)\n")
    with Zygote([], {}) as zygote:
        calls = (
            Call("__main__:program", [f"{name}.py"], str(tmp_path), str(tmp_path / "said")) for name in ("sleep", "end")
        )
        left = zygote.start(next(calls))
        while not (tmp_path / "begun").exists():
            time.sleep(0.005)
        assert zygote.wait(zygote.start(next(calls))) == 7
        assert not Path(f"/proc/{left}").exists()
        assert not (tmp_path / "slept").exists()


# What the interpreter does at its end: threads, then what is registered, then what is still to be written.
ENDS = """
import atexit, sys, threading, time, weakref

class Thing: pass

def late():
    time.sleep(0.05)
    print("thread")

thing = Thing()
weakref.finalize(thing, print, "object")
atexit.register(print, "registered")
threading.Thread(target=late).start()
print("said", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "end", ["", "sys.exit()", "sys.exit(3)", "sys.exit('why')", "raise ValueError('wrong')", "sys.stdout.close()"]
)
def test_a_child_ends_as_an_interpreter_does(tmp_path: Path, end: str) -> None:
    (tmp_path / "end.py").write_text(f"{ENDS}\n{end}\n")
    wanted = subprocess.run([sys.executable, "end.py"], cwd=tmp_path, capture_output=True, text=True)
    out, err = tmp_path / "out", tmp_path / "err"
    with Zygote([], {}) as zygote:
        call = Call("__main__:program", ["end.py"], str(tmp_path), str(err), str(out))
        assert zygote.wait(zygote.start(call)) == wanted.returncode
    assert out.read_text() == wanted.stdout
    assert err.read_text().splitlines()[:1] + err.read_text().splitlines()[-1:] == (
        wanted.stderr.splitlines()[:1] + wanted.stderr.splitlines()[-1:]
    )
