"""MLflow: an experiment per study, a run per trial, with its choices as parameters and the curves of its metrics."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Any

from nas_cli.tracking import Tracked
from nas_core.errors import MachineError
from nas_core.strategy import State

TRIAL, NAME = "nas.trial", "mlflow.runName"  # tags of a run
PARAMS, METRICS = 100, 1_000  # that one request may hold
PAGE = 1_000
RUNNING = "RUNNING"


class MlFlow:
    """A run is ended when it is whole: one that is not was left by a process that died."""

    def __init__(self, place: str, study: str) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._client = MlflowClient(tracking_uri=place)
        self._known: set[int] = set()
        try:
            found = self._client.get_experiment_by_name(study)
            self._experiment: str = self._client.create_experiment(study) if found is None else found.experiment_id
            for run in self._runs():
                if TRIAL not in run.data.tags:
                    continue  # somebody else's
                if run.info.status == RUNNING:
                    self._client.delete_run(run.info.run_id)
                else:
                    self._known.add(int(run.data.tags[TRIAL]))
        except MlflowException as error:
            raise MachineError(f"--track mlflow: {' '.join(str(error.message).split())}") from error

    def known(self) -> Collection[int]:
        return self._known

    def add(self, trial: Tracked) -> None:
        from mlflow.entities import Metric, Param

        said = {"nas.state": trial.state, "nas.reason": trial.reason or ""}
        tags = {TRIAL: str(trial.number), NAME: trial.address, **said}
        run = self._client.create_run(self._experiment, tags=tags).info.run_id
        now = round(time.time() * 1000)
        params = [Param(name, str(value)) for name, value in trial.choices.items()]
        for start in range(0, len(params), PARAMS):
            self._client.log_batch(run, params=params[start : start + PARAMS])
        metrics = [
            Metric(name, value, now, step) for step, report in trial.steps() for name, value in report.metrics.items()
        ]
        for start in range(0, len(metrics), METRICS):
            self._client.log_batch(run, metrics=metrics[start : start + METRICS])
        self._client.set_terminated(run, "FAILED" if trial.state == State.FAILED else "FINISHED")
        self._known.add(trial.number)

    def close(self) -> None:
        pass

    def _runs(self) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = self._client.search_runs([self._experiment], max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return
