"""Where work is to be done, and how much of it at a time. No study stores it: it is the same study everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from nas_core.errors import UsageError, unknown

AUTO = "auto"
"""This process, or worker processes where there are to be several or the work must not be done here."""

EXECUTORS: Mapping[str, str] = {
    "inline": "studies.executors.inline:made",
    "processes": "studies.executors.processes:made",
    "queue": "studies.executors.queued:made",
    "ray": "studies.executors.ray:made",
}
"""By name what makes an executor, `made(assignment, where)`, one file each."""

GIVEN = ("queue", "ray")
"""Those that may be given something: the seconds of a lease, the address of a cluster."""


@dataclass(frozen=True, slots=True)
class Where:
    """`executor`: `auto`, or a name of `EXECUTORS`, with what it is given after a colon; `workers`: how many
    evaluations at a time; `per_gpu`: how many of them on one GPU, or `gpu_memory`: GiB of a GPU that one may take.

    Raises UsageError for an unknown executor, and for what does not go together.
    """

    workers: int = 1
    executor: str = AUTO
    per_gpu: int | None = None
    gpu_memory: float | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"workers {self.workers}: at least 1 is needed")
        if self.name not in (AUTO, *EXECUTORS):
            raise unknown("executor", self.name, [AUTO, *EXECUTORS])
        if self.name not in GIVEN and ":" in self.executor:
            raise UsageError(f"--executor {self.executor}: '{self.name}' is given nothing after a colon; leave it out")
        for flag, value in self.said.items() if self.name == "inline" else ():
            if flag != "--executor":
                raise UsageError(
                    f"--executor inline evaluates one at a time; leave out {flag} {value}, or use processes"
                )
        if self.per_gpu is not None and self.gpu_memory is not None:
            raise UsageError("--per-gpu and --gpu-memory both say how many share a GPU; leave one of them out")
        for flag, given in (("--per-gpu", self.per_gpu), ("--gpu-memory", self.gpu_memory)):
            if given is not None and not 0 < given < math.inf:
                raise UsageError(f"{flag} {given:g}: must be above 0")

    @property
    def said(self) -> dict[str, str]:
        """What is not as where nothing is said, by flag."""
        plain = Where()
        named = ((one.name, getattr(self, one.name)) for one in fields(self))
        return {f"--{name.replace('_', '-')}": f"{value}" for name, value in named if value != getattr(plain, name)}

    @property
    def name(self) -> str:
        return self.executor.partition(":")[0]

    @property
    def given(self) -> str:
        """What is said after the name's colon; empty: nothing."""
        return self.executor.partition(":")[2]


HERE = Where()
"""Where nothing is said."""
