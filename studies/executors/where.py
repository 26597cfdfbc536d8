"""Where work is to be done, and how much of it at a time. No study stores it: it is the same study everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from nas_core.errors import UsageError, unknown

AUTO = "auto"
"""This process, or worker processes where there are to be several or the work must not be done here."""

EXECUTORS: Mapping[str, str] = {
    "inline": "studies.executors.inline:made",
    "processes": "studies.executors.processes:made",
    "queue": "studies.executors.queued:made",
}
"""By name what makes an executor, `made(assignment, where)`, one file each."""


@dataclass(frozen=True, slots=True)
class Where:
    """`executor`: `auto`, or a name of `EXECUTORS`, with what it is given after a colon; `workers`: how many
    evaluations at a time. Raises UsageError for an unknown executor."""

    workers: int = 1
    executor: str = AUTO

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"workers {self.workers}: at least 1 is needed")
        if self.name not in (AUTO, *EXECUTORS):
            raise unknown("executor", self.name, [AUTO, *EXECUTORS])
        if self.name == "inline" and self.workers > 1:
            raise UsageError(
                f"--executor inline evaluates one at a time; leave out --workers {self.workers}, or use processes"
            )

    @property
    def said(self) -> dict[str, str]:
        """What is not as where nothing is said, by flag."""
        plain = Where()
        named = ((one.name, getattr(self, one.name)) for one in fields(self))
        return {f"--{name.replace('_', '-')}": str(value) for name, value in named if value != getattr(plain, name)}

    @property
    def name(self) -> str:
        return self.executor.partition(":")[0]

    @property
    def given(self) -> str:
        """What is said after the name's colon; empty: nothing."""
        return self.executor.partition(":")[2]


HERE = Where()
"""Where nothing is said."""
