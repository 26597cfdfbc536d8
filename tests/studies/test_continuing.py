"""Brackets in the loop: a promoted trial trains the additional epochs alone, and nothing depends on its files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas_core.evaluation import Context
from nas_core.records import Run, StopAt
from nas_core.seeds import derive
from nas_core.strategy import Proposal, State
from studies.analysis.verify import verify
from studies.events import Event, Finished, Listener, Reported, silent
from studies.search.endings import Ending
from studies.search.loop import Search
from studies.setup import assemble
from studies.setup.config import SearchConfig
from studies.store.store import Store
from training import fit

SPACE = """
from nas_core.choice import Choice
from nas_core.space import SearchSpace


class Small(SearchSpace):
    name = "small"
    tasks = frozenset({"image-classification"})
    choices = (Choice("width", tuple(range(2, 30))),)

    def build(self, arch, task, size):
        from torch import nn

        width = arch.values["width"]
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 10))


space = Small()
"""


class Bracketed:
    """Searches with brackets on digits, and how many epochs they trained."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.epochs = 0
        (folder / "space.py").write_text(SPACE)
        original = fit.Training.epoch

        def counted(training: Any, epoch: int) -> Any:
            self.epochs += 1
            return original(training, epoch)

        monkeypatch.setattr(fit.Training, "epoch", counted)
        self.spec = assemble.describe(
            SearchConfig(
                space=f"{folder / 'space.py'}:space",
                strategy="asha",
                strategy_config={"eta": 2},
                data="digits",
                epochs=4,
                split={"limit": 200},
                threads=1,
                device="cpu",
                seed=2,
                checkpoint_seconds=0.0,
            )
        ).spec

    def search(
        self, name: str, trials: int = 14, listener: Listener = silent, stopping: Any = lambda: False
    ) -> list[Run]:
        with Store(f"sqlite:///{self.folder / name}.db") as store:
            study = store.find_study("s") or store.create_study("s", self.spec, StopAt(trials=trials))
            parts = assemble.build(self.spec)
            ending = Search(store, study, parts, listener=listener, stopping=stopping).run(StopAt(trials=trials))
            if ending != Ending.INTERRUPTED:
                assert list(verify(store, study, parts)) == []
            return list(store.trials(study, metrics=True))

    def files(self, name: str) -> set[str]:
        return {path.name for path in (self.folder / f"{name}-files" / "s").glob("trial-*")}


@pytest.fixture
def bracketed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bracketed:
    return Bracketed(tmp_path, monkeypatch)


def told(runs: list[Run]) -> list[Run]:
    return [
        replace(run, attempt=0, started=None, ended=None, verdict=replace(run.verdict, seconds=None)) for run in runs
    ]


def test_a_promotion_trains_the_additional_epochs_alone(bracketed: Bracketed, tmp_path: Path) -> None:
    runs = bracketed.search("one")
    assert {run.state for run in runs} <= {State.COMPLETE, State.REUSED}
    paid = 0.0
    for run in runs:
        budget = run.proposal.budget or 0.0
        before = 0.0 if run.proposal.continues is None else runs[run.proposal.continues].proposal.budget or 0.0
        paid += (budget - before) if run.state == State.COMPLETE else 0.0
    top = [run for run in runs if run.proposal.budget == 4.0]
    assert top
    assert bracketed.epochs == paid < 4 * len({run.identity for run in runs})
    # The winner at the top is what an uninterrupted training of its first trial gives.
    origin = top[0]
    while origin.proposal.continues is not None:
        origin = runs[origin.proposal.continues]
    context = Context(derive(bracketed.spec.seed, origin.number, "train"), tmp_path / "whole")
    *_, last = assemble.build(bracketed.spec).evaluator.evaluate(Proposal(top[0].arch), 4.0, context)
    assert last.metrics == top[0].metrics
    # What may still climb keeps its checkpoint, what has climbed or cannot does not.
    climbed = {run.proposal.continues for run in runs}
    waiting = {f"trial-{run.number}" for run in runs if run.proposal.budget != 4.0 and run.number not in climbed}
    assert bracketed.files("one") == waiting


@pytest.mark.parametrize("lost", [False, True])
def test_interrupted_brackets_go_on(bracketed: Bracketed, lost: bool) -> None:
    """Also where the checkpoints are lost: then the epochs are trained again, to the same result."""
    whole = bracketed.search("whole")
    trained, bracketed.epochs = bracketed.epochs, 0

    class Stop:
        left = 0

        def __call__(self, event: Event) -> None:
            self.left -= isinstance(event, Reported | Finished)

    runs: list[Run] = []
    while len(runs) < len(whole) or not runs[-1].finished:
        stop = Stop()
        stop.left = 5
        runs = bracketed.search("stopped", listener=stop, stopping=lambda stop=stop: stop.left <= 0)
        if lost:
            shutil.rmtree(bracketed.folder / "stopped-files" / "s", ignore_errors=True)
    assert told(bracketed.search("stopped")) == told(whole)
    assert bracketed.epochs > trained if lost else bracketed.epochs == trained
