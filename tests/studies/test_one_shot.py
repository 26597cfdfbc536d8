"""The one-shot loop on a strategy that is made for it: what is stored, when it stops, and how it goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.batch import Data
from nas_core.errors import InfeasibleError, NasError, NotFoundError, TrialError
from nas_core.one_shot import Compute, OneShotConfig, Progress
from nas_core.records import Epoch, StopAt
from nas_core.seeds import generator
from nas_core.strategy import Setting, State
from search_spaces.nasbench201.space import NasBench201, Size
from search_spaces.supernet.supernet import Supernet
from studies.events import EpochEnded, Event
from studies.records import Study
from studies.search.endings import Ending
from studies.search.supernet import Derived, SupernetTraining, derived, weights_of
from studies.setup.supernets import SupernetParts
from studies.store import supernets
from studies.store.store import Store
from studies.store.testing import SUPERNET
from training.data import load
from training.data.split import Split

SPACE = NasBench201()


class Config(OneShotConfig):
    epochs: int = 4
    fails_at: int | None = None
    done_at: int | None = None
    derives: int = 2


class Walk:
    """Adds noise of torch's generator to all weights in every epoch, and derives random architectures."""

    Config = Config
    supernet: Supernet

    def __init__(self, setting: Setting, config: Config) -> None:
        self.setting, self.config = setting, config
        self.epochs = 0

    def start(self, make: Callable[[], Any], data: Data, compute: Compute) -> None:
        self.supernet = make()
        self.first = float(torch.rand(()))

    def step(self, epoch: int) -> Progress:
        if epoch == self.config.fails_at:
            raise TrialError("nan-loss", "the loss is nan")
        assert epoch == self.epochs, "an epoch is left out or repeated"
        self.epochs += 1
        with torch.no_grad():
            for parameter in self.supernet.parameters():
                parameter += torch.randn_like(parameter)
        arch = moves.sample(SPACE, generator(self.setting.seed, epoch))
        scores = dict.fromkeys(self.supernet.groups, (0.2,) * 5)
        return Progress(
            {"noise": float(torch.rand(())), "first": self.first}, scores, arch, epoch == self.config.done_at
        )

    def result(self) -> Sequence[Architecture]:
        if self.config.derives < 0:
            raise InfeasibleError("nothing fits")
        return [moves.sample(SPACE, generator(self.setting.seed, "result", n)) for n in range(self.config.derives)]

    def state_dict(self) -> Mapping[str, Any]:
        return {"supernet": dict(self.supernet.state_dict()), "epochs": self.epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.supernet.load_state_dict(state["supernet"])
        self.epochs = state["epochs"]


class Heard:
    """Stops after so many epochs, and remembers what it heard."""

    def __init__(self, after: int | None = None) -> None:
        self.after = after
        self.numbers: list[int] = []

    def __call__(self, event: Event) -> None:
        assert isinstance(event, EpochEnded)
        self.numbers.append(event.epoch.number)

    def stopping(self) -> bool:
        return self.after is not None and len(self.numbers) >= self.after


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path}/nas.db") as opened:
        yield opened


def parts_of(**config: Any) -> SupernetParts:
    source = load("digits", Split(limit=100))
    setting = Setting(SPACE, 5, ())
    size = Size(channels=2, cells=1)
    return SupernetParts(Walk, Config(**config), setting, source, size, Compute(), 1, False)


def study_of(store: Store, name: str = "s") -> Study:
    from studies.setup.assemble import describe
    from studies.setup.config import SearchConfig

    spec = describe(SearchConfig(strategy="random", size="channels=2,cells=1", split=Split(limit=100))).spec
    return store.create_study(name, spec.model_copy(update={"supernet": SUPERNET}), StopAt())


def train(store: Store, study: Study, after: int | None = None, **config: Any) -> tuple[Ending | None, Heard]:
    heard = Heard(after)
    training = SupernetTraining(store, study, parts_of(**config), listener=heard, stopping=heard.stopping)
    return training.run(), heard


def test_every_epoch_is_stored_and_the_result_too(store: Store) -> None:
    study = study_of(store)
    assert supernets.find(store, study) is None
    ending, heard = train(store, study)
    assert (ending, heard.numbers) == (None, [1, 2, 3, 4])
    run = supernets.find(store, study)
    assert run is not None
    assert run.result is not None
    assert run.weights is not None
    assert (run.state, run.attempt, len(run.result)) == (State.COMPLETE, 1, 2)
    epochs = supernets.epochs(store, study)
    assert [epoch.arch for epoch in epochs] == [moves.sample(SPACE, generator(5, n)) for n in range(4)]
    assert epochs[0].strengths["cell/edge.0-1"] == (0.2,) * 5
    assert {"noise", "first", "parameter_free", "skips"} == set(epochs[0].metrics)
    assert set(load_file(run.weights)) == set(parts_of().make_supernet().state_dict())
    assert [path.name for path in run.weights.parent.iterdir()] == [run.weights.name]
    assert weights_of(store, study) == run.weights


