"""The part of the harness that runs within pytest (`-p tests.faults.plugin`), told by environment variables.

RECORD: a file for what every test took and how it ended; coverage, which measures this process, is told which test
runs. PLAN: a file that says which tests run, in which order, and which not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

RECORD, PLAN = "FAULTS_RECORD", "FAULTS_PLAN"


def pytest_configure(config: pytest.Config) -> None:
    if RECORD in os.environ:
        config.pluginmanager.register(Recorder(Path(os.environ[RECORD])))
    if PLAN in os.environ:
        config.pluginmanager.register(Planned(Path(os.environ[PLAN])))


class Recorder:
    """Tells coverage who runs. What a fixture of many tests does counts for every test of the file."""

    def __init__(self, path: Path) -> None:
        from coverage import Coverage

        measured = Coverage.current()
        if measured is None:
            raise pytest.UsageError("a record is made under coverage")
        self.path, self.coverage = path, measured
        self.current, self.seconds, self.failed = "", dict[str, float](), list[str]()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.current = item.nodeid
        self.coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self.coverage.switch_context("")

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        shared = fixturedef.scope != "function"
        if shared:
            self.coverage.switch_context(self.current.partition("::")[0])
        try:
            return (yield)
        finally:
            if shared:
                self.coverage.switch_context(self.current)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        seconds = {name: round(value, 3) for name, value in self.seconds.items()}
        self.path.write_text(json.dumps({"seconds": seconds, "failed": self.failed}), encoding="utf-8")


class Planned:
    """Runs `only` (unless it is null) in that order, nothing of `without`, and writes down who runs and who failed."""

    def __init__(self, path: Path) -> None:
        plan = json.loads(path.read_text(encoding="utf-8"))
        self.only: list[str] | None = plan["only"]
        self.without = frozenset(plan["without"])
        self.running, self.failed = Path(plan["running"]), Path(plan["failed"])

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept = [item for item in items if item.nodeid not in self.without]
        if self.only is not None:
            places = {name: place for place, name in enumerate(self.only)}
            kept = sorted((item for item in kept if item.nodeid in places), key=lambda item: places[item.nodeid])
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running.write_text(nodeid, encoding="utf-8")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and not self.failed.exists():
            self.failed.write_text(report.nodeid, encoding="utf-8")
