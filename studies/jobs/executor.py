"""Where a job runs: here, or several repeats at a time in processes of their own."""

from __future__ import annotations

from nas_core.job import Job
from studies.executors import Executor
from studies.executors.choose import devices_of
from studies.executors.inline import Inline
from studies.executors.processes import Processes
from studies.executors.worker import JobWork
from studies.records import Study
from studies.store.store import Store


def executor(store: Store, study: Study, job: Job, workers: int) -> Executor:
    """One process is this one. With several CUDA devices the workers of a job on "cuda" take turns on them."""
    if workers == 1:
        return Inline(job)
    work = JobWork(study.spec, job.kind, job.settings, store.url, store.files)
    return Processes(work, workers, devices=devices_of(job.settings["device"]))
