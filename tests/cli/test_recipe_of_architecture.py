"""Architectures that decide how they are trained: a space of the user's own from the search to the card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas_core.architecture import Architecture
from nas_core.evaluation import Context
from nas_core.seeds import derive
from nas_core.strategy import Proposal
from studies.setup.spaces import load_space
from training import fit
from training.data import load
from training.data.split import Split
from training.evaluators.train import Train
from training.recipe import decided, learning_rate, recipe

Say = Callable[..., tuple[int, str, str]]
SPACE = """
from nas_core.choice import Choice
from nas_core.space import SearchSpace


class Tuned(SearchSpace):
    name = "tuned"
    tasks = frozenset({"image-classification"})
    choices = (
        Choice("rate", (0.01, 0.1)),
        Choice("epochs", (2, 5)),
        Choice("batch", (16, 64)),
        Choice("optimizer", ("sgd", "adam")),
    )

    def recipe(self, arch):
        values = arch.values
        fields = {"lr": values["rate"], "epochs": values["epochs"], "batch_size": values["batch"]}
        return {**fields, **self.optimizer(values)}

    def optimizer(self, values):
        return {"optimizer": values["optimizer"]}

    def identity(self, arch):
        return "one network"

    def build(self, arch, task, size):
        from torch import nn

        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))


space = Tuned()


class Wrong(Tuned):
    def optimizer(self, values):
        return {"dropout": 0.5}


class Unknown(Tuned):
    def optimizer(self, values):
        return {"optimizer": "lion"}


