"""Candidates that a trainer of the user's own evaluates: what `ask` gives and `tell` stores is the search that an
evaluator with the same results would have made, whenever it is killed, and no mistake loses anything."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nas
from nas_cli.app import run as command
from nas_core.errors import NotFoundError, UsageError
from studies.store.store import Store
from tests.crash.sessions import contents

OWN = '''
from nas_core.choice import Choice
from nas_core.config import Config
from nas_core.evaluation import Fidelity, Metric, Report
from nas_core.errors import TrialError
from nas_core.space import SearchSpace
from nas_core.task import image_task


class Toy(SearchSpace):
    """`act` changes the costs alone, so that half of the architectures repeat another one."""

    name = "toy"
    tasks = frozenset({"image-classification"})
    choices = (Choice("depth", (1, 2, 3, 4)), Choice("act", ("relu", "silu")), Choice("width", (8, 16, 32)))

    def identity(self, arch):
        return f"{arch.values['depth']} {arch.values['width']}"

    def costs(self, arch, task, size):
        params = 10 * arch.values["depth"] * arch.values["width"] + (arch.values["act"] == "silu")
        return {"params": params, "macs": 2 * params}


def acc(values, step=4):
    """None: it fails."""
    if (values["depth"], values["width"]) == (2, 16):
        return None
    return (values["depth"] * values["width"] % 7 + 0.1 * (3 * step % 5)) / 8


class Own:
    """What the user's trainer does, as an evaluator."""

    task = image_task((1, 8, 8), 10)
    metrics = (Metric("acc"), Metric("params", "min", cost=True), Metric("macs", "min", cost=True))
    deterministic = in_process = True

    class Settings(Config):
        epochs: int | None = None

    def __init__(self, epochs, space):
        self.epochs, self.space = epochs, space
        self.fidelity = None if epochs is None else Fidelity("epoch", 1, epochs, continues=True)

    @classmethod
    def open(cls, settings, problem):
        return cls(settings.epochs, problem.space), ""

    def identity(self, arch):
        return None

    def costs(self, arch, names):
        found = self.space.costs(arch, None, None)
        return {name: float(found[name]) for name in names if name in found}

    def evaluate(self, proposal, budget, context):
        for step in range(1, (self.epochs or 0) + 1) or [0]:
            found = acc(proposal.arch.values, step)
            if found is None:
                raise TrialError("told", "diverged")
            yield Report(step, {"acc": found, **self.costs(proposal.arch, ["params", "macs"])})


