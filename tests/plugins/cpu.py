"""CPU seconds of tests: a summary, and a limit (`cpu_limit` of pyproject.toml) that a test of the gate must keep.

CPU, not wall time: it depends less on what else the machine does. A test's seconds are those of its process, of its
children, and of theirs that have ended. What a shared fixture does counts for the first test that asks for it.
"""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

CPU = "cpu"  # the property of a report: seconds of one phase of a test
FREE = ("slow", "matrix")  # marks of tests that may take as long as they do
NOTED = 5.0  # seconds from which a test of the gate is named
DEAREST = 10


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("cpu_limit", "CPU seconds that a test may take that is marked neither slow nor matrix", default="20")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Meter(float(config.getini("cpu_limit"))))


def used() -> float:
    """CPU seconds of this process, of its children that have ended, and of those that live (`tests/zygote.py`)."""
    own, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime + living()


def living() -> float:
    """CPU seconds of the children that live, and of theirs that have ended; 0 where the kernel does not list them."""
    ticks = 0
    for listed in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            for child in listed.read_text().split():
                with suppress(OSError):  # it has ended just now
                    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                    ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks / os.sysconf("SC_CLK_TCK")


class Meter:
    """Measures where tests run, and sums up where they are reported: with xdist that is another process."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.last = self.spent = 0.0
        self.seconds: Counter[str] = Counter()
        self.free: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self) -> None:
        self.last, self.spent = used(), 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report: pytest.TestReport = yield  # type: ignore[misc, assignment]
        now = used()
        phase, self.last = now - self.last, now
        self.spent += phase
        report.user_properties.append((CPU, phase))
        if report.when == "call" and report.passed and self.spent > self.limit and not is_free(report):
            report.outcome = "failed"
            report.longrepr = (
                f"{self.spent:.1f} s of CPU, and a test of the gate may take {self.limit:g} (cpu_limit): make it "
                "cheaper, or mark it slow and add a cheap test of the same property"
            )
        return report  # type: ignore[return-value]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += sum(value for name, value in report.user_properties if name == CPU)
        if is_free(report):
            self.free.add(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("CPU seconds")
        terminalreporter.write_line("\n".join(summary(self.seconds, self.free)))


def is_free(report: pytest.TestReport) -> bool:
    return any(mark in report.keywords for mark in FREE)


def summary(seconds: Counter[str], free: set[str]) -> list[str]:
    """Lines: the sum of every folder, the dearest tests, and those of the gate that are dear."""
    folders: Counter[str] = Counter()
    for test, value in seconds.items():
        folders[test.partition("::")[0].rpartition("/")[0] or "."] += value
    dear = [(test, value) for test, value in seconds.most_common() if value > NOTED and test not in free]
    lines = _table("", [*folders.most_common(), ("in all", seconds.total())])
    lines += _table(f"the {DEAREST} dearest tests", seconds.most_common(DEAREST))
    return lines + _table(f"more than {NOTED:g} s, and not marked slow", dear)


def _table(title: str, rows: list[tuple[str, float]]) -> list[str]:
    return [f"-- {title}"] * bool(title and rows) + [f"{value:8.1f}  {name}" for name, value in rows]
