"""A trained network that is no study's, taken in by the commands that work on one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from nas_cli.driving import drive

if TYPE_CHECKING:
    from nas_core.records import Run
    from studies.records import Study
    from studies.store.store import Store


def taken_in(
    store: Store, text: str, weights: str | None, data: str | None, device: str | None
) -> tuple[Study, Run, Run | None]:
    """The study, the trial and the run of an export or of a network of the user's own; no run where it was interrupted.

    Raises as `studies.jobs.imported.imported`.
    """
    from nas_cli.render import number
    from studies.address import address_of
    from studies.analysis.trained import validation
    from studies.executors.where import HERE
    from studies.jobs.imported import imported

    study, trial, job = imported(store, text, weights, data, device)
    run = next(iter(drive(store, study, trial, job, 1, HERE)), None)
    if run is not None:
        name = validation(study, run)[0]
        said = f"{name} {number(run.metrics[name])}" if name in run.metrics else "not measured"
        print(f"nas: '{text}' is {address_of(study, trial, run)}: {said}", file=sys.stderr)
    return study, trial, run