space = Toy()
'''
COMMON: dict[str, Any] = {
    "study": "s", "space": "own.py:space", "strategy": "regularized-evolution", "objective": "acc:max",
    "constraint": "params<=1000", "lag": 3, "trials": 12, "seed": 2,
}  # fmt: skip
SMALL = {"strategy": {"population": 4, "sample": 2}}
TASK = {"evaluator": {"task": {"kind": "image-classification", "input_shape": [1, 8, 8], "outputs": 10}}}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def created(**changes: Any) -> nas.Study:
    options = {**COMMON, **changes}
    return nas.create(**options, config={**(SMALL if options["strategy"] == COMMON["strategy"] else {}), **TASK})


def accuracy(values: dict[str, Any], step: int = 0) -> float | None:
    namespace: dict[str, Any] = {}
    exec(OWN, namespace)
    return namespace["acc"](values, step)


def evaluate(study: nas.Study, epochs: int | None = None) -> None:
    """The loop of a user's trainer."""
    while (trial := study.ask()) is not None:
        for step in range(1, epochs or 0):
            found = accuracy(trial["architecture"], step)
            if found is None:
                break
            if study.tell(trial, {"acc": found}, step=step)["state"] == "pruned":
                break
        else:
            found = accuracy(trial["architecture"], epochs or 0)
            if found is not None:
                study.tell(trial, {"acc": found})
        if found is None:
            study.tell(trial, failed="diverged")


def evaluate_backwards(study: nas.Study) -> None:
    """Several trials at a time, the newest first."""
    while True:
        asked = []
        with suppress(UsageError):  # one of them must be told first
            while (trial := study.ask()) is not None:
                asked.append(trial)
        if not asked:
            return
        for trial in reversed(asked):
            found = accuracy(trial["architecture"])
            study.tell(trial, {"acc": found}) if found is not None else study.tell(trial, failed="diverged")


def trials(file: str) -> list[Any]:
    with Store(f"sqlite:///{file}") as store:
        runs = list(store.trials(store.study("s"), metrics=True))
        return [
            (
                replace(
                    run,
                    id=0,
                    attempt=0,
                    tries=0,
                    started=None,
                    ended=None,
                    verdict=replace(run.verdict, seconds=None, traceback=None),
                ),
                store.curve(run),
            )
            for run in runs
        ]


@pytest.mark.parametrize(("lag", "trainer"), [(1, evaluate), (3, evaluate), (3, evaluate_backwards)])
def test_it_is_the_search_of_an_evaluator_with_the_same_results(
    place: Path, lag: int, trainer: Callable[[nas.Study], None]
) -> None:
    options = {**COMMON, "lag": lag}
    nas.search(**options, evaluator="own.py:Own", config=SMALL, db="searched.db")
    study = created(lag=lag)
    trainer(study)
    found = trials("nas.db")
    assert found == trials("searched.db")
    states = {str(run.state) for run, _ in found}
    assert states == {"complete", "reused", "failed", *(["rejected"] if lag == 3 else [])}
    assert study.ask() is None
    assert command(["verify", "s"]) == 0


def test_steps_and_early_stopping_are_those_of_a_search(place: Path) -> None:
    stop = {"early_stop": "median", "constraint": []}
    settings = {**SMALL, "early_stop": {"name": "median", "warmup_steps": 1, "startup_trials": 2}}
    nas.search(
        **{**COMMON, **stop}, evaluator="own.py:Own", config={**settings, "evaluator": {"epochs": 4}},
        db="searched.db",
    )  # fmt: skip
    study = nas.create(**{**COMMON, **stop}, epochs=4, config={**settings, **TASK})
    evaluate(study, 4)
    found = trials("nas.db")
    assert found == trials("searched.db")
    assert "pruned" in {str(run.state) for run, _ in found}


def test_an_early_stop_knows_the_steps_before(place: Path) -> None:
    """A trial is as good as its best step, whoever tells the next one."""
    stop = {"name": "median", "warmup_steps": 1, "startup_trials": 2}
    asked = {**COMMON, "strategy": "random", "early_stop": "median", "constraint": [], "lag": 1}
    study = nas.create(**asked, epochs=4, config={"early_stop": stop, **TASK})

    def told(curve: list[float]) -> list[str]:
        trial = study.ask()
        assert trial is not None
        states = [study.tell(trial, {"acc": acc}, step=step)["state"] for step, acc in enumerate(curve, start=1)]
        return states if states[-1] == "pruned" else [*states, study.tell(trial, {"acc": curve[-1]})["state"]]

    for _ in range(2):
        told([0.5, 0.5, 0.5])
    assert "pruned" not in told([0.9, 0.1, 0.1])
    assert told([0.4, 0.4])[-1] == "pruned"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("verbs", [("propose_all",), ("finish", "start")])
def test_killed_at_six_moments_it_is_the_same_study(
    place: Path, monkeypatch: pytest.MonkeyPatch, verbs: tuple[str, ...], after: bool
) -> None:
    """In this process; `tests/crash/test_kill.py` kills processes."""
    evaluate(created())
    whole = contents(place / "nas.db", durations=False)
    (place / "nas.db").unlink()

    class Killed(BaseException):
        pass

    calls = killed = 0

    def disturbed(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls % 3 == 0 and not after and killed < 6:
                raise Killed
            done = real(*arguments, **named)
            if calls % 3 == 0 and after and killed < 6:
                raise Killed
            return done

        return call

    for verb in verbs:
        monkeypatch.setattr(Store, verb, disturbed(getattr(Store, verb)))
    while True:
        try:
            evaluate(created())
        except Killed:
            killed += 1
        else:
            break
    assert killed >= 4
    assert contents(place / "nas.db", durations=False) == whole


SCRIPT = """
import nas
from own import acc

study = nas.create(**OPTIONS)
while (trial := study.ask()) is not None:
    found = acc(trial["architecture"], 0)
    study.tell(trial, {"acc": found}) if found is not None else study.tell(trial, failed="diverged")
"""


@pytest.mark.slow
def test_ten_killed_trainers(place: Path) -> None:
    evaluate(created())
    whole = contents(place / "nas.db", durations=False)
    (place / "nas.db").unlink()
    options = {**COMMON, "config": {**SMALL, **TASK}}
    (place / "trainer.py").write_text(SCRIPT.replace("OPTIONS", repr(options)))
    rng, killed, length = random.Random(3), 0, 8.0
    while killed < 6:
        process = subprocess.Popen([sys.executable, "trainer.py"])
        time.sleep(rng.uniform(0, length))
        if process.poll() is None:
            killed += 1
        else:  # it has come to its end on a quick machine
            assert process.returncode == 0
            assert contents(place / "nas.db", durations=False) == whole
            length *= 0.8
            (place / "nas.db").unlink()
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([sys.executable, "trainer.py"], check=True)
    assert contents(place / "nas.db", durations=False) == whole


def test_asking_gives_as_many_as_the_lag(place: Path) -> None:
    study = created(constraint=[])
    first, second, third = study.ask(), study.ask(), study.ask()
    assert first is not None
    assert second is not None
    assert third is not None
    assert first["number"] < second["number"] < third["number"]
    with pytest.raises(UsageError, match=r"s:0 must be told first: the study's lag is 3"):
        study.ask()
    (again,) = nas.studies()
    assert again.ask() == first  # another process begins with the oldest
    study.tell(second, {"acc": 0.5})  # the order is that of the study
    with pytest.raises(UsageError, match="s:0 must be told first"):
        study.ask()
    study.tell(first["number"], {"acc": 0.5}, seconds=3.5)
    assert study.ask() is not None
    assert study.trials()[0]["seconds"] == 3.5


def test_a_network_is_that_of_a_search(place: Path) -> None:
    import torch

    study = nas.create(
        "s", space="nasbench201", size="channels=2,cells=1", objective="acc:max", strategy="random",
        config={"split": {"limit": 100}},
    )  # fmt: skip
    trial = study.ask()
    assert trial is not None
    one, two = study.network(trial), study.network(trial["number"])
    assert all(torch.equal(*both) for both in zip(one.parameters(), two.parameters(), strict=True))
    document = study.tell(trial, {"acc": 0.5})
    assert document["metrics"]["params"] == sum(parameter.numel() for parameter in one.parameters())
    assert one(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("number", "told", "said"),
    [
        (0, {"metrics": {}}, "metric 'acc' is missing; the study needs acc"),
        (0, {"metrics": {"acc": float("nan")}}, "metric 'acc' is nan, which is no finite number"),
        (0, {"metrics": {"acc": "high"}}, "metric 'acc' is 'high', which is no finite number"),
        (0, {"metrics": {"acc": True}}, "metric 'acc' is True, which is no finite number"),
        (0, {"metrics": {"acc": 1, "lss": 1}}, "unknown metric 'lss'; did you mean 'loss'"),
        (0, {"metrics": {"acc": 1, "params": 3}}, "'params' is counted here, not told"),
        (0, {"failed": " "}, "say why s:0 has failed"),
        (0, {"metrics": {"acc": 1}, "step": 1}, "study 's' has no steps; make one with --epochs"),
        (0, {}, "tell either metrics"),
        (1, {"metrics": {"acc": 1}}, "s:1 is told already: it is complete; what was told stays"),
        (2, {"metrics": {"acc": 1}}, "study 's' has no trial 2"),
    ],
)
def test_what_cannot_be_told_is_said_and_nothing_is_stored(
    place: Path, number: int, told: dict[str, Any], said: str
) -> None:
    study = created(constraint=[], lag=2, metric=["loss:min"])
    study.ask()
    study.tell(1, {"acc": 0.25})
    before = contents(place / "nas.db", durations=True)
    with pytest.raises((UsageError, NotFoundError), match=said):
        study.tell(number, **told)
    assert contents(place / "nas.db", durations=True) == before


def test_steps_that_are_none(place: Path) -> None:
    study = created(constraint=[], epochs=4)
    study.ask()
    for step in (0, 4):
        with pytest.raises(UsageError, match=f"step {step}: steps before the last of s:0 are 1 to 3 epoch"):
            study.tell(0, {"acc": 0.1}, step=step)


def test_trials_whose_result_nobody_waits_for(place: Path) -> None:
    (place / "strategy.py").write_text(
        "from nas_core.architecture import Architecture\nfrom nas_core.config import Config\n"
        "from nas_core.strategy import Proposal\n\n\nclass Twice:\n    class Config(Config):\n        pass\n\n"
        "    def __init__(self, setting, config):\n        pass\n\n    def ask(self, number, pending):\n"
        "        depth = 4 if number == 2 else 1\n        values = {'depth': depth, 'act': 'relu', 'width': 32}\n"
        "        return Proposal(Architecture('toy', values))\n\n    def tell(self, outcome):\n        pass\n"
    )
    study = created(study="s2", strategy="strategy.py:Twice", lag=3)
    trial = study.ask()
    assert trial is not None
    assert trial["number"] == 0
    with pytest.raises(UsageError, match="s2:0 must be told first"):
        study.ask()
    with pytest.raises(UsageError, match="s2:1 is the same candidate as s2:0, whose result it takes; tell that one"):
        study.tell(1, {"acc": 0.1})
    with pytest.raises(UsageError, match=r"s2:2 was rejected \(constraint: params is 1280"):
        study.tell(2, {"acc": 0.1})
    study.tell(0, failed="diverged")
    again = study.ask()  # the first that repeats it is evaluated now
    assert again is not None
    assert again["number"] == 1
    study.tell(1, {"acc": 0.1})
    with pytest.raises(UsageError, match="s2:2 was rejected"):
        study.tell(2, {"acc": 0.1})


def test_from_the_command_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def say(*arguments: str) -> tuple[int, str, str]:
        code = command(arguments)
        return code, *capsys.readouterr()

    make = ["ask", "s", "--space", "own.py:space", "--objective", "acc:max", "--objective", "params:min", "--lag", "2"]
    make += [
        "--strategy",
        "random",
        "--trials",
        "2",
        "-s",
        f"evaluator.task={json.dumps(TASK['evaluator']['task'])}",
    ]
    code, _, err = say("ask", "s")
    assert code == 3
    assert "nas ask s --space NAME --objective METRIC:max" in err or "no database" in err
    code, out, err = say(*make, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [one["address"] for one in found] == ["s:0", "s:1"]
    assert {
        "architecture",
        "key",
        "number",
        "seed",
        "step",
        "continues",
        "transfer",
        "notation",
        "study",
        "address",
    } == set(found[0])
    assert json.loads(say("ask", "s", "--json", "--count", "1")[1]) == found[:1]
    assert len(say("ask", "s")[1].splitlines()) == 3
    for arguments, said in [
        (["tell", "s", "acc=1"], "'s' is no trial; write s:NUMBER"),
        (["tell", "s:0", "acc"], "'acc' is no METRIC=VALUE"),
        (["tell", "s:0", "acc=1", "acc=2"], "metric 'acc' is said twice"),
        (["tell", "s:0", "acc=1", "--failed", "x"], "a trial that has failed has no metrics"),
        (["resume", "s"], "the results of study 's' are told to it: nas ask s"),
        ([*make, "--seed", "7"], "study 's' exists with another configuration (seed: 0 there, 7 now)"),
        (["ask", "t", "--space", "own.py:space", "--objective", "acc"], "metric 'acc': say what is better, acc:max or"),
    ]:
        code, _, err = say(*arguments)
        assert code == 2
        assert said in err
        assert len(err.splitlines()) <= 2
    code, out, err = say("tell", "s:1", "acc=0.5", "--json")
    assert json.loads(out)["values"].keys() == {"acc", "params"}
    assert say("tell", "s:0", "--failed", "no room")[1] == "s:0: failed: told: no room\n"
    code, out, err = say("ask", "s", "--json")
    assert (code, json.loads(out), err) == (0, [], "study s: all trials are done\n")
    assert say("best", "s")[0] == 0
    assert say("ask", "s", "--trials", "3")[1].startswith("trial")
    code, _, err = say("search", "--study", "u", "--evaluator", "own.py:Own", "--space", "own.py:space", "-n", "1")
    assert code == 0, err
    code, _, err = say("ask", "u")
    assert code == 2
    assert "study 'u' evaluates by itself (evaluator 'own.py:Own'): nas resume u" in err