wrong, unknown = Wrong(), Unknown()
"""
SMALL = [
    "--data",
    "digits",
    "-s",
    "split.limit=100",
    "--threads",
    "1",
    "--device",
    "cpu",
    "-s",
    "recipe.precision=float32",
]


@pytest.fixture
def tuned(folder: Path) -> Path:
    (folder / "tuned.py").write_text(SPACE)
    return folder


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """The epochs that are trained, each with its learning rate."""
    seen: list[tuple[int, float]] = []
    original = fit.Training.epoch

    def counted(training: Any, epoch: int) -> Any:
        seen.append((epoch, learning_rate(training.recipe, epoch)))
        return original(training, epoch)

    monkeypatch.setattr(fit.Training, "epoch", counted)
    return seen


def searched(say: Say, *arguments: str) -> list[dict[str, Any]]:
    code, _, err = say("search", "--study", "a", "--space", "tuned.py:space", *SMALL, *arguments)
    assert code == 0, err
    code, out, err = say("trials", "a", "--json")
    assert code == 0, err
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_a_search_trains_each_by_its_own_recipe(tuned: Path, say: Say) -> None:
    """One network with sixteen recipes is sixteen candidates, and each comes to what its recipe alone comes to."""
    trials = searched(say, "--strategy", "random", "--trials", "16", "--epochs", "3", "--seed", "3")
    assert {trial["state"] for trial in trials} == {"complete"}
    assert len({trial["identity"] for trial in trials}) == 16
    space, _ = load_space("tuned.py:space")
    source = load("digits", Split(limit=100))
    assert {len(curve) for curve in (_curve(say, trial) for trial in trials[:6])} <= {2, 3}
    for trial in trials[:4]:
        values = trial["architecture"]
        fields = {"lr": values["rate"], "batch_size": values["batch"], "optimizer": values["optimizer"]}
        assert trial["recipe"] == {**fields, "epochs": values["epochs"]}
        changed = {**fields, "epochs": values["epochs"], "nesterov": values["optimizer"] == "sgd"}
        plain = recipe("quick", source.task, precision="float32", **changed)
        seed = derive(3, trial["number"], "train")
        fixed = _without_recipe(Train(space, source, space.Size(), plain, device="cpu", threads=1))
        context = Context(seed, tuned / f"alone-{trial['number']}")
        budget = min(3, values["epochs"])
        *_, last = fixed.evaluate(Proposal(Architecture("tuned", values)), budget, context)
        assert last.step == budget
        assert last.metrics == trial["metrics"]


def _without_recipe(train: Train) -> Train:
    train.space = type("Fixed", (type(train.space),), {"recipe": lambda self, arch: {}})()
    return train


def _curve(say: Say, trial: dict[str, Any]) -> list[Any]:
    curve: list[Any] = json.loads(say("show", trial["address"], "--json")[1])["curve"]
    return curve


def test_brackets_end_at_the_horizon_that_an_architecture_decides(
    tuned: Path, say: Say, epochs: list[tuple[int, float]]
) -> None:
    """A trial that goes on after its horizon trains nothing more, whatever its budget is."""
    how = ["--strategy", "asha", "-s", "strategy.eta=2", "--trials", "20", "--epochs", "4", "--seed", "1"]
    trials = searched(say, *how, "-s", "evaluator.checkpoint_seconds=0")
    went_on = [trial for trial in trials if trial["continues"] is not None and trial["architecture"]["epochs"] == 2]
    beyond = [trial for trial in went_on if trial["budget"] > 2]
    assert beyond
    for trial in beyond:
        before = next(one for one in trials if one["number"] == trial["continues"])
        assert _curve(say, trial)[-1]["step"] == 2
        assert trial["metrics"] == before["metrics"]
    # What was trained is what the trials have added, up to their horizons.
    reached = {trial["number"]: min(trial["budget"], trial["architecture"]["epochs"]) for trial in trials}
    paid = sum(reached[trial["number"]] - reached.get(trial["continues"], 0) for trial in trials)
    assert len(epochs) == paid
    assert all(epoch < 4 for epoch, _ in epochs)


def test_a_training_and_its_card_name_the_recipe_that_was_used(
    tuned: Path, say: Say, epochs: list[tuple[int, float]]
) -> None:
    trials = searched(say, "--trials", "3", "--epochs", "2", "--seed", "2")
    trial = max(trials, key=lambda one: one["architecture"]["epochs"])
    values = trial["architecture"]
    assert values["epochs"] == 5
    code, out, err = say("show", trial["address"])
    assert code == 0, err
    assert f"lr={values['rate']} epochs=5 batch_size={values['batch']} optimizer={values['optimizer']}" in out

    epochs.clear()
    code, out, err = say("train", trial["address"], "--recipe", "quick")
    assert code == 0, err
    assert f"with quick and the architecture's own lr={values['rate']} epochs=5" in out
    assert len(epochs) == 5
    assert epochs[0][1] == pytest.approx(values["rate"])
    code, out, err = say("export", trial["address"], "--format", "json", "--out", "out")
    assert code == 0, err
    card = next((tuned / "out").glob("*.md")).read_text()
    assert f'"lr": {values["rate"]}' in card
    assert f'"batch_size": {values["batch"]}' in card
    assert '"epochs": 5' in card


def test_a_training_may_end_before_the_horizon_and_what_is_decided_is_not_changed(
    tuned: Path, say: Say, epochs: list[tuple[int, float]]
) -> None:
    trials = searched(say, "--trials", "3", "--epochs", "1", "--seed", "2")
    trial = max(trials, key=lambda one: one["architecture"]["epochs"])
    values = trial["architecture"]
    epochs.clear()
    code, out, err = say("train", trial["address"], "--recipe", "quick", "--epochs", "2", "--json")
    assert code == 0, err
    plain = recipe("quick", load("digits", Split(limit=100)).task, lr=values["rate"], epochs=5)
    assert epochs == [(epoch, pytest.approx(learning_rate(plain, epoch))) for epoch in range(2)]
    assert "test_accuracy" in json.loads(out)["metrics"]
    code, _, err = say("train", trial["address"], "-s", "lr=0.05")
    assert code == 2
    assert "decides lr of the recipe" in err
    assert "leave out recipe.lr" in err
    code, _, err = say("train", trial["address"], "--find-lr")
    assert code == 2
    assert "decides lr itself" in err


def test_what_is_left_of_a_compressed_network_is_trained_by_it_too(
    tuned: Path, say: Say, epochs: list[tuple[int, float]]
) -> None:
    [trial] = searched(say, "--trials", "1", "--epochs", "1", "--seed", "2")
    assert say("train", trial["address"], "--recipe", "quick", "--epochs", "1")[0] == 0
    code, _, err = say(
        "compress", trial["address"], "--epochs", "1", "--method", "magnitude", "--target", "params<=0.8x"
    )
    assert code == 0, err
    assert epochs[-1][1] == pytest.approx(trial["architecture"]["rate"])


@pytest.mark.parametrize(
    ("space", "setting", "said"),
    [
        ("wrong", (), "unknown field of the recipe that an architecture of space 'tuned' decides 'dropout'"),
        ("unknown", (), "recipe of an architecture of space 'tuned': optimizer"),
        ("space", ("-s", "recipe.lr=0.5"), "decides lr of the recipe (as 0.1); leave out recipe.lr"),
    ],
)
def test_mistakes_are_told_before_a_search(
    tuned: Path, say: Say, space: str, setting: tuple[str, ...], said: str
) -> None:
    code, _, err = say("search", "--space", f"tuned.py:{space}", *SMALL, "--trials", "1", *setting)
    assert code == 2
    assert said in err
    if space != "space":
        code, out, _ = say("spaces", "check", f"tuned.py:{space}")
        assert code == 1
        assert said in out


def test_what_belongs_to_another_schedule_or_optimiser_is_left_out() -> None:
    task = load("digits", Split(limit=100)).task
    plain = recipe("standard", task)
    assert plain.nesterov
    assert plain.warmup_epochs
    mine = decided(plain, {"optimizer": "adam", "epochs": 10, "lr": 0.01}, task, "any")
    assert not mine.nesterov
    assert mine.warmup_epochs == -(-plain.warmup_epochs * 10 // plain.epochs)
    assert decided(mine, {"optimizer": "adam", "epochs": 10, "lr": 0.01}, task, "any") == mine
    cyclic = recipe("standard", task, schedule="triangular", cycle_epochs=2, epochs=8)
    assert decided(cyclic, {"schedule": "cosine"}, task, "any").cycle_epochs is None
