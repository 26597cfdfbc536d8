"""`nas generate`: new architectures from what a study has learned, without evaluating them."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

Say = Callable[..., tuple[int, str, str]]

SPACE = """
import numpy
from nas_core import moves
from nas_core.choice import Choice
from nas_core.config import Config as Base
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal

class Toy(SearchSpace):
    name = "toy"
    tasks = frozenset({"image-classification"})
    choices = tuple(Choice(name, tuple("abcde"), kind="operation") for name in ("one", "two", "three", "four"))

    def build(self, arch, task, size):
        raise RuntimeError("a table knows it")

    def identity(self, arch):
        letters = "".join(arch.values.values())
        return letters[:3] if letters[0] == "a" else letters  # then the last does not matter

space = Toy()

def means(archs, values):
    \"\"\"An additive model: what an option adds to the mean.\"\"\"
    values = numpy.asarray(values)
    found = {}
    for choice in space.choices:
        for option in choice.options:
            chosen = [value for arch, value in zip(archs, values) if arch.values[choice.name] == option]
            found[choice.name, option] = numpy.mean(chosen) - values.mean() if chosen else 0.0
    return lambda arch: values.mean() + sum(found[item] for item in arch.values.items())

class Random:
    class Config(Base):
        pass

    def __init__(self, setting, config):
        self.setting, self.told = setting, []

    def ask(self, number, pending):
        rng, known = generator(self.setting.seed, number), {space.identity(arch) for arch, _ in self.told}
        while space.identity(arch := moves.sample(self.setting.space, rng)) in known:
            pass
        return Proposal(arch)

    def tell(self, outcome):
        self.told.append((outcome.proposal.arch, outcome.values))

class Generator(Random):
    \"\"\"Draws the best of a few by its told values, among those that are likely as wanted.\"\"\"

    def generate(self, count, rng, wanted=()):
        with open("told.txt", "w") as file:
            file.write(f"{len(self.told)} {len(wanted)}")
        worth = means(*zip(*((arch, values[0]) for arch, values in self.told if values)))
        wishes = [(means(one.archs, one.values), one.limit, 1 if one.at_most else -1) for one in wanted]
        drawn = []
        for _ in range(count):
            pool = [moves.sample(self.setting.space, rng) for _ in range(12)]
            missed = [sum(max(0.0, sign * (model(arch) / limit - 1)) for model, limit, sign in wishes) for arch in pool]
            drawn.append(max(zip(pool, missed), key=lambda one: (-one[1], worth(one[0])))[0])
        return drawn

class Stored(Generator):
    def tell(self, outcome):
        super().tell(outcome)
        with open("tells.txt", "a") as file:
            file.write("x")

    def state_dict(self):
        return {"told": [[arch.to_json(), None if values is None else list(values)] for arch, values in self.told]}

    def load_state_dict(self, state):
        from nas_core.architecture import Architecture

        self.told = [(Architecture.from_json(arch), values) for arch, values in state["told"]]

class Same(Generator):
    def generate(self, count, rng, wanted=()):
        return [self.told[0][0]] * count
"""
MAPPING = """
space: toy
match: identity
row: {choices: {one: one, two: two, three: three, four: four}}
data:
  pictures:
    task: {kind: image-classification, input_shape: [1, 8, 8], outputs: 10}
    metrics:
      val_accuracy: {column: accuracy}
      loss: {column: loss, goal: min}
      same: {column: same}
    costs: {params: {column: params}, depth: {column: depth}}
