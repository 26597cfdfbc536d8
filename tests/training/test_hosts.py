"""Layers that are trained in several hosts at a time: what is reported, what is resumed, what is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nas_core.errors import Rejected, TrialError, UsageError
from nas_core.evaluation import Budget, Context, Evaluator, Report
from nas_core.strategy import Proposal
from search_spaces.evonorm.space import EvoNorm
from search_spaces.nasbench201.space import NasBench201
from training.checkpoint import adopt
from training.evaluators import kinds
from training.evaluators.hosts import Hosts, labels
from training.evaluators.settings import Problem, Request

SPACE = EvoNorm()
ARCH = SPACE.named["gn-relu"]
HOSTS = ("vgg", "mobilenet")
EPOCHS = 3
TRAIN = {"split": {"limit": 80}, "epochs": EPOCHS, "device": "cpu", "threads": 1, "checkpoint_seconds": 0.0}
SMALL = {"width": 4, "depth": 1, "stages": 1}

SCREENS = """
calls = []

def look(network, task):
    calls.append(len(list(network.modules())))
    return "second: of the hosts" if len(calls) > 1 else None

def worse(epoch, report):
    return "worse" if epoch == 2 else None
"""


def asked(hosts: Sequence[str], screens: Sequence[str] = (), **train: Any) -> Mapping[str, Any]:
    inner = {**TRAIN, **train}
    return {
        "kind": "hosts",
        "hosts": list(hosts),
        "inner": {"kind": "screened", "screens": list(screens), "inner": inner} if screens else inner,
    }


def settled(asked: Mapping[str, Any], space: Any = SPACE, objectives: Sequence[str] = (), **size: Any) -> Any:
    chosen = space.Size.preset("search", **(size or SMALL if space is SPACE else {}))
    return kinds.options(asked).settle(Request(Problem(space, chosen), space.name, None, tuple(objectives)))


@pytest.fixture(scope="module")
def hosts() -> Evaluator:
    return settled(asked(HOSTS)).evaluator


@pytest.fixture(scope="module")
def whole(hosts: Evaluator, tmp_path_factory: pytest.TempPathFactory) -> list[Report]:
    """What an uninterrupted evaluation reports."""
    return run(hosts, tmp_path_factory.mktemp("whole"))


def run(evaluator: Evaluator, folder: Path, budget: Budget | None = None) -> list[Report]:
    return list(evaluator.evaluate(Proposal(ARCH), budget, Context(5, folder)))


def figures(reports: Sequence[Report]) -> list[tuple[float, Mapping[str, float]]]:
    return [(report.step, report.metrics) for report in reports]


def test_each_host_has_an_ordinary_training(hosts: Evaluator, whole: list[Report], tmp_path: Path) -> None:
    """The figures of a host are those of an evaluator of its own; without a name they are the mean of all hosts."""
    assert [report.step for report in whole] == [1, 2, 3]
    alone = {}
    for host in HOSTS:
        own = settled({"kind": "train", **TRAIN}, host=host, **SMALL).evaluator
        alone[host] = list(own.evaluate(Proposal(ARCH), None, Context(5, tmp_path / host)))
    for epoch, report in enumerate(whole):
        for name in ("val_accuracy", "val_loss"):
            values = [alone[host][epoch].metrics[name] for host in HOSTS]
            assert [report.metrics[f"{name}.{host}"] for host in HOSTS] == values
            assert report.metrics[name] == pytest.approx(sum(values) / 2, abs=1e-15)
        assert report.metrics["train_loss"] == pytest.approx(
            sum(alone[host][epoch].metrics["train_loss"] for host in HOSTS) / 2
        )
        for cost in ("params", "macs"):
            assert report.metrics[cost] == alone[HOSTS[0]][epoch].metrics[cost]
            assert report.metrics[cost] != alone[HOSTS[1]][epoch].metrics[cost]
    assert hosts.costs(ARCH, ["params"]) == {"params": whole[-1].metrics["params"]}


class Killed(BaseException):
    """The process ends."""


@pytest.mark.parametrize("moment", range(2 * EPOCHS))
def test_killed_between_hosts_it_goes_on_to_the_same_end(
    hosts: Any, whole: list[Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """The process ends after the epoch number `moment` of all hosts, whose checkpoint is written."""
    epochs = [0]
    trained = type(hosts._first).trained

    def dying(self: Any, *arguments: Any) -> Iterator[Report]:
        with closing(trained(self, *arguments)) as reports:
            for report in reports:
                epochs[0] += 1
                if epochs[0] == moment + 1:
                    raise Killed
                yield report

    with monkeypatch.context() as patched:
        patched.setattr(type(hosts._first), "trained", dying)
        with pytest.raises(Killed):
            run(hosts, tmp_path)
    assert figures(run(hosts, tmp_path)) == figures(whole)


def test_one_that_is_stopped_has_a_checkpoint_of_each_host(
    hosts: Evaluator, whole: list[Report], tmp_path: Path
) -> None:
    reports = hosts.evaluate(Proposal(ARCH), None, Context(5, tmp_path, stopping=lambda: True))
    assert next(iter(reports)).step == 1
    reports.close()  # type: ignore[attr-defined]
    assert {path.name for path in tmp_path.iterdir()} == set(HOSTS)
    assert all(list((tmp_path / host).glob("checkpoint-*.json")) for host in HOSTS)
    assert figures(run(hosts, tmp_path)) == figures(whole)


def test_a_larger_budget_goes_on_from_a_smaller_one(
    hosts: Any, whole: list[Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As brackets ask for: the folder of the trial that is continued is adopted, with those of the hosts."""
    assert figures(run(hosts, tmp_path / "one", 1)) == figures(whole[:1])
    assert adopt(tmp_path / "one", tmp_path / "other")
    trained: list[int] = []
    from training import fit

    epoch = fit.Training.epoch
    monkeypatch.setattr(fit.Training, "epoch", lambda self, number: (trained.append(number), epoch(self, number))[1])
    assert figures(run(hosts, tmp_path / "other")) == figures(whole)
    assert trained == [1, 1, 2, 2]


