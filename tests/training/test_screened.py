"""Screens around a training: what they see, what they must not change, and what a resume does not look at again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas_core.architecture import Architecture
from nas_core.batch import Batch
from nas_core.errors import Rejected, TrialError, UsageError
from nas_core.evaluation import Context, Report
from nas_core.strategy import Proposal
from nas_core.task import Task
from nas_core.testing import evaluator as contract
from tests.training.test_train_evaluator import CELL, SPACE, evaluator
from training.evaluators.screened import Screened
from training.screens import Screen, load_screens
from training.screens.blind import blind
from training.screens.finite import finite


def screen(function: Any) -> Screen:
    names = tuple(function.__code__.co_varnames[: function.__code__.co_argcount])
    return Screen(function.__name__, function, names)


def reports(screens: Sequence[Any], folder: Path, **context: Any) -> tuple[list[Report], Rejected | None]:
    made = Screened(evaluator(checkpoint_seconds=0.0), [screen(one) for one in screens])
    found: list[Report] = []
    try:
        found.extend(made.evaluate(Proposal(CELL), None, Context(1, folder, **context)))
    except Rejected as error:
        return found, error
    return found, None


def plain(found: Sequence[Report]) -> list[tuple[float, dict[str, float]]]:
    return [(report.step, dict(report.metrics)) for report in found]


def spoil(network: nn.Module, batch: Batch, epoch: float) -> str | None:
    """Does to its copy whatever it can."""
    torch.rand(7)
    network.train()
    for _ in range(2):
        network(*batch.inputs).sum().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    return None


def test_contract() -> None:
    assert list(contract.check(Screened(evaluator(), [screen(spoil)]), SPACE, CELL)) == []


def test_a_screen_that_passes_changes_nothing(tmp_path: Path) -> None:
    alone = list(evaluator().evaluate(Proposal(CELL), None, Context(1, tmp_path / "alone")))
    found, error = reports([spoil, finite, blind], tmp_path / "screened")
    assert error is None
    assert plain(found) == plain(alone)


def test_what_screens_see(tmp_path: Path) -> None:
    seen: list[Any] = []

    def before(network: nn.Module, arch: Architecture, task: Any, batch: Batch) -> None:
        seen.append((network.training, arch, task.kind, batch.samples))

    def after(epoch: float, report: dict[str, float]) -> None:
        seen.append((epoch, report["val_accuracy"]))

    found, _ = reports([after, before], tmp_path)
    assert seen[0] == (False, CELL, "image-classification", 32)
    assert seen[1:] == [(report.step, report.metrics["val_accuracy"]) for report in found]


def test_before_and_after_training(tmp_path: Path) -> None:
    def never(network: nn.Module) -> str:
        return "flat : all alike"

    def late(report: dict[str, float], epoch: float) -> str | None:
        return "quality" if epoch == 2 else None

    found, error = reports([never, late], tmp_path / "before")
    assert (found, str(error), error and error.reason) == ([], "flat: all alike", "flat")
    found, error = reports([late], tmp_path / "late")
    assert [report.step for report in found] == [1, 2]
    assert str(error) == "quality: screen late"
    assert error is not None
    assert error.seconds >= found[-1].seconds > 0


def test_a_resume_looks_again_only_where_the_weights_are_those(tmp_path: Path) -> None:
    looks: list[tuple[float, float]] = []

    def look(network: nn.Module, epoch: float) -> None:
        looks.append((epoch, float(sum(parameter.double().sum() for parameter in network.parameters()))))

    def first(network: nn.Module) -> None:
        looks.append((0, 0.0))

    reports([first, look], tmp_path / "whole")
    whole = list(looks)
    assert [epoch for epoch, _ in whole] == [0, 1, 2, 3]
    for stop in (1, 2):
        looks.clear()
        made = Screened(evaluator(checkpoint_seconds=0.0), [screen(first), screen(look)])
        running = made.evaluate(Proposal(CELL), None, Context(1, tmp_path / f"stop-{stop}"))
        for _ in range(stop):
            next(running)
        running.close()  # type: ignore[attr-defined]  # before the screens have seen the last report
        assert looks == whole[:stop]
        reports([first, look], tmp_path / f"stop-{stop}")
        assert looks == whole


def test_mistakes_of_a_screen(tmp_path: Path) -> None:
    def broken(network: nn.Module) -> str:
        raise KeyError("x")

    def odd(network: nn.Module) -> bool:
        return False

    with pytest.raises(TrialError, match="screen: broken: KeyError: 'x'") as caught:
        reports([broken], tmp_path)
    assert not isinstance(caught.value, Rejected)
    with pytest.raises(UsageError, match="screen 'odd' returned False; it returns None, or the reason as text"):
        reports([odd], tmp_path)


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.value.expand(len(x), 3)


def test_the_named_screens() -> None:
    batch = Batch((torch.randn(6, 4),), torch.zeros(6, dtype=torch.long))
    line = nn.Linear(4, 3)
    assert (finite(line, batch), blind(line, batch)) == (None, None)
    assert blind(Constant(1.0), batch) == "blind: it answers all samples alike"
    assert blind(Constant(0.0), batch) is not None
    assert finite(Constant(1.0), batch) is None
    assert finite(Constant(float("nan")), batch) == "not-finite: its outputs"
    assert finite(nn.Sequential(line, Root()), batch) == "not-finite: its gradients"
    one = Batch((torch.randn(1, 4),), torch.zeros(1, dtype=torch.long))
    assert blind(Constant(1.0), one) is None


class Root(nn.Module):
    """Zero, with a gradient that is not finite."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - x).abs().sqrt()


