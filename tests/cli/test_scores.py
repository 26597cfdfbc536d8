"""`--scores`: a search, and a bench, that use recorded scores of predictors."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]
SPACE = """
from nas_core.choice import Choice
from nas_core.space import SearchSpace

class Toy(SearchSpace):
    name = "toy"
    tasks = frozenset({"image-classification"})
    choices = (Choice("one", tuple(range(8))), Choice("two", tuple(range(8))))

    def build(self, arch, task, size):
        raise RuntimeError("a table knows it")

space = Toy()
"""
STRATEGY = """
from nas_core import moves
from nas_core.config import Config as BaseConfig
from nas_core.seeds import generator
from nas_core.strategy import Proposal

class Screened:
    class Config(BaseConfig):
        pass

    def __init__(self, setting, config):
        self.setting = setting

    def ask(self, number, pending):
        rng = generator(self.setting.seed, number)
        pool = [moves.sample(self.setting.space, rng) for _ in range(5)]
        scores = self.setting.score("hint", pool)
        return Proposal(pool[scores.index(max(scores))])

    def tell(self, outcome):
        pass
"""
MAPPING = """
space: toy
row: {choices: {one: one, two: two}}
data:
  pictures:
    task: {kind: image-classification, input_shape: [1, 8, 8], outputs: 10}
    metrics: {val_accuracy: {column: accuracy}}
scores:
  pictures: {hint: {column: hint}}
"""


@pytest.fixture
def toy(folder: Path) -> tuple[str, ...]:
    (folder / "toy.py").write_text(SPACE)
    (folder / "own.py").write_text(STRATEGY)
    lines = [f"{n // 8},{n % 8},{(n * 7 % 64) / 64},{'' if n == 5 else n * 7 % 64 + n % 3}" for n in range(64)]
    for name in ("results", "hints"):
        (folder / f"{name}.csv").write_text("one,two,accuracy,hint\n" + "\n".join(lines) + "\n")
        (folder / f"{name}.yaml").write_text(MAPPING)
    return ("--space", "toy.py:space", "--table", "results.csv", "--data", "pictures")


def test_a_search_uses_and_keeps_scores(say: Say, toy: tuple[str, ...], folder: Path) -> None:
    search = ("search", *toy, "--strategy", "own.py:Screened", "--study", "s", "--scores", "hints.csv")
    code, out, err = say(*search, "--trials", "6", "--json")
    assert (code, json.loads(out)["best"] is not None) == (0, True), err
    with sqlite3.connect(folder / "nas.db") as connection:
        scores = connection.execute("SELECT count(*), count(DISTINCT architecture) FROM scores").fetchone()
        assert scores[0] == scores[1] > 15
    assert say("verify", "s")[0] == 0
    (folder / "hints.csv").rename(folder / "moved.csv")
    (folder / "hints.yaml").rename(folder / "moved.yaml")
    code, _, err = say("resume", "s", "--trials", "8")
    assert (code, err.strip()) == (3, "nas: there is no table 'hints.csv'")
    assert say("resume", "s", "--trials", "8", "--scores", "moved.csv")[0] == 0
    assert say("verify", "s", "--scores", "moved.csv")[0] == 0
    (folder / "moved.csv").write_text((folder / "moved.csv").read_text().replace("0,1,", "0,1,0"))
    code, _, err = say("resume", "s", "--trials", "9", "--scores", "moved.csv")
    assert code == 2
    assert "is not what the study was made with" in err


def test_a_bench_counts_what_was_scored(say: Say, toy: tuple[str, ...]) -> None:
    compare = ("bench", "strategies", *toy, "--strategies", "random,screened=own.py:Screened", "--name", "b")
    code, out, err = say(*compare, "--scores", "hints.csv", "--queries", "10", "--seeds", "3", "--jobs", "1", "--json")
    assert code == 0, err
    plain, screened = json.loads(out)["strategies"]
    assert plain["scored"] is None
    assert 20 < screened["scored"] <= 50
    assert screened["regret"]["mean"] < plain["regret"]["mean"]
    code, out, _ = say("bench", "show", "b")
    assert "scored" in out
    code, out, _ = say("bench", "show", "b", "--after", "4", "--against", "screened", "--json")
    document = json.loads(out)
    assert (document["queries"], document["baseline"]) == (4, "screened")
    assert document["strategies"][1]["paired"] is None
    assert document["strategies"][0]["paired"] is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scores", "nothing.csv"), "there is no table 'nothing.csv'"),
        (("--scores", "hints.csv", "--score-on", "digits"), "leave out --scores or --score-on"),
        (("-s", "score_batch=4"), "name some by --score-on"),
    ],
)
def test_bad_scores_are_one_line(say: Say, toy: tuple[str, ...], arguments: tuple[str, ...], message: str) -> None:
    code, out, err = say("search", *toy, "--strategy", "random", *arguments)
    assert code in (2, 3)
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) <= 2


def test_a_warm_up_begins_with_the_best_scored(say: Say, toy: tuple[str, ...], folder: Path) -> None:
    search = ("search", *toy, "--scores", "hints.csv", "--study", "warm", "--strategy", "local-search", "--trials", "6")
    code, _, err = say(*search, "--warm-up", "hint:30", "-s", "strategy.move=best", "--json")
    assert code == 0, err
    with sqlite3.connect(folder / "nas.db") as connection:
        name, settings = connection.execute("SELECT strategy, strategy_config FROM studies").fetchone()
        scored = connection.execute("SELECT max(value), count(*) FROM scores").fetchone()
        first = connection.execute(
            "SELECT s.value FROM runs r JOIN scores s ON s.architecture = r.architecture WHERE r.number = 0"
        ).fetchone()
    assert (name, json.loads(settings)["inner"], json.loads(settings)["inner_config"]["move"]) == (
        "warm-up",
        "local-search",
        "best",
    )
    assert scored[1] == 30
    assert first[0] == scored[0]
    assert say("verify", "warm")[0] == 0


def test_a_warm_start_learns_from_another_study(say: Say, toy: tuple[str, ...]) -> None:
    assert say("search", *toy, "--strategy", "random", "--study", "source", "--trials", "30")[0] == 0
    again = ("search", *toy, "--strategy", "bananas", "--trials", "6", "--seed", "1")
    code, out, err = say(*again, "--warm-start", "source", "--study", "warm", "--json")
    assert code == 0, err
    source = json.loads(say("best", "source", "--json")[1])
    assert json.loads(out)["best"]["metrics"]["val_accuracy"] >= source["metrics"]["val_accuracy"]
    assert say("verify", "warm")[0] == 0
    assert say("resume", "warm", "--trials", "8")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--warm-start", "nothing"), "no study 'nothing'"),
        (
            ("--warm-start", "source", "--strategy", "random"),
            "strategy 'random' learns from no other study; use bananas",
        ),
        (("--warm-up", "hint"), "--warm-up 'hint' is malformed; write PREDICTOR:N, for example vote:300"),
        (("--warm-up", "hint:30"), "asks for the scores hint, but this search has none"),
        (("--warm-up", "hidden:30", "--scores", "hints.csv"), "unknown score in 'hints.csv' 'hidden'"),
    ],
)
def test_a_bad_start_is_one_line(say: Say, toy: tuple[str, ...], arguments: tuple[str, ...], message: str) -> None:
    say("search", *toy, "--strategy", "random", "--study", "source", "--trials", "2")
    code, out, err = say("search", *toy, "--strategy", "bananas", *arguments, "--study", "s")
    assert code in (2, 3)
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) <= 2