"""
WORTH = {"a": 0.0, "b": 0.11, "c": 0.19, "d": 0.05, "e": 0.26}


def truth(values: dict[str, str]) -> float:
    weights = {"one": 1.0, "two": 0.7, "three": 0.4, "four": 0.0 if values["one"] == "a" else 0.3}
    return 0.2 + sum(weight * WORTH[values[name]] for name, weight in weights.items())


def params(values: dict[str, str]) -> int:
    return 1000 * (1 + "abcde".index(values["one"])) + 100 * "abcde".index(values["two"])


def depth(values: dict[str, str]) -> int:
    return "".join(values[name] for name in ("one", "two", "three")).count("e")


def identity(values: dict[str, str]) -> str:
    letters = "".join(values.values())
    return letters[:3] if letters[0] == "a" else letters


@pytest.fixture
def toy(folder: Path) -> Path:
    """A folder with a space, strategies, and a table that knows all 525 functions."""
    (folder / "toy.py").write_text(SPACE)
    (folder / "results.yaml").write_text(MAPPING)
    with (folder / "results.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("one", "two", "three", "four", "accuracy", "loss", "same", "params", "depth"))
        for letters in product("abcde", repeat=4):
            values = dict(zip(("one", "two", "three", "four"), letters, strict=True))
            if letters[0] != "a" or letters[3] == "a":
                value = truth(values)
                rows.writerow((*letters, value, 1 - value, 0.5, params(values), depth(values)))
    return folder


def search(say: Say, name: str, *more: str, strategy: str = "toy.py:Generator", trials: int = 40) -> None:
    arguments = ("--space", "toy.py:space", "--table", "results.csv", "--data", "pictures", "--strategy", strategy)
    code, _, err = say("search", *arguments, "--trials", str(trials), "--study", name, *more)
    assert code in (0, 4), err


def generated(say: Say, *arguments: str) -> dict[str, Any]:
    code, out, err = say("generate", *arguments, "--json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def contents(database: Path) -> list[str]:
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM runs WHERE kind = 'generator'")
        known = "SELECT architecture FROM runs UNION SELECT architecture FROM scores"
        connection.execute(f"DELETE FROM architectures WHERE key NOT IN ({known})")
        found = list(connection.iterdump())
        connection.rollback()
    return found


def test_new_architectures_with_predictions(toy: Path, say: Say) -> None:
    search(say, "s")
    before = contents(toy / "nas.db")
    found = generated(say, "s", "--n", "15", "--model", "ridge")
    assert contents(toy / "nas.db") == before  # but for what was drawn
    assert (found["strategy"], found["own"], found["observed"]) == ("toy.py:Generator", True, 40)
    assert (found["asked"], found["found"], len(found["architectures"])) == (15, 15, 15)
    assert (toy / "told.txt").read_text() == "40 0"  # all outcomes, nothing wanted
    means = [one["mean"] for one in found["architectures"]]
    assert means == sorted(means, reverse=True)
    assert [one["rank"] for one in found["architectures"]] == list(range(1, 16))
    seen = {identity(trial["architecture"]) for trial in json.loads(say("trials", "s", "--json")[1])}
    identities = [identity(one["architecture"]) for one in found["architectures"]]
    assert len(set(identities)) == 15
    assert not set(identities) & seen
    for one in found["architectures"]:
        assert one["mean"] == pytest.approx(truth(one["architecture"]), abs=0.15)
        assert one["std"] >= 0
        assert (one["costs"], one["notation"].count("=")) == ({}, 4)
    drawn = found["drawn"]
    assert drawn["count"] == drawn["legal"] == drawn["satisfied"] == 100
    assert drawn["legal"] > drawn["unique"] >= drawn["new"] == found["candidates"] >= 15
    assert sum(means) / 15 > found["random_mean"] + 0.1
    assert generated(say, "s", "--n", "15", "--model", "ridge") == found
    assert generated(say, "s", "--n", "15", "--model", "ridge", "--seed", "1") != found


def test_constraints_lead_and_decide(toy: Path, say: Say) -> None:
    search(say, "s")
    free = generated(say, "s", "--model", "ridge")
    assert any(params(one["architecture"]) > 2500 for one in free["architectures"])
    found = generated(say, "s", "--model", "ridge", "--constraint", "params<=2500", "--constraint", "depth<=2")
    assert found["constraints"] == ["params<=2500", "depth<=2"]
    assert (toy / "told.txt").read_text() == "40 2"
    drawn = found["drawn"]
    assert 0.9 * drawn["legal"] <= drawn["satisfied"]  # by guidance; of random ones half are
    for one in found["architectures"]:
        assert one["costs"] == {"params": params(one["architecture"]), "depth": depth(one["architecture"])}
        assert one["costs"]["params"] <= 2500
        assert one["costs"]["depth"] <= 2
    assert sum(one["mean"] for one in found["architectures"]) / found["found"] > found["random_mean"]
    most = generated(say, "s", "--model", "ridge", "--constraint", "params>=5200")
    assert all(one["costs"]["params"] >= 5200 for one in most["architectures"])


def test_a_bound_that_everything_keeps_needs_no_guidance(toy: Path, say: Say) -> None:
    search(say, "s")
    found = generated(say, "s", "--model", "ridge", "--constraint", "params<=1e6")
    assert (toy / "told.txt").read_text() == "40 0"
    assert all("params" in one["costs"] for one in found["architectures"])


def test_the_constraints_of_the_study_stay(toy: Path, say: Say) -> None:
    search(say, "s", "--constraint", "params<=3000", "--objective", "val_accuracy", "--objective", "depth:min")
    found = generated(say, "s", "--model", "ridge", "--constraint", "depth<=1")
    assert found["constraints"] == ["params<=3000", "depth<=1"]
    for one in found["architectures"]:
        assert params(one["architecture"]) <= 3000
        assert set(one["costs"]) == {"params", "depth"}


def test_targets_lead(toy: Path, say: Say) -> None:
    search(say, "s")
    found = generated(say, "s", "--model", "ridge", "--target", "loss<=0.4", "--target", "val_accuracy>=0.6")
    assert found["targets"] == ["loss<=0.4", "val_accuracy>=0.6"]
    assert (toy / "told.txt").read_text() == "40 2"
    assert found["reached"] == sum(one["mean"] >= 0.6 for one in found["architectures"])
    free = generated(say, "s", "--model", "ridge")
    assert free["reached"] is None
    assert "are predicted to reach val_accuracy>=0.6" in say("generate", "s", "--target", "val_accuracy>=0.6")[1]


def test_the_page(toy: Path, say: Say) -> None:
    search(say, "s", "--objective", "loss")
    code, out, err = say("generate", "s", "--n", "3", "--model", "ridge", "--constraint", "params<=3000")
    assert (code, err) == (0, "kept as s/generator-1\n")
    assert say("show", "s/generator-1")[1] == out
    assert "generated: s/generator-1" in say("show", "s")[1]
    assert "there is no 's/generator-2' (there are: s/generator-1)" in say("show", "s/generator-2")[2]
    lines = out.splitlines()
    assert lines[0].startswith("study s: its generator and ridge learned from 40 architectures, best loss 0.")
    assert lines[0].endswith(", less is better")
    assert lines[1].startswith("100 drawn: 100% legal, ")
    assert lines[1].endswith("% of these new")
    assert lines[2] == "left out what misses params<=3000"
    assert lines[3].startswith("the best 3 of ")
    assert lines[4].startswith("their mean loss is predicted as 0.")
    assert lines[6].split() == ["rank", "loss", "std", "params", "architecture"]
    assert [line.split()[0] for line in lines[7:]] == ["1", "2", "3"]
    assert lines[7].split()[-1].startswith("one=")
    means = [one["mean"] for one in generated(say, "s", "--model", "ridge")["architectures"]]
    assert means == sorted(means)


def test_another_strategy_gets_a_generator(toy: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told the outcomes of a strategy that has none."""
    monkeypatch.setattr("studies.analysis.generate.DEFAULT", "toy.py:Generator")
    search(say, "s", strategy="random")
    found = generated(say, "s", "--model", "ridge")
    assert (found["strategy"], found["own"]) == ("toy.py:Generator", False)
    assert (toy / "told.txt").read_text() == "40 0"
    assert "a generator of 'toy.py:Generator' and ridge learned from" in say("generate", "s", "--model", "ridge")[1]


