"""`nas predict`: unseen architectures of a study, ranked by a surrogate of its results."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy
import pytest

from nas_core.architecture import Architecture
from studies.analysis.predict import Observed, PredictConfig, cross_validate

Say = Callable[..., tuple[int, str, str]]

SPACE = """
from nas_core.choice import Choice
from nas_core.space import SearchSpace

class Toy(SearchSpace):
    name = "toy"
    tasks = frozenset({"image-classification"})
    choices = tuple(Choice(name, tuple("abcde"), kind="operation") for name in ("one", "two", "three"))

    def build(self, arch, task, size):
        raise RuntimeError("a table knows it")

class Other(Toy):
    name = "other"

space = Toy()
other = Other()
"""
MAPPING = """
space: {space}
match: architecture
row: {{choices: {{one: one, two: two, three: three}}}}
data:
  pictures:
    task: {{kind: image-classification, input_shape: [1, 8, 8], outputs: 10}}
    metrics:
      val_accuracy: {{column: accuracy}}
      loss: {{column: loss, goal: min}}
      same: {{column: same}}
    costs: {{params: {{column: params}}}}
  drawings:
    task: {{kind: image-classification, input_shape: [1, 8, 8], outputs: 10}}
    metrics: {{val_accuracy: {{column: others}}}}
  opposites:
    task: {{kind: image-classification, input_shape: [1, 8, 8], outputs: 10}}
    metrics: {{val_accuracy: {{column: opposite}}}}
"""
SCORES = """
scores:
  pictures: {hint: {column: hint}}
