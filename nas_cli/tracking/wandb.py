"""Weights & Biases: a run per trial in the project, grouped by study, with its choices as config and the curves of its
metrics. `WANDB_MODE=offline` writes files that `wandb sync` uploads."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from nas_cli.tracking import Tracked
from nas_core.errors import MachineError
from nas_core.files import write_atomically


class Wandb:
    """What is known is kept in `wandb/nas-STUDY.json` here: the service cannot be asked while it is not reached."""

    def __init__(self, place: str, study: str) -> None:
        import wandb

        self._wandb = wandb
        self._project, self._study = place, study
        self._file = Path("wandb") / f"nas-{study}.json"
        try:
            self._known = set(json.loads(self._file.read_text())) if self._file.exists() else set()
            self._file.parent.mkdir(exist_ok=True)
        except (OSError, ValueError) as error:
            raise MachineError(f"--track wandb: '{self._file}' cannot be read or written: {error}") from None

    def known(self) -> Collection[int]:
        return self._known

    def add(self, trial: Tracked) -> None:
        name = trial.address.replace(":", "-")
        with self._wandb.init(
            project=self._project,
            id=name,
            name=trial.address,
            group=self._study,
            config=dict(trial.choices),
            resume="allow",
            settings=self._wandb.Settings(silent=True, console="off"),
        ) as run:
            for step, report in trial.steps():
                run.log(dict(report.metrics), step=step)
            run.summary.update({**trial.metrics, "state": trial.state, "reason": trial.reason or ""})
        self._known.add(trial.number)
        write_atomically(self._file, json.dumps(sorted(self._known)).encode())

    def close(self) -> None:
        pass
