"""The plain lines of a search's progress."""

from __future__ import annotations

import pytest

from nas_cli import live
from nas_core.evaluation import Fidelity, Objective, Report
from nas_core.records import TRIAL, Verdict
from nas_core.strategy import State
from reports.metrics import shown
from studies.events import Finished, Reported, Started


def test_a_step_says_of_how_many(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(live, "PLAIN_SECONDS", 0.0)
    goal = (Objective("val_accuracy", "max"),)
    with live.Progress("s", goal, 2, Fidelity("epoch", 1, 8)) as progress:
        for number, target in ((0, 8.0), (1, 4.0)):
            progress(Started(TRIAL, number, number))
            progress(Reported(TRIAL, number, Report(3, {"val_accuracy": 0.25}), target))
            progress(Finished(TRIAL, number, Verdict(State.COMPLETE, None, (0.5,)), {}, number + 1))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("trial 0: epoch 3/8, val_accuracy 0.2500")
    assert lines[2].endswith("trial 1: epoch 3/4, val_accuracy 0.2500")
    assert lines[3] == "s: 2/2 trials | best val_accuracy 0.5000 (trial 0)"
    assert len(lines) == 4  # the last line is not said twice


def test_metrics_worth_a_line() -> None:
    metrics = {"loss": 1.0, "micro_batch": 64.0, "accuracy": 0.5}
    assert shown(metrics, 64, ["accuracy", "none"]) == ["accuracy", "loss"]
    assert shown(metrics, 128) == ["loss", "micro_batch", "accuracy"]
    assert shown(metrics, None) == ["loss", "accuracy"]
