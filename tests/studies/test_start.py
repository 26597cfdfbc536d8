"""A search as every face begins, runs and resumes it; what it needs is read once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import training.data
from nas_core.errors import UsageError
from nas_core.records import BASELINE, Run
from nas_core.strategy import State
from studies.events import Event, Finished
from studies.executors.where import Where
from studies.search.endings import Ending
from studies.search.start import Opened, Watching, planned, resume, run, start
from studies.setup.config import SearchConfig
from studies.store.store import Store
from training.data.split import Split
from training.reading import Silent, reading

SMALL: dict[str, Any] = {
    "study": "s", "size": "channels=2,cells=1", "split": Split(limit=60), "epochs": 1, "trials": 3, "threads": 1,
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path / 'nas.db'}", tmp_path / "files") as opened:
        yield opened


def told(store: Store, name: str = "s") -> list[tuple[int, str, float]]:
    return [(one.number, one.proposal.arch.key, one.metrics["val_accuracy"]) for one in trials(store, name)]


def trials(store: Store, name: str) -> list[Run]:
    return list(store.trials(store.study(name), metrics=True))


class Heard(Watching):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.begun: list[tuple[int, tuple[float, int] | None]] = []
        self.ended: list[int] = []

    @contextmanager
    def search(self, opened: Opened, evaluated: int, best: tuple[float, int] | None) -> Iterator[Any]:
        self.begun.append((evaluated, best))
        yield self

    def say(self, text: str) -> None:
        self.said.append(text)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Finished):
            self.ended.append(event.number)


def test_a_search_is_begun_stopped_and_resumed(store: Store, tmp_path: Path) -> None:
    heard = Heard()
    stop = iter([False, False, True])
    opened = start(store, planned(SearchConfig(**SMALL)))
    assert run(store, opened, watching=heard, stopping=lambda: next(stop, True)) == Ending.INTERRUPTED
    done = len(heard.ended)
    assert done < 3
    assert run(store, resume(store, "s"), watching=heard) == Ending.TRIALS
    assert heard.ended == [0, 1, 2]
    assert [evaluated for evaluated, _ in heard.begun] == [0, done]
    assert run(store, resume(store, "s", trials=4)) == Ending.TRIALS
    assert store.study("s").stop_at.trials == 4
    with pytest.raises(UsageError, match="has 4 evaluated trials already"):
        resume(store, "s", trials=2)
    with Store(f"sqlite:///{tmp_path / 'other.db'}", tmp_path / "other") as other:
        run(other, start(other, planned(SearchConfig(**{**SMALL, "trials": 4}))))
        assert told(other) == told(store)


def test_nothing_is_stored_of_what_cannot_be(store: Store) -> None:
    with pytest.raises(UsageError, match="unknown strategy"):
        planned(SearchConfig(**{**SMALL, "strategy": "nothing"}))
    assert store.study_names() == []
    start(store, planned(SearchConfig(**SMALL)))
    with pytest.raises(UsageError, match="exists with another configuration"):
        start(store, planned(SearchConfig(**{**SMALL, "seed": 1})))


def test_more_workers_than_lag_are_told(store: Store) -> None:
    heard = Heard()
    opened = start(store, planned(SearchConfig(**{**SMALL, "lag": 1})))
    run(store, opened, where=Where(2), watching=heard, stopping=lambda: True)
    assert "no more than that of 2 workers are busy" in heard.said[0]


@pytest.mark.parametrize(
    "changes",
    [{}, {"strategy": "darts", "strategy_config": {"epochs": 1}, "trials": None}, {"warm_up": "synflow:4"}],
    ids=["black-box", "one-shot", "scored"],
)
def test_data_are_loaded_once(store: Store, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    load = training.data._load

    def counted(reference: str, split: Split) -> Any:
        loaded.append(reference)
        return load(reference, split)

    monkeypatch.setattr(training.data, "_load", counted)
    with reading(Silent()):
        opened = start(store, planned(SearchConfig(**{**SMALL, **changes})))
        run(store, opened, stopping=lambda: False)
    assert loaded == ["digits"]


def test_baselines_come_first_and_take_of_the_time(store: Store) -> None:
    """What a killed process has left of one that is evaluated goes with the next run."""
    config = SearchConfig(**{**SMALL, "space": "darts", "size": "channels=2,layers=3", "baselines": ("DARTS_V2",)})
    opened = start(store, planned(config))
    (waiting,) = store.runs(opened.study, BASELINE)
    assert waiting.state == State.WAITING
    short = resume(store, "s", time=1e-6)
    assert run(store, short) == Ending.TIME
    assert store.runs(opened.study, BASELINE)[0].state == State.WAITING
    again = resume(store, "s", trials=1)
    assert run(store, again) == Ending.TRIALS
    (done,) = store.runs(opened.study, BASELINE)
    assert (done.state, done.recipe) == (State.COMPLETE, {"name": "DARTS_V2"})
    left = store.folder(opened.study, done) / "checkpoint-000001.json"
    left.parent.mkdir()
    left.touch()
    run(store, resume(store, "s", trials=1))
    assert not left.parent.exists()