@pytest.mark.parametrize("stops", [(1,), (3,), (1, 1, 1), (2, 1)])
def test_a_resumed_training_is_the_same_bit_for_bit(store: Store, stops: tuple[int, ...]) -> None:
    whole, parted = study_of(store, "whole"), study_of(store, "parted")
    train(store, whole)
    for after in stops:
        # A resumed listener hears first of the epoch that was there already.
        heard_before = bool(supernets.epochs(store, parted))
        ending, _ = train(store, parted, after + heard_before)
        assert ending == Ending.INTERRUPTED
    torch.rand(3)  # the state of torch's generator outside does not matter
    ending, heard = train(store, parted)
    assert ending is None
    assert heard.numbers[0] == sum(stops)
    one, other = supernets.find(store, whole), supernets.find(store, parted)
    assert one is not None
    assert other is not None
    assert (other.attempt, other.result, other.sha256) == (len(stops) + 1, one.result, one.sha256)
    strip = [(e.number, e.arch, e.metrics, e.strengths) for e in supernets.epochs(store, whole)]
    assert strip == [(e.number, e.arch, e.metrics, e.strengths) for e in supernets.epochs(store, parted)]


def test_epochs_that_only_the_checkpoint_knows_are_stored_on_resume(store: Store) -> None:
    """A kill between the checkpoint and the commit."""
    study = study_of(store)
    train(store, study, after=3)
    expected = supernets.epochs(store, study)
    store.write(lambda c: c.exec_driver_sql("DELETE FROM epochs WHERE epoch = 3"))
    train(store, study, after=1)
    assert supernets.epochs(store, study) == expected


def test_a_complete_training_is_not_repeated(store: Store) -> None:
    study = study_of(store)
    train(store, study)
    ending, heard = train(store, study, fails_at=0)
    assert (ending, heard.numbers) == (None, [])


def test_a_strategy_ends_the_training_early(store: Store) -> None:
    study = study_of(store)
    ending, heard = train(store, study, done_at=1)
    assert (ending, heard.numbers) == (None, [1, 2])


def test_a_kill_after_the_last_epoch_only_derives(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(store)
    with monkeypatch.context() as patch:
        patch.setattr(Walk, "result", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(store, study, done_at=1)
    ending, heard = train(store, study, done_at=1)
    assert (ending, heard.numbers) == (None, [2])


def test_failures_are_stored(store: Store) -> None:
    study = study_of(store)
    with pytest.raises(NasError, match="study 's' failed: nan-loss"):
        train(store, study, fails_at=2)
    run = supernets.find(store, study)
    assert run is not None
    assert (run.state, run.reason) == (State.FAILED, "nan-loss: the loss is nan")
    assert len(supernets.epochs(store, study)) == 2
    with pytest.raises(NotFoundError, match="not trained yet"):
        weights_of(store, study)
    with pytest.raises(InfeasibleError, match="nothing fits"):
        train(store, study_of(store, "other"), derives=-1)


def test_a_supernet_that_ends_three_processes_fails(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """Stands for SIGKILL: nothing is said of the end."""

    def step(walk: Walk, epoch: int, whole: Any = Walk.step) -> Progress:
        if epoch == 2:
            raise Killed
        return whole(walk, epoch)

    study = study_of(store)
    stopped = SupernetTraining._stopped
    with monkeypatch.context() as patch:
        patch.setattr(Walk, "step", step)
        assert train(store, study, after=1)[0] == Ending.INTERRUPTED  # in good order: it does not count
        patch.setattr(SupernetTraining, "_stopped", lambda training: None)
        for tries in (1, 2, 3):
            with pytest.raises(Killed):
                train(store, study)
            found = supernets.find(store, study)
            assert found is not None
            assert (found.tries, supernets.epoch_count(store, study)) == (tries, 2)
        with pytest.raises(NasError, match="worker-died: 3 processes ended in it"):
            train(store, study)
    assert SupernetTraining._stopped is stopped
    assert train(store, study)[0] is None  # after that the user may try again, for example on another machine
    found = supernets.find(store, study)
    assert found is not None
    assert (found.state, found.tries, found.traceback) == (State.COMPLETE, 0, None)


def test_a_time_limit_keeps_the_epochs(store: Store) -> None:
    study = study_of(store)
    assert SupernetTraining(store, study, parts_of()).run(seconds=0.0) == Ending.TIME
    assert train(store, study)[0] is None


def test_derived_architectures_are_proposed_in_order(store: Store) -> None:
    from dataclasses import replace

    from studies.setup.assemble import build

    study = study_of(store)
    parts = replace(build(study.spec.model_copy(update={"supernet": None})), supernet=parts_of())
    with pytest.raises(NotFoundError, match="nas resume s"):
        derived(store, study, parts)
    train(store, study)
    strategy = derived(store, study, parts).make_strategy()
    assert isinstance(strategy, Derived)
    run = supernets.find(store, study)
    assert run is not None
    assert run.result is not None
    assert [strategy.ask(number, []).arch for number in range(2)] == list(run.result)
    assert derived(store, study, replace(parts, supernet=None)).supernet is None


def test_metrics_that_are_not_finite_come_back(store: Store) -> None:
    study = study_of(store)
    supernets.start(store, study, None)
    supernets.save_epochs(store, study, [Epoch(1, None, {"a": math.nan, "b": 1.0}, {}, 2.5)])
    (epoch,) = supernets.epochs(store, study)
    assert math.isnan(epoch.metrics["a"])
    assert (epoch.arch, epoch.metrics["b"], epoch.seconds) == (None, 1.0, 2.5)
