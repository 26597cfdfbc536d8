"""The plain lines of a search's progress."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nas_cli import live
from nas_cli.metrics import shown
from nas_core.evaluation import Fidelity, Objective, Report
from nas_core.strategy import State


def trial(number: int, budget: float | None = None) -> Any:
    verdict = SimpleNamespace(state=State.COMPLETE, values=(0.5,), feasible=True, reason=None)
    return SimpleNamespace(number=number, verdict=verdict, proposal=SimpleNamespace(budget=budget))


def test_a_step_says_of_how_many(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(live, "PLAIN_SECONDS", 0.0)
    goal = (Objective("val_accuracy", "max"),)
    with live.Progress("s", goal, 2, Fidelity("epoch", 1, 8), None) as progress:
        for number, budget in ((0, None), (1, 4.0)):
            progress.started(trial(number), number)
            progress.reported(trial(number, budget), Report(3, {"val_accuracy": 0.25}))
            progress.finished(trial(number), number + 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("trial 0: epoch 3/8, val_accuracy 0.2500")
    assert lines[2].endswith("trial 1: epoch 3/4, val_accuracy 0.2500")
    assert lines[3] == "s: 2/2 trials | best val_accuracy 0.5000 (trial 0)"
    assert len(lines) == 4  # the last line is not said twice


def test_metrics_worth_a_line() -> None:
    metrics = {"loss": 1.0, "micro_batch": 64.0, "accuracy": 0.5}
    assert shown(metrics, {"batch_size": 64}, ["accuracy", "none"]) == ["accuracy", "loss"]
    assert shown(metrics, {"batch_size": 128}) == ["loss", "micro_batch", "accuracy"]
    assert shown(metrics, None) == ["loss", "accuracy"]
