"""Where candidates of a study are evaluated."""

from __future__ import annotations

from studies.executors import Executor
from studies.records import StudySpec
from studies.setup.assemble import StudyObjects


def executor(spec: StudySpec, parts: StudyObjects, workers: int, *, apart: bool = False) -> Executor:
    """Where candidates of a study are evaluated: here, or in worker processes, which CUDA always gets, and every
    training where `apart` is wanted.

    With several CUDA devices the workers of a study on "cuda" take turns on them.
    """
    if workers == 1 and parts.evaluator.in_process and not (apart and not spec.evaluator.facts.looks_up):
        from studies.executors.inline import Inline

        return Inline(parts.evaluator, parts.trial_seconds)
    from studies.executors.processes import Processes
    from studies.executors.worker import Candidates

    return Processes(Candidates(spec), workers, parts.trial_seconds, devices_of(spec.evaluator.facts.device))


def devices_of(device: str | None) -> tuple[str, ...]:
    """What processes on a device take turns on; none: each on the device itself."""
    if device != "cuda":
        return ()
    import torch

    return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