"""
WORTH = {"a": 0.0, "b": 0.11, "c": 0.19, "d": 0.05, "e": 0.26}
HEADER = ("one", "two", "three", "accuracy", "loss", "same", "others", "opposite", "params", "hint")


def truth(arch: dict[str, str]) -> float:
    """Additive, with an unequal weight for each choice."""
    return 0.2 + sum(weight * WORTH[arch[name]] for name, weight in (("one", 1.0), ("two", 0.7), ("three", 0.4)))


@pytest.fixture
def toy(folder: Path) -> Path:
    """A folder with a space, and two tables that know all 125 of its architectures, one of them of another space."""
    (folder / "toy.py").write_text(SPACE)
    rows: list[tuple[Any, ...]] = []
    for one, two, three in product("abcde", repeat=3):
        value = truth({"one": one, "two": two, "three": three})
        params = 1000 * (1 + "abcde".index(one))
        rows.append((one, two, three, value, 1 - value, 0.5, 40 + 9 * value**2, -value, params, round(10 * value)))
    for name, space in (("results", "toy"), ("hints", "toy"), ("foreign", "other")):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([HEADER, *rows])
        (folder / f"{name}.yaml").write_text(MAPPING.format(space=space) + (SCORES if name == "hints" else ""))
    return folder


def search(say: Say, name: str, *more: str, data: str = "pictures", trials: int = 40, space: str = "space") -> None:
    table = "results.csv" if space == "space" else "foreign.csv"
    arguments = ("--space", f"toy.py:{space}", "--table", table, "--data", data, "--strategy", "random")
    code, _, err = say("search", *arguments, "--trials", str(trials), "--study", name, *more)
    assert code in (0, 4), err


def predicted(say: Say, *arguments: str) -> dict[str, Any]:
    code, out, err = say("predict", *arguments, "--json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def evaluated(say: Say, name: str) -> set[str]:
    return {trial["key"] for trial in json.loads(say("trials", name, "--json")[1])}


def test_unseen_architectures_are_ranked(toy: Path, say: Say) -> None:
    search(say, "s")
    found = predicted(say, "s", "--top", "15")
    means = [one["mean"] for one in found["predictions"]]
    assert means == sorted(means, reverse=True)
    assert [one["rank"] for one in found["predictions"]] == list(range(1, 16))
    assert not {one["key"] for one in found["predictions"]} & evaluated(say, "s")
    assert (found["observed"], found["candidates"], found["whole_space"]) == (40, 85, True)
    everything = predicted(say, "s", "--top", "500", "--folds", "0")["predictions"]
    assert len(everything) == 85
    best = sorted(everything, key=lambda one: -truth(one["architecture"]))[:10]
    assert {one["key"] for one in best[:3]} <= {one["key"] for one in found["predictions"][:8]}
    for one in everything:
        assert one["std"] >= 0
        assert one["mean"] == pytest.approx(truth(one["architecture"]), abs=0.12)
    checked = found["cross_validation"]
    assert checked["correlation"]["spearman"]["value"] > 0.85
    assert checked["correlation"]["kendall"]["value"] > 0.6
    assert checked["folds"] == 5
    assert checked["picked"] == 4
    assert 0.3 < checked["covered"] <= 1
    assert 0 <= checked["regret"] < 0.1
    again = predicted(say, "s", "--top", "15", "--folds", "0")
    assert again == {**found, "cross_validation": None}


def test_the_page(toy: Path, say: Say) -> None:
    search(say, "s")
    code, out, err = say("predict", "s", "--top", "3", "--model", "ridge", "--folds", "4")
    assert (code, err) == (0, "")
    assert "study s: ridge fitted to 40 architectures" in out
    assert "all 85 unseen ones predicted" in out
    assert "held out in 4 folds, by function, 40 results" in out
    for word in ("Spearman", "Kendall", "within one std", "regret of the top 4"):
        assert word in out
    lines = out.splitlines()[-4:]
    assert lines[0].split() == ["rank", "val_accuracy", "std", "architecture"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    assert lines[1].split()[-1].startswith("one=")
    code, out, _ = say("predict", "s", "--folds", "0")
    assert code == 0
    assert "held out" not in out


def test_less_is_better(toy: Path, say: Say) -> None:
    search(say, "s", "--objective", "loss")
    found = predicted(say, "s", "--model", "ridge")
    means = [one["mean"] for one in found["predictions"]]
    assert means == sorted(means)
    assert found["objective"] == "loss:min"
    assert 0 < means[0] < means[-1] < 1
    assert found["best"] == pytest.approx(1 - max(truth(trial["architecture"]) for trial in trials(say, "s")))
    assert ", less is better" in say("predict", "s", "--model", "ridge")[1]


def trials(say: Say, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(say("trials", name, "--state", "complete", "--json")[1])
    return found


def test_only_what_the_constraints_allow(toy: Path, say: Say) -> None:
    search(say, "s", "--constraint", "params<=3000", trials=30)
    arguments = ("s", "--top", "500", "--model", "ridge", "--folds", "0")
    found = predicted(say, *arguments)
    assert found["predictions"]
    assert all(one["architecture"]["one"] in "abc" for one in found["predictions"])
    assert found["infeasible"] > 0
    assert "their costs are not allowed" in say("predict", *arguments)[1]


def test_a_pool_instead_of_the_whole_space(toy: Path, say: Say) -> None:
    search(say, "s")
    found = predicted(say, "s", "--pool", "20", "--folds", "0", "--model", "gp")
    assert found["candidates"] == 20
    assert not found["whole_space"]
    assert found["cross_validation"] is None
    assert len({one["key"] for one in found["predictions"]}) == 20
    assert not {one["key"] for one in found["predictions"]} & evaluated(say, "s")


def test_a_large_space_is_sampled(toy: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """More architectures than are listed: candidates are drawn, half of them near the best."""
    search(say, "s")
    monkeypatch.setattr("studies.analysis.predict.WHOLE", 100)
    monkeypatch.setattr("studies.analysis.predict.POOL", 30)
    found = predicted(say, "s", "--model", "ridge", "--folds", "0", "--top", "100")
    assert (found["candidates"], found["whole_space"]) == (30, False)
    assert len({one["key"] for one in found["predictions"]}) == 30
    assert not {one["key"] for one in found["predictions"]} & evaluated(say, "s")
    assert "; 30 unseen ones predicted" in say("predict", "s", "--model", "ridge")[1]


@pytest.mark.parametrize("count", [3, 9])
def test_too_few_observations(toy: Path, say: Say, count: int) -> None:
    search(say, "s", trials=count)
    code, out, err = say("predict", "s")
    assert (code, out) == (2, "")
    assert "study 's' has " in err
    assert "complete trials of different architectures; a prediction needs 10" in err
    assert err.count("\n") == 1


def test_results_that_are_equal(toy: Path, say: Say) -> None:
    search(say, "s", "--objective", "same")
    code, _, err = say("predict", "s")
    assert code == 2
    assert "all 40 results of study 's' are equal (0.5); there is nothing to learn from" in err


def test_nothing_is_left(toy: Path, say: Say) -> None:
    search(say, "s", trials=125)
    code, _, err = say("predict", "s")
    assert code == 2
    assert "nothing is unseen" in err


def test_a_warm_start(toy: Path, say: Say) -> None:
    search(say, "source", data="drawings", trials=80)
    search(say, "few", "--seed", "1", trials=6)
    assert say("predict", "few")[0] == 2
    found = predicted(say, "few", "--warm-start", "source", "--top", "500")
    assert found["source_used"] is True
    assert found["cross_validation"] is None  # of 6 results
    ranked = [truth(one["architecture"]) for one in found["predictions"]]
    assert sum(ranked[:12]) / 12 > sum(ranked[40:80]) / 40 + 0.1
    assert "corrects what it learned of study source" in say("predict", "few", "--warm-start", "source")[1]


def test_a_warm_start_from_what_disagrees(toy: Path, say: Say) -> None:
    search(say, "source", data="opposites", trials=60)
    search(say, "s", "--seed", "1", trials=20)
    found = predicted(say, "s", "--warm-start", "source", "--folds", "2")
    assert found["source_used"] is False
    assert found["cross_validation"]["correlation"]["spearman"]["value"] > 0.3
    assert "does without" in say("predict", "s", "--warm-start", "source", "--folds", "0")[1]


def test_a_warm_start_from_another_space(toy: Path, say: Say) -> None:
    search(say, "s", trials=12)
    search(say, "foreign", trials=12, space="other")
    code, _, err = say("predict", "s", "--warm-start", "foreign")
    assert code == 2
    assert "--warm-start 'foreign' searched space 'other'" in err
    code, _, err = say("predict", "s", "--warm-start", "nobody")
    assert (code, "nobody" in err) == (3, True)


def test_proxies(toy: Path, say: Say) -> None:
    search(say, "s", trials=15)
    code, _, err = say("predict", "s", "--proxies", "hint")
    assert code == 2
    assert "study 's' has no scores" in err
    plain = predicted(say, "s", "--model", "gp")
    found = predicted(say, "s", "--model", "gp", "--proxies", "hint", "--scores", "hints.csv")
    assert found["settings"]["proxies"] == ["hint"]
    assert found["predictions"] != plain["predictions"]
    before, after = (one["cross_validation"]["correlation"]["spearman"]["value"] for one in (plain, found))
    assert after > before
    with sqlite3.connect(toy / "nas.db") as connection:
        assert connection.execute("SELECT count(DISTINCT architecture) FROM scores").fetchone()[0] == 125
    code, _, err = say("predict", "s", "--proxies", "hint", "--scores", "hints.csv", "--model", "graph-network")
    assert code == 2
    assert "surrogate 'graph-network' reads no proxies" in err
    code, _, err = say("predict", "s", "--proxies", "hnt", "--scores", "hints.csv")
    assert (code, "did you mean 'hint'" in err) == (2, True)


def test_settings_and_mistakes(toy: Path, say: Say) -> None:
    search(say, "s", trials=15)
    found = predicted(say, "s", "--model", "mlp(members=2)", "-s", "steps=20", "-s", 'blocks=["one-hot"]')
    assert (found["settings"]["members"], found["settings"]["steps"]) == (2, 20)
    assert found["settings"]["blocks"] == ["one-hot"]
    for arguments, status, word in (
        (("s", "--model", "mlq"), 2, "did you mean 'mlp'"),
        (("s", "--model", "ridge", "-s", "wight=1"), 2, "did you mean 'weight'"),
        (("s", "--folds", "1"), 2, "take at least 2"),
        (("s:3",), 2, "nas predict s"),
        (("t",), 3, "no study 't'"),
        (("s", "--model", "ridge", "-s", 'blocks=["one-hut"]'), 2, "did you mean 'one-hot'"),
    ):
        code, out, err = say("predict", *arguments)
        assert (code, out, word in err) == (status, "", True), err
        assert "Traceback" not in err


def test_functions_are_never_split() -> None:
    """What computes the same as a held-out architecture is held out with it."""
    archs = [Architecture("toy", {"one": letter, "two": other}) for letter in "abcdefghijkl" for other in "xyz"]
    functions = [str(arch.values["one"]) for arch in archs]
    seen: list[set[str]] = []

    class Model:
        def predict(self, archs: list[Architecture]) -> tuple[Any, Any]:
            assert seen[-1].isdisjoint(str(arch.values["one"]) for arch in archs)
            truth = numpy.array([float(ord(str(arch.values["one"]))) for arch in archs])
            return truth, numpy.where(truth < 104, 3.0, 0.5)

    class Models:
        def fitted(self, archs: list[Architecture], values: Any) -> Model:
            seen.append({str(arch.values["one"]) for arch in archs})
            return Model()

    values = numpy.array([float(ord(function)) for function in functions]) + 2
    found = cross_validate(Models(), Observed(archs, values, functions), PredictConfig(folds=4))  # type: ignore[arg-type]
    assert found is not None
    assert len(seen) == found.folds == 4
    assert found.correlation.spearman.value == pytest.approx(1)
    assert found.covered == pytest.approx(7 / 12)  # the letters a to g are within 3 of what was 2 off
    assert (found.picked, found.regret) == (3, 0.0)
