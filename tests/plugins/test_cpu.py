"""The seconds are those that a test took, with its children; what takes too many fails, unless it may."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.plugins.cpu import summary

DEAR = """
import subprocess, sys, time
import pytest

BURN = "import time\\nwhile time.process_time() < %s: pass"

def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

def test_cheap():
    time.sleep(0.6)  # costs no CPU

def test_dear():
    burn(0.6)

def test_children():
    subprocess.run([sys.executable, "-c", BURN % 0.6], check=True)

@pytest.fixture(scope="session")
def server():
    code = "import sys\\nfor line in sys.stdin: exec(line)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        yield started
        started.stdin.close()

def test_living(server):
    end = "import time; end = time.process_time() + 0.6"
    loop = "exec('while time.process_time() < end: pass')"
    server.stdin.write(f"{end}\\n{loop}\\nprint(flush=True)\\n".encode())
    server.stdin.flush()
    server.stdout.readline()

@pytest.fixture
def prepared():
    burn(0.3)

def test_prepared(prepared):
    burn(0.3)

def test_wrong():
    burn(0.6)
    assert False, "for a reason of its own"

@pytest.mark.slow
def test_slow():
    burn(0.6)
"""


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["here", "in a worker"])
def test_what_takes_too_much_cpu_fails(inner: pytest.Pytester, workers: list[str]) -> None:
    inner.makepyfile(DEAR)
    result = inner.runpytest_subprocess(*workers)
    result.assert_outcomes(passed=1, failed=5)
    said = result.stdout.str()
    reasons = dict(re.findall(r"^FAILED \S+::test_(\w+) - (.*)", said, re.M))
    assert reasons.pop("wrong").startswith("AssertionError")
    assert reasons.keys() == {"dear", "children", "living", "prepared"}
    assert all("s of CPU" in reason for reason in reasons.values())
    spent = {name: float(seconds) for seconds, name in re.findall(r"^ +([\d.]+)  \S+::test_(\w+)$", said, re.M)}
    assert spent["cheap"] < 0.5 < min(spent[name] for name in reasons)


def test_slow_tests_may_take_what_they_do(inner: pytest.Pytester) -> None:
    inner.makepyfile(DEAR)
    inner.runpytest_subprocess("-m", "slow").assert_outcomes(passed=1, deselected=6)


def test_the_summary_names_folders_and_dear_tests() -> None:
    seconds = Counter({"tests/a/test_x.py::one": 7.0, "tests/a/test_x.py::two": 4.0, "tests/b/test_y.py::long": 30.0})
    assert summary(seconds, {"tests/b/test_y.py::long"}) == [
        "    30.0  tests/b",
        "    11.0  tests/a",
        "    41.0  in all",
        "-- the 10 dearest tests",
        "    30.0  tests/b/test_y.py::long",
        "     7.0  tests/a/test_x.py::one",
        "     4.0  tests/a/test_x.py::two",
        "-- more than 5 s, and not marked slow",
        "     7.0  tests/a/test_x.py::one",
    ]