def test_a_snapshot_shortens_the_replay(toy: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    search(say, "plain", strategy="toy.py:Generator")
    monkeypatch.setattr("studies.search.loop.SNAPSHOT_SECONDS", 0.0)
    search(say, "s", strategy="toy.py:Stored")
    (toy / "tells.txt").unlink()
    found = generated(say, "s", "--model", "ridge")
    assert len((toy / "tells.txt").read_text()) <= 2
    assert (toy / "told.txt").read_text() == "40 0"
    assert found["architectures"] == generated(say, "plain", "--model", "ridge")["architectures"]


def test_fewer_than_asked_for(toy: Path, say: Say) -> None:
    search(say, "s")
    code, out, _ = say("generate", "s", "--model", "ridge", "--constraint", "params<=1000", "--n", "60")
    assert code == 0
    assert "of the 60 asked for were found: draw with another --seed" in out
    found = generated(say, "s", "--model", "ridge", "--constraint", "params<=1000", "--n", "60")
    assert 0 < found["found"] == found["candidates"] <= 5  # a, a and one of five: the last does not matter
    assert found["drawn"]["count"] > 120
    assert found["asked"] == 60


def test_nothing_new(toy: Path, say: Say) -> None:
    search(say, "s", strategy="toy.py:Same")
    code, out, err = say("generate", "s")
    assert (code, out) == (2, "")
    assert "study 's' knows all of the 200 generated architectures that are of use: nothing is new" in err
    code, _, err = say("generate", "s", "--constraint", "params<=1000", "--model", "ridge")
    assert (code, "none of 200 generated architectures satisfies params<=1000; loosen it" in err) == (4, True)


def test_a_constraint_that_nothing_satisfies(toy: Path, say: Say) -> None:
    search(say, "s")
    for arguments, word in (
        (("--constraint", "params<=10"), "satisfies params<=10; their params is 1,000 to 5,400"),
        (("--constraint", "params<=1000", "--constraint", "depth>=4"), "satisfies params<=1000, depth>=4; their"),
    ):
        code, out, err = say("generate", "s", *arguments)
        assert (code, out, word in err) == (4, "", True), err
        assert err.count("\n") == 1


def test_mistakes(toy: Path, say: Say) -> None:
    search(say, "s")
    search(say, "few", trials=6)
    search(say, "flat", "--objective", "same")
    for arguments, status, word in (
        (("s", "--constraint", "parms<=10"), 2, "did you mean 'params'"),
        (("s", "--constraint", "params<10"), 2, "constraint 'params<10' is malformed"),
        (("s", "--constraint", "val_accuracy>=0.9"), 2, "known only after evaluation; give it as --target"),
        (("s", "--target", "params<=10"), 2, "known without evaluation; give it as --constraint"),
        (("s", "--target", "val_acc>=0.9"), 2, "did you mean 'val_accuracy'"),
        (("s", "--model", "mlq"), 2, "did you mean 'mlp'"),
        (("s", "--n", "0"), 2, "--n"),
        (("s:3",), 2, "nas generate s"),
        (("few",), 2, "6 complete trials of different architectures; a prediction needs 10"),
        (("flat",), 2, "there is nothing to learn from"),
        (("t",), 3, "no study 't'"),
    ):
        code, out, err = say("generate", *arguments)
        assert (code, out, word in err) == (status, "", True), err
        assert "Traceback" not in err
        assert err.count("\n") <= 2


def test_diffusion_generates_for_any_study(toy: Path, say: Say) -> None:
    """The generator itself, told the results of a random search: led to the bound, and better than what is random."""
    search(say, "s", strategy="random")
    found = generated(say, "s", "--n", "30", "--constraint", "params<=2200")
    assert (found["strategy"], found["own"], found["found"]) == ("diffusion", False, 30)
    drawn = found["drawn"]
    assert drawn["legal"] == drawn["count"]
    assert drawn["satisfied"] >= 0.9 * drawn["legal"]  # of random ones a quarter does
    assert all(one["costs"]["params"] <= 2200 for one in found["architectures"])
    good = [truth(one["architecture"]) for one in found["architectures"]]
    assert sum(good) / 30 > found["random_mean"] + 0.03
    assert sum(one["mean"] for one in found["architectures"]) / 30 > found["random_mean"] + 0.03
