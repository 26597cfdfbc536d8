"""The one-shot loop on a strategy that is made for it: what is stored, when it stops, and how it goes on."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.batch import Data
from nas_core.errors import InfeasibleError, NasError, NotFoundError, TrialError
from nas_core.evaluation import Report
from nas_core.one_shot import Compute, OneShotConfig, Progress
from nas_core.records import Epoch, StopAt
from nas_core.seeds import generator
from nas_core.strategy import Setting, State
from search_spaces.nasbench201.space import NasBench201, Size
from search_spaces.supernet import supernet as networks
from studies import executors
from studies.events import EpochEnded, Event
from studies.executors import Begun, Died, Halted, Reported
from studies.executors.inline import Inline
from studies.executors.where import HERE, Where
from studies.jobs.supernet import Supernet
from studies.records import Study
from studies.search import start
from studies.search.endings import Ending
from studies.search.start import Opened, Watching
from studies.search.supernet import Derived, SupernetTraining, derived, weights_of
from studies.setup.config import SearchConfig
from studies.setup.supernets import SupernetParts
from studies.store import supernets
from studies.store.store import Store
from studies.store.testing import SUPERNET
from tests.crash.sessions import contents
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
    supernet: networks.Supernet

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

    spec = describe(SearchConfig(strategy="random", size="channels=2,cells=1", split=Split(limit=100))).spec
    return store.create_study(name, spec.model_copy(update={"supernet": SUPERNET}), StopAt())


def training_of(store: Store, study: Study, parts: SupernetParts, **more: Any) -> SupernetTraining:
    """In this process."""
    return SupernetTraining(store, study, Supernet(parts), lambda: Inline(Supernet(parts)), **more)


def train(store: Store, study: Study, after: int | None = None, **config: Any) -> tuple[Ending | None, Heard]:
    heard = Heard(after)
    training = training_of(store, study, parts_of(**config), listener=heard, stopping=heard.stopping)
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
    ending, heard = train(store, study, after=2)
    assert (ending, heard.numbers) == (Ending.INTERRUPTED, [2, 3])
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
        with pytest.raises(NasError, match=r"worker-died: 3 processes ended in it"):
            train(store, study)
    assert SupernetTraining._stopped is stopped
    assert train(store, study)[0] is None  # after that the user may try again, for example on another machine
    found = supernets.find(store, study)
    assert found is not None
    assert (found.state, found.tries, found.traceback) == (State.COMPLETE, 0, None)


def test_a_time_limit_keeps_the_epochs(store: Store) -> None:
    study = study_of(store)
    assert training_of(store, study, parts_of()).run(seconds=0.0) == Ending.TIME
    assert train(store, study)[0] is None


@pytest.mark.usefixtures("forked_workers")
def test_a_worker_that_dies_costs_an_attempt_and_changes_no_bit(tmp_path: Path) -> None:
    """It is replaced by one that goes on from the checkpoint."""

    def trained(name: str, where: Where, hear: Callable[[Event], None]) -> dict[str, Any]:
        class Heard(Watching):
            def supernet(self, opened: Opened) -> Any:
                return nullcontext(hear)

        asked = {"strategy": "darts", "strategy_config": {"epochs": 3}, "size": "channels=2,cells=1", "threads": 1}
        with Store(f"sqlite:///{tmp_path}/{name}.db") as store:
            config = SearchConfig(study="s", split=Split(limit=100), epochs=1, device="cpu", **asked)
            opened = start.start(store, start.planned(config))
            start.run(store, opened, where=where, watching=Heard())
            run = supernets.find(store, opened.study)
            assert run is not None
            attempts.append((run.attempt, run.tries))
        return contents(tmp_path / f"{name}.db", durations=False)

    def kill(event: Event) -> None:
        assert isinstance(event, EpochEnded)
        heard.append(event.epoch.number)
        if heard.count(1) == 1:
            (child,) = multiprocessing.active_children()
            child.kill()
            child.join()

    attempts: list[tuple[int, int]] = []
    heard: list[int] = []
    assert trained("away", Where(2, "processes"), kill) == trained("here", HERE, lambda event: None)
    assert attempts == [(2, 0), (1, 0)]
    assert heard in ([1, 1, 2, 3], [1, 2, 3])  # the message of the second may have been on its way


class Scripted:
    """An executor in which happens what is written down."""

    slots, apart = 1, True

    def __init__(self, *events: executors.Event) -> None:
        self.events, self.submitted = list(events), 0

    def submit(self, job: executors.Job) -> None:
        self.submitted += 1

    def next(self, stopping: Callable[[], bool]) -> executors.Event:
        return self.events.pop(0)

    def drop(self, number: int) -> None: ...
    def told(self, number: int, asked_after: int, seconds: float) -> None: ...
    def close(self) -> None: ...


def test_attempts_of_workers_count_from_where_they_have_come_to_it(store: Store) -> None:
    study, begun, died, halted = study_of(store), Begun(0), Died(0, "SIGSEGV"), Halted(0)
    epoch = [Reported(0, Report(n, {"a": 1.0}, 1.0, {"arch": None, "strengths": {}})) for n in (0, 1, 2)]

    def tries(*events: executors.Event) -> int:
        scripted = Scripted(*events)
        training = SupernetTraining(store, study, Supernet(parts_of()), lambda: scripted)
        assert training.run() == Ending.TIME  # it is not asked to stop, so that was the time
        found = supernets.find(store, study)
        assert found is not None
        assert scripted.events == []
        return found.tries

    assert tries(halted) == 0
    assert tries(died, begun, halted) == 0
    assert tries(begun, died, halted) == 1
    assert tries(begun, died, begun, epoch[1], halted) == 0
    assert tries(begun, died, begun, epoch[1], died, halted) == 2
    assert tries(begun, epoch[1], epoch[2], halted) == 0
    with pytest.raises(NasError, match=r"worker-died: 3 processes ended in it .*, the last with SIGSEGV"):
        tries(begun, died, begun, died, begun, died)
    found = supernets.find(store, study)
    assert found is not None
    assert (found.state, found.tries) == (State.FAILED, 0)


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