def test_references(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def good(network, limit=3): return None\ndef bad(model): return None\ndef none(): return None\n")
    found = load_screens(["finite", f"{file}:good"])
    assert [one.names for one in found] == [("network", "batch"), ("network",)]
    assert [one.learned for one in found] == [False, False]
    assert found[1].file_hash is not None
    with pytest.raises(UsageError, match="asks for 'model'; a screen names some of network, batch, task"):
        load_screens([f"{file}:bad"])
    with pytest.raises(UsageError, match="asks for nothing"):
        load_screens([f"{file}:none"])
    with pytest.raises(UsageError, match="'finite' is given twice"):
        load_screens(["finite", "finite"])
    with pytest.raises(UsageError, match="unknown screen 'blnd'; did you mean 'blind'"):
        load_screens(["blnd"])


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("quality(steps=0)", "steps=0; it takes a whole number"),
        ("quality(bar=-1)", "bar=-1; it takes a multiple of chance"),
        ("quality(step=3)", "unexpected keyword argument 'step'"),
        ("stability(steps=2.5)", "steps=2.5; it takes a whole number"),
        ("stability(bar=inf)", "bar='inf'; it takes a number above 0"),
        ("stability(rate=0)", "rate=0; it takes a number above 0"),
    ],
)
def test_settings_that_are_none(reference: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_screens([reference])


def test_the_quality_screen_knows_what_it_cannot_ask_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"11 times chance \(0.1\) is more than 1.*bar=5.5"):
        Screened(evaluator(), load_screens(["quality(bar=11)"]))
    numbers = Task(kind="tabular-regression", input_shape=(4,), outputs=1)
    with pytest.raises(UsageError, match="quality needs an accuracy, which tabular-regression has none of"):
        load_screens(["quality"])[0].check(numbers)
    made = Screened(evaluator(), load_screens(["quality(steps=1000)"]))
    with pytest.raises(UsageError, match=r"1000 steps are more than the \d+ of 3 epochs; use quality\(steps=N\)"):
        next(made.evaluate(Proposal(CELL), None, Context(1, tmp_path)))


def test_screens_that_train_change_nothing(tmp_path: Path) -> None:
    """They have what they need of an evaluator, and a time limit holds for them."""
    alone = list(evaluator().evaluate(Proposal(CELL), None, Context(1, tmp_path / "alone")))
    made = Screened(evaluator(), load_screens(["quality(steps=3, bar=0.1)", "stability(steps=2)"]))
    found = list(made.evaluate(Proposal(CELL), None, Context(1, tmp_path / "screened")))
    assert plain(found) == plain(alone)
    with pytest.raises(TrialError, match="time-limit"):
        list(made.evaluate(Proposal(CELL), None, Context(1, tmp_path / "late", deadline=time.monotonic())))
    assert not list((tmp_path / "late").glob("*"))
