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
) -> tuple[Study, Run, Run]:
    """The study, the trial and the run of an export or of a network of the user's own.

    Raises as `studies.jobs.imported.imported`, and Stopped where it was interrupted.
    """
    from nas_cli.render import number
    from nas_cli.signals import Stopped
    from studies.address import address_of
    from studies.analysis.trained import validation
    from studies.executors.where import HERE
    from studies.jobs.imported import imported

    study, trial, job = imported(store, text, weights, data, device)
    done, code = drive(store, study, trial, job, 1, HERE)
    if not done:
        raise Stopped(code)
    name = validation(study, done[0])[0]
    said = f"{name} {number(done[0].metrics[name])}" if name in done[0].metrics else "not measured"
    print(f"nas: '{text}' is {address_of(study, trial, done[0])}: {said}", file=sys.stderr)
    return study, trial, done[0]
