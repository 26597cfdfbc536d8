"""TensorBoard: a folder per trial, PLACE/STUDY/NUMBER, with the curves of its metrics and its choices as
hyper-parameters."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from nas_cli.tracking import Tracked
from nas_core.errors import MachineError

PARTIAL = ".partial"


class TensorBoard:
    """A folder gets its name when it is whole."""

    def __init__(self, place: str, study: str) -> None:
        import tensorboard  # noqa: F401  (or it is missing, which is said now)

        self._folder = Path(place) / study
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(f"--track tensorboard: '{self._folder}': {error.strerror or error}") from None
        shutil.rmtree(self._folder / PARTIAL, ignore_errors=True)
        self._known = {int(path.name) for path in self._folder.iterdir() if path.name.isdecimal()}

    def known(self) -> Collection[int]:
        return self._known

    def add(self, trial: Tracked) -> None:
        from torch.utils.tensorboard import SummaryWriter

        partial = self._folder / PARTIAL
        with SummaryWriter(str(partial)) as writer:
            for step, report in trial.steps():
                for name, value in report.metrics.items():
                    writer.add_scalar(name, value, step)
            writer.add_hparams({**trial.choices, "state": trial.state}, dict(trial.metrics), run_name=".")
        partial.rename(self._folder / str(trial.number))
        self._known.add(trial.number)

    def close(self) -> None:
        pass