def test_seconds_are_those_of_all_hosts(tmp_path: Path) -> None:
    """Each training counts from its own beginning, and in that the time of the others."""

    class Paced:
        metrics, fidelity, deterministic, in_process, task = (), None, True, True, None

        def __init__(self, pauses: Sequence[float]) -> None:
            self.pauses, self.size = pauses, self

        def fitted(self, task: Any) -> None: ...

        def made(self, arch: Any, seed: int) -> None: ...

        def trained(self, *arguments: Any) -> Iterator[Report]:
            begun = time.monotonic()
            for step, pause in enumerate(self.pauses, 1):
                clock[0] += pause
                yield Report(step, {}, time.monotonic() - begun)

    clock = [100.0]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: clock[0])
        made = Hosts({"one": Paced([1, 2, 4]), "two": Paced([8]), "three": Paced([16, 32, 64])})
        found = [report.seconds for report in made.evaluate(Proposal(ARCH), None, Context(0, tmp_path))]
    assert found == [25, 59, 127]


# -- screens -------------------------------------------------------------------------------------------------------


@pytest.fixture
def screens(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(SCREENS)
    return f"{tmp_path / 'mine.py'}"


def test_screens_look_at_every_host_before_any_is_trained(screens: str, tmp_path: Path) -> None:
    found = settled(asked(HOSTS, [f"{screens}:look"])).evaluator
    with pytest.raises(Rejected, match="host mobilenet: of the hosts") as caught:
        run(found, tmp_path / "trial")
    assert caught.value.reason == "second"
    assert not (tmp_path / "trial").exists()
    assert caught.value.seconds > 0


def test_screens_look_at_trained_hosts(screens: str, tmp_path: Path) -> None:
    found = settled(asked(HOSTS, [f"{screens}:worse"])).evaluator
    reports: list[Report] = []
    with pytest.raises(Rejected, match="host vgg") as caught:
        reports.extend(found.evaluate(Proposal(ARCH), None, Context(5, tmp_path / "trial")))
    assert caught.value.reason == "worse"
    # The first epoch was of both hosts; in the second one the first host is turned down.
    whole = list(settled(asked(HOSTS)).evaluator.evaluate(Proposal(ARCH), 1, Context(5, tmp_path / "other")))
    [report] = list(found.evaluate(Proposal(ARCH), 1, Context(5, tmp_path / "short")))
    assert report.metrics == whole[0].metrics


def test_a_failure_names_the_host(tmp_path: Path) -> None:
    found = settled(asked(HOSTS)).evaluator
    with pytest.raises(TrialError, match=r"time-limit.*host vgg") as caught:
        list(found.evaluate(Proposal(ARCH), None, Context(5, tmp_path, deadline=time.monotonic() - 1)))
    assert caught.value.reason == "time-limit"


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "space", "size", "message"),
    [
        (asked(["resnet", "vggg"]), SPACE, SMALL, "unknown host 'vggg'.*did you mean 'vgg'"),
        (
            asked(["resnet", "gcn"]),
            SPACE,
            {},
            "host 'gcn' learns node-classification, and the data is image-class.*vgg",
        ),
        (asked(["mlp"]), SPACE, {}, "host 'mlp' learns tabular.*use resnet"),
        (asked(["vgg", "vgg"]), SPACE, SMALL, "two hosts are called 'vgg'"),
        (asked(["vgg"]), NasBench201(), {}, "space 'nasbench201' are no layers; leave it out"),
        (asked(["vgg", "resnet"]), SPACE, {"host": "resnet"}, "--size has the host 'resnet'.*begins with 'vgg'"),
        (asked(["vit", "vgg"]), SPACE, {"stages": 2}, "host 'vit' has no stages"),
        ({"kind": "hosts", "hosts": ["vgg"], "inner": {"kind": "told"}}, SPACE, SMALL, "trains none; leave it out"),
    ],
)
def test_what_does_not_fit_is_refused(wanted: Any, space: Any, size: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        settled(wanted, space, **size)


def test_objectives_of_a_host_choose_the_best_epoch() -> None:
    """Where a recipe tells good epochs from bad, each host does by its own figure."""
    keeping = {"recipe": {"name": "quick", "keep": "best"}}
    found = settled(asked(HOSTS, **keeping), objectives=["val_loss.vgg:min"])
    assert found.settings.inner.monitor == "val_loss:min"


def test_all_hosts_learn_from_the_same_data(hosts: Any) -> None:
    """They are in memory once, also where screens look at every host, and where a study is opened again."""
    screened = settled(asked((*HOSTS, "vit"), ["finite"]))
    again = kinds.opened(screened.settings, Problem(SPACE, SPACE.Size.preset("search")))
    for found in (hosts, screened.evaluator, again.evaluator):
        first, *others = found._evaluators.values()
        assert others
        assert all(other.data is first.data and other.source is first.source for other in others)


def test_labels() -> None:
    assert labels(["resnet", "my.py:net", "other.py:Net(width=3)"]) == ["resnet", "net", "Net"]
    assert kinds.options(asked(["a.py:net(width=3, depth=2),vgg"])).hosts == ("a.py:net(width=3, depth=2)", "vgg")
    with pytest.raises(UsageError, match="two hosts are called 'net'"):
        labels(["my.py:net", "other.py:net"])
