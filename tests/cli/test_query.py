"""The commands that read studies, on studies that were searched, and on one written by hand."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.evaluation import Report
from nas_core.pareto import dominates
from nas_core.records import RETRAIN, StopAt, Verdict
from nas_core.seeds import derive
from nas_core.strategy import Proposal, State
from nas_core.task import Task
from search_spaces.nasbench201.space import NasBench201
from studies.records import StudySpec
from studies.search.loop import Search
from studies.setup.assemble import build, describe
from studies.setup.config import SearchConfig
from studies.store.store import Store
from training.testing.evaluators import on_digits

CELLS = NasBench201()

SPACE = '''"""A small space in a file."""
from nas_core.choice import Choice
from nas_core.space import SearchSpace

class Small(SearchSpace):
    name = "small"
    tasks = frozenset({"image-classification"})
    choices = (Choice("width", (1, 2, 3, 4)), Choice("op", ("a", "b", "c")), Choice("deep", (False, True)))

    def build(self, arch, task, size):
        raise NotImplementedError

space = Small()
'''

MAPPING = """
files: [small.csv]
space: small
row: {choices: {width: width, op: op, deep: deep}}
data:
  made:
    task: {kind: image-classification, input_shape: [1, 8, 8], outputs: 10}
    metrics: {val_accuracy: {column: accuracy}, error: {column: error, goal: min}}
    costs: {params: {column: params}}
    seconds: {column: seconds}
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a space, a table and a database of studies."""
    folder = tmp_path_factory.mktemp("original")
    (folder / "small.py").write_text(SPACE)
    (folder / "small.yaml").write_text(MAPPING)
    rows = [
        f"{width},{op},{deep},{0.5 + (13 * n % 24) / 50},{1 - 0.1234567890123 * (5 * n % 7)},{1000 + 137 * n},{n / 4}"
        for n, (width, op, deep) in enumerate(
            (width, op, deep) for width in (1, 2, 3, 4) for op in "abc" for deep in (False, True)
        )
    ]
    (folder / "small.csv").write_text("width,op,deep,accuracy,error,params,seconds\n" + "\n".join(rows) + "\n")
    before = Path.cwd()
    os.chdir(folder)
    try:
        with Store("sqlite:///nas.db") as store:
            search(store, "plain", "random", ("val_accuracy",), ())
            search(store, "two", "regularized-evolution", ("error:min", "val_accuracy"), ("params<=3000",))
            search(store, "hopeless", "random", ("val_accuracy",), ("error<=-1",))
            by_hand(store)
            store.create_study("empty", spec_by_hand(), StopAt(seconds=60))
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in."""
    place = tmp_path / "work"
    shutil.copytree(original, place)
    monkeypatch.chdir(place)
    for name in [name for name in os.environ if name.startswith("NAS_") and name != "NAS_SHARED"]:
        monkeypatch.delenv(name)
    return place


Said = Callable[..., tuple[int, str, str]]


def document(said: tuple[int, str, str]) -> Any:
    """What a command printed, as strict JSON: no NaN, no Infinity."""
    code, out, err = said
    assert (code, err) == (0, "")
    return json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def search(store: Store, name: str, strategy: str, objectives: tuple[str, ...], constraints: tuple[str, ...]) -> None:
    config = SearchConfig(
        space="small.py:space", strategy=strategy, data="made", evaluator="table", table="small.csv",
        strategy_config={"population": 20} if strategy == "regularized-evolution" else {},
        mapping="small.yaml", objectives=objectives, constraints=constraints, trials=15,
    )  # fmt: skip
    spec = describe(config).spec
    study = store.create_study(name, spec, StopAt(trials=15))
    Search(store, study, build(spec)).run(study.stop_at)


def spec_by_hand() -> StudySpec:
    return StudySpec(
        space="nasbench201", space_name=CELLS.name, space_version=CELLS.version, space_hash=None,
        size={"channels": 4, "cells": 1}, strategy="random", strategy_config={},
        evaluator=on_digits(),
        task=Task(kind="image-classification", input_shape=(1, 8, 8), outputs=10), split_hash="0123456789abcdef",
        objectives=("val_loss:min",), constraints=("params<=50000",), seed=3, lag=1,
    )  # fmt: skip


def by_hand(store: Store) -> None:
    """A study with a trial in every state, a curve, a retraining and a file."""
    study = store.create_study("hand", spec_by_hand(), StopAt(trials=10, seconds=60))
    text = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    cell = CELLS.from_text(text)

    def propose(number: int, arch: Architecture, verdict: Verdict, **more: Any) -> int:
        proposal = Proposal(arch, note={"role": "founder"})
        return store.propose(study, number, proposal, CELLS.identity(arch), verdict, asked_after=number, **more)

    trained = propose(0, cell, Verdict(State.RUNNING))
    for epoch in range(1, 8):
        store.report(trained, Report(epoch, {"val_loss": 1 / epoch, "train_loss": float("nan")}, epoch))
    last = Report(8, {"val_loss": 0.12345678901234567, "train_loss": float("inf"), "params": 12345.0}, 8.5)
    store.finish(trained, Verdict(State.COMPLETE, None, (-0.12345678901234567,), (-0.7531,), 8.5), last)
    worse = Verdict(State.COMPLETE, None, (-0.5,), (-0.1,), 7.25)
    propose(1, other(1), worse, report=Report(8, {"val_loss": 0.5, "params": 45000.0}))
    propose(2, other(2), Verdict(State.FAILED, "exception: ValueError: first line\nsecond \x1b[31mline"))
    propose(3, other(3), Verdict(State.REJECTED, "constraint: params is 60000, not <=50000", None, (0.2,)))
    same = Verdict(State.REUSED, "same as trial 0", (-0.12345678901234567,), (-0.7531,), 0.0)
    propose(4, cell, same, reuses=0, report=last)
    propose(5, other(5), Verdict(State.RUNNING))
    trial = store.trial(study, 0)
    retrained = store.propose(
        study, 1, Proposal(cell), trial.identity, Verdict(State.RUNNING), kind=RETRAIN, parent=trial.id,
        recipe={"recipe_name": "standard"},
    )  # fmt: skip
    store.finish(retrained, Verdict(State.COMPLETE, None, None, (), 30.0), Report(20, {"test_accuracy": 0.987654321}))
    child = store.children(trial, RETRAIN)[0]
    path = store.folder(study, child) / "weights.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    store.add_artifact(child, "weights", path)


def other(number: int) -> Architecture:
    from nas_core.seeds import generator

    return moves.sample(CELLS, generator("other", number))


def stored(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(folder / "nas.db") as connection:
        return connection.execute(sql).fetchall()


# -- ls -------------------------------------------------------------------------------------------------------


def test_ls_shows_where_every_study_stands(say: Said, folder: Path) -> None:
    code, out, err = say("ls")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert list(lines) == ["study", "plain", "two", "hopeless", "hand", "empty"]
    assert "made (table)" in lines["plain"]
    assert "15/15" in lines["plain"]
    assert "3/10 in 60 s" in lines["hand"]
    assert "val_loss 0.123457" in lines["hand"]  # minimised: stored negated, shown as it was reported
    assert "0 in 60 s" in lines["empty"]


def test_ls_as_json_has_full_precision(say: Said, folder: Path) -> None:
    studies = {study["study"]: study for study in document(say("ls", "--json"))}
    assert studies["hand"]["best"] == 0.12345678901234567
    assert studies["hand"]["states"] == {"complete": 2, "failed": 1, "rejected": 1, "reused": 1}
    assert studies["hand"]["evaluated"] == 3
    assert studies["empty"]["best"] is None
    (best,) = stored(folder, "SELECT MAX(objective) FROM trials WHERE study = 'plain'")[0]
    assert studies["plain"]["best"] == best


def test_ls_of_a_database_without_studies(say: Said, folder: Path) -> None:
    Store("sqlite:///new.db").close()
    assert document(say("ls", "--db", "new.db", "--json")) == []
    code, out, err = say("ls", "--db", "new.db")
    assert (code, out) == (0, "")
    assert "nas search" in err


# -- show -----------------------------------------------------------------------------------------------------


def test_show_a_study(say: Said) -> None:
    code, out, err = say("show", "two")
    assert (code, err) == (0, "")
    for word in (
        "small.py:space (version 1)",
        "population=20",
        "sample=5",
        "error:min, val_accuracy:max",
        "params<=3000",
    ):
        assert word in out
    found = document(say("show", "two", "--json"))
    assert found["objectives"] == ["error:min", "val_accuracy:max"]
    assert found["best"] == document(say("best", "two", "--json"))
    assert found["states"]["complete"] + found["states"].get("failed", 0) == 15


def test_show_a_study_without_a_complete_trial(say: Said) -> None:
    code, out, err = say("show", "empty")
    assert (code, err) == (0, "")
    assert "study 'empty' has no complete trial yet" in out
    assert document(say("show", "empty", "--json"))["best"] is None
    assert "none of the 15 trials of study 'hopeless' satisfies error<=-1" in say("show", "hopeless")[1]


def test_show_a_trial_draws_its_architecture(say: Said) -> None:
    code, out, err = say("show", "hand:0")
    assert (code, err) == (0, "")
    assert "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|" in out
    drawing = """
  ●        0  input
  ├─●      1  nor_conv_3x3  ← 0
  ├─│─●    2  nor_conv_1x1  ← 0
  │ ├─│─●  3  skip_connect  ← 1
  ● │ │ │  4  none          ← 0
  │ ● │ │  5  avg_pool_3x3  ← 1
  │ │ ●─╯  6  nor_conv_3x3  ← 2, 3
  ●─┴─╯    7  output        ← 4, 5, 6
"""
    assert drawing in out
    assert "cell/edge.1-2  skip_connect" in out
    assert "params<=50000: kept" in out
    assert "curve (the last 5 of 8 steps)" in out
    curve = out.partition("curve")[2].splitlines()
    assert curve[1].split() == ["step", "train_loss", "val_loss", "params"]
    assert [line.split()[0] for line in curve[2:7]] == ["4", "5", "6", "7", "8"]
    assert curve[6].split() == ["8", "inf", "0.12345678901234566", "12345"]
    assert "hand:0/train-1\tstandard\tcomplete" in out
    assert "weights.safetensors" in out


def test_show_a_trial_as_json(say: Said, folder: Path) -> None:
    found = document(say("show", "hand:0", "--json"))
    assert found["values"] == {"val_loss": 0.12345678901234567}
    assert found["metrics"] == {"val_loss": 0.12345678901234567, "train_loss": "inf", "params": 12345.0}
    assert [point["step"] for point in found["curve"]] == list(range(1, 9))
    assert found["curve"][0] == {"step": 1.0, "train_loss": "nan", "val_loss": 1.0}
    assert Architecture("nasbench201", found["architecture"]).key == found["key"]
    assert found["graph"]["nodes"][0] == "input"
    assert [0, 1] in found["graph"]["edges"]
    (retraining,) = found["retrainings"]
    assert retraining["address"] == "hand:0/train-1"
    assert retraining["metrics"] == {"test_accuracy": 0.987654321}
    (file,) = retraining["files"]
    assert (folder / file["path"]).read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (2, ["failed", "exception: ValueError: first line second ?[31mline"]),
        (3, ["rejected", "params is 60000", "params<=50000: violated by 20.0%"]),
        (4, ["reused", "same as hand:0", "reason same as trial 0"]),
        (5, ["running"]),
    ],
)
def test_show_a_trial_of_every_state(say: Said, number: int, words: list[str]) -> None:
    code, out, err = say("show", f"hand:{number}")
    assert (code, err) == (0, "")
    assert all(word in " ".join(out.split()) for word in words), out
    assert "\x1b" not in out
    assert document(say("show", f"hand:{number}", "--json"))["state"] == words[0]


def test_show_works_without_the_file_of_the_space(say: Said, folder: Path) -> None:
    assert "●  1  width=" in say("show", "plain:0")[1]
    (folder / "small.py").unlink()
    code, out, err = say("show", "plain:0")
    assert (code, err) == (0, "")
    assert "(not drawn: space 'small.py:space': there is no file 'small.py')" in out
    assert "width" in out
    assert document(say("show", "plain:0", "--json"))["graph"] is None


@pytest.mark.parametrize(
    ("change", "trouble"),
    [
        (("space = Small()", "raise OSError('no luck')"), "fails to load: OSError: no luck"),
        (('("a", "b", "c")', '("x", "y")'), "has changed since the study was made"),
        (("def build", "def graph(self, arch):\n        return 1 / 0\n    def build"), "division by zero"),
    ],
)
def test_show_survives_a_space_that_has_changed(say: Said, folder: Path, change: tuple[str, str], trouble: str) -> None:
    (folder / "small.py").write_text(SPACE.replace(*change))
    code, out, err = say("show", "plain:0")
    assert (code, err) == (0, "")
    assert "not drawn" in out
    assert trouble in out
    assert say("trials", "plain")[0] == say("best", "plain")[0] == 0


# -- trials, best, front --------------------------------------------------------------------------------------


def test_trials_lists_all_in_order(say: Said) -> None:
    code, out, err = say("trials", "hand")
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split() == ["trial", "val_loss", "params", "state", "seconds", "reason", "architecture"]
    assert [row.split()[0] for row in rows] == [f"hand:{number}" for number in range(6)]
    assert rows[0].split()[1:5] == ["0.12345678901234566", "12345", "complete", "8.5"]
    assert {row.count("\t") for row in (head, *rows)} == {6}


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["--limit", "2"], [0, 1]),
        (["--sort", "-number", "-n", "2"], [5, 4]),
        (["--sort", "val_loss"], [0, 4, 1, 2, 3, 5]),  # best first; those without a value come last
        (["--sort", "-val_loss", "-n", "3"], [1, 0, 4]),
        (["--sort", "params", "--state", "complete"], [0, 1]),
        (["--sort", "-seconds", "-n", "1"], [0]),
        (["--state", "failed"], [2]),
        (["--state", "waiting"], []),
        (["--sort", "train_loss", "-n", "1"], [0]),
    ],
)
def test_trials_sorts_and_selects(say: Said, options: list[str], numbers: list[int]) -> None:
    assert [trial["number"] for trial in document(say("trials", "hand", "--json", *options))] == numbers
    assert len(say("trials", "hand", *options)[1].splitlines()) == 1 + len(numbers)


def test_best_is_the_first_of_the_best_feasible(say: Said) -> None:
    trials = [trial for trial in document(say("trials", "two", "--json")) if trial["feasible"]]
    best = document(say("best", "two", "--json"))
    complete = [trial for trial in trials if trial["state"] == "complete"]
    assert best == min(complete, key=lambda trial: (trial["values"]["error"], trial["number"]))
    code, out, _ = say("best", "two")
    assert code == 0
    assert out.startswith(f"best: {best['address']}\n")
    assert f"{best['values']['error']:.6g}" in out


def test_front_holds_what_nothing_dominates(say: Said) -> None:
    trials = [trial for trial in document(say("trials", "two", "--json", "--state", "complete")) if trial["feasible"]]
    points = {trial["number"]: (-trial["values"]["error"], trial["values"]["val_accuracy"]) for trial in trials}
    wanted = {point for point in points.values() if not any(dominates(other, point) for other in points.values())}
    front = document(say("front", "two", "--json"))
    assert {points[trial["number"]] for trial in front} == wanted
    assert len(front) == len(wanted)
    assert [trial["values"]["error"] for trial in front] == sorted(trial["values"]["error"] for trial in front)
    head, *rows = say("front", "two")[1].splitlines()
    assert head.split() == ["trial", "error", "val_accuracy", "params", "architecture"]
    assert [row.split()[0] for row in rows] == [trial["address"] for trial in front]


@pytest.mark.parametrize("command", ["best", "front"])
def test_no_best_trial(say: Said, command: str) -> None:
    code, out, err = say(command, "hopeless")
    assert (code, out) == (4, "")
    assert "satisfies error<=-1" in err
    code, out, err = say(command, "empty")
    assert (code, out) == (3, "")
    assert "no complete trial yet" in err


# -- query ----------------------------------------------------------------------------------------------------


def test_query_prints_a_table_or_json(say: Said) -> None:
    sql = "SELECT number, state, objective AS o, reason FROM trials WHERE study = 'hand' ORDER BY number LIMIT 2"
    code, out, err = say("query", sql)
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["number", "state", "o", "reason"],
        ["0", "complete", "-0.12345678901234566"],
        ["1", "complete", "-0.5"],
    ]
    assert document(say("query", sql, "--json")) == [
        {"number": 0, "state": "complete", "o": -0.12345678901234566, "reason": None},
        {"number": 1, "state": "complete", "o": -0.5, "reason": None},
    ]


def test_query_gives_valid_json_whatever_comes(say: Said) -> None:
    sql = "SELECT 1 AS a, 2 AS a, 9e999 AS big, x'00ff' AS bytes, 'a' || char(10) || 'b' AS text"
    assert document(say("query", sql, "--json")) == [{"a": 1, "a_2": 2, "big": "inf", "bytes": "00ff", "text": "a\nb"}]
    assert say("query", sql)[1].splitlines()[1].endswith("a b")
    assert document(say("query", "SELECT 1 WHERE 0", "--json")) == []
    assert say("query", "SELECT 1 AS one WHERE 0")[:2] == (0, "one\n")


MIXED = (
    "SELECT 1 AS a, 2.5 AS a, NULL AS missing, x'00ff' AS bytes, 'é, \"' || char(10) AS text "
    "UNION ALL SELECT 'b', 0.1, 4, NULL, ''"
)


def test_query_writes_csv_that_a_reader_reads_back(say: Said, tmp_path: Path) -> None:
    code, out, err = say("query", MIXED, "--format", "csv")
    assert (code, err) == (0, "")
    heads, *rows = csv.reader(io.StringIO(out))
    assert heads == ["a", "a_2", "missing", "bytes", "text"]
    assert rows == [["1", "2.5", "", "00ff", 'é, "\n'], ["b", "0.1", "4", "", ""]]
    file = tmp_path / "t.csv"
    assert say("query", MIXED, "--out", str(file))[:2] == (0, f"table: {file}\n")
    assert file.read_text(encoding="utf-8") == out


def test_query_writes_parquet_with_types(say: Said, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "t.parquet"
    assert say("query", "SELECT number, state, objective FROM trials ORDER BY number", "-o", str(file))[0] == 0
    table = parquet.read_table(file)
    asked = document(say("query", "SELECT number, state, objective FROM trials ORDER BY number", "--json"))
    assert [str(field.type) for field in table.schema] == ["int64", "string", "double"]
    assert table.to_pylist() == asked
    assert say("query", MIXED, "-o", str(file))[0] == 0
    assert sorted(parquet.read_table(file).column("a").to_pylist()) == ["1", "b"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--format", "parqet"), "unknown format 'parqet'; did you mean 'parquet'?"),
        (("--format", "parquet"), "name a file for it: --out FILE.parquet"),
        (("--out", "t.txt"), "ends in .csv or .parquet"),
        (("--out", "nowhere/t.csv"), "there is no folder 'nowhere'"),
        (("--format", "csv", "--json"), "--json is a format"),
    ],
)
def test_query_refuses_files_that_cannot_be(say: Said, options: tuple[str, ...], said: str) -> None:
    code, out, err = say("query", "SELECT 1", *options)
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize(
    "sql",
    [
        "SELEC 1",
        "SELECT * FROM nowhere",
        "SELECT 1; DELETE FROM runs",
        "SELECT ?",
        "",
        "DELETE FROM metrics",
        "DELETE FROM metrics RETURNING run",
        "UPDATE runs SET state = 'complete'",
        "DROP VIEW trials",
        "CREATE TABLE more (x)",
        "VACUUM",
    ],
)
def test_query_refuses_what_is_malformed_or_writes(say: Said, folder: Path, sql: str) -> None:
    before = stored(folder, "SELECT (SELECT COUNT(*) FROM metrics), (SELECT group_concat(state) FROM runs)")
    code, out, err = say("query", sql)
    assert (code, out) == (2, "")
    assert "query" in err
    assert stored(folder, "SELECT (SELECT COUNT(*) FROM metrics), (SELECT group_concat(state) FROM runs)") == before


# -- verify ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("study", ["plain", "two", "hopeless"])
def test_verify_finds_nothing_in_a_searched_study(say: Said, study: str) -> None:
    code, out, err = say("verify", study)
    assert (code, err) == (0, "")
    assert out.startswith("ok: ")
    found = document(say("verify", study, "--json"))
    assert (found["ok"], found["findings"]) == (True, [])
    assert found["asks"] >= 15


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE runs SET architecture = (SELECT architecture FROM runs WHERE study = 1 AND number = 2) "
        "WHERE study = 1 AND number = 7",
        "UPDATE metrics SET value = value + 0.001 WHERE run = 4 AND name = 'val_accuracy'",
    ],
)
def test_verify_finds_what_was_altered(say: Said, folder: Path, change: str) -> None:
    with sqlite3.connect(folder / "nas.db") as connection:
        assert connection.execute(change).rowcount == 1
    code, out, err = say("verify", "plain")
    assert (code, out) == (7, "")
    assert "trial " in err
    assert err.splitlines()[-1].startswith("nas: study 'plain' is not what its record makes it")
    code, out, err = say("verify", "plain", "--json")
    found = json.loads(out)
    assert (code, found["ok"]) == (7, False)
    assert found["findings"]


def test_verify_takes_a_table_from_another_place(say: Said, folder: Path) -> None:
    (folder / "small.csv").rename(folder / "moved.csv")
    code, out, err = say("verify", "plain")
    assert (code, out) == (3, "")
    assert "small.csv" in err
    assert say("verify", "plain", "--data", "moved.csv")[0] == 0


# -- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", "plaim"], 3, ["no study 'plaim'", "did you mean 'plain'?"]),
        (["trials", "nothing-like-it"], 3, ["no study 'nothing-like-it'", "plain, two"]),
        (["verify", "plaim"], 3, ["did you mean 'plain'?"]),
        (["show", "plain:99"], 3, ["no trial 99", "nas trials plain"]),
        (["show", "plain:x"], 2, ["'plain:x' is no address", "plain:17"]),
        (["show", "plain:"], 2, ["is no address"]),
        (["show", ":3"], 2, ["is no address"]),
        (["show", "plain:²"], 2, ["is no address"]),
        (["show", "plain:-1"], 2, ["is no address"]),
        (["show", "plain:99999999999999999999999"], 2, ["is no address"]),
        (["best", "plain:3"], 2, ["nas show plain:3"]),
        (["show"], 2, ["STUDY[:N]"]),
        (["trials", "plain", "--state", "complet"], 2, ["did you mean 'complete'?"]),
        (["trials", "plain", "--sort", "accuracy"], 2, ["did you mean 'val_accuracy'?", "number, seconds"]),
        (["trials", "plain", "--limit", "0"], 2, ["--limit"]),
        (["trials", "plain", "--limit", "many"], 2, ["--limit"]),
        (["ls", "--db", "none.db"], 3, ["there is no database 'none.db'", "nas search"]),
        (["ls", "--db", "no/folder/nas.db"], 3, ["there is no database"]),
        (["ls", "--db", "junk.db"], 5, ["junk.db is not a study database"]),
        (["ls", "--db", "foreign.db"], 5, ["other tables (customers)"]),
        (["ls", "--db", "newer.db"], 5, ["newer than this program", "update nas"]),
        (["ls", "--db", "hollow.db"], 3, ["the database is empty"]),
    ],
)
def test_bad_input_ends_in_two_lines_at_most(
    say: Said, folder: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    (folder / "junk.db").write_text("this is no database\n" * 100)
    (folder / "hollow.db").touch()
    with sqlite3.connect(folder / "foreign.db") as connection:
        connection.execute("CREATE TABLE customers (name)")
    shutil.copy(folder / "nas.db", folder / "newer.db")
    with sqlite3.connect(folder / "newer.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    found, out, err = say(*arguments)
    assert (found, out) == (code, ""), err
    assert all(word in err for word in words), err
    assert len(err.splitlines()) <= 2
    assert "Traceback" not in err


# -- as a process ---------------------------------------------------------------------------------------------


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **options.pop("environment", {})}
    command = [sys.executable, "-m", "nas_cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, **options)


def test_a_pipe_gets_whole_lines_without_colour(folder: Path) -> None:
    done = process("trials", "hand", environment={"COLUMNS": "40", "FORCE_COLOR": "1", "TERM": "xterm-256color"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
    notation = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    assert done.stdout.splitlines()[1].endswith(notation)


def test_a_closed_pipe_ends_quietly(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "nas_cli", "trials", "plain"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert done.stderr == ""


def test_a_terminal_without_unicode_gets_plain_characters(folder: Path) -> None:
    done = process("show", "hand:0", environment={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "  *-+-'    7  output        < 4, 5, 6" in done.stdout


def test_on_a_terminal_tables_fit_its_width(folder: Path) -> None:
    controller, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    command = [sys.executable, "-m", "nas_cli", "trials", "hand"]
    done = subprocess.run(command, env=environment, stdout=terminal, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(terminal)
    assert (done.returncode, done.stderr) == (0, "")
    text = b"".join(_read(controller)).decode()
    lines = [_uncoloured(line) for line in text.splitlines()]
    assert len(lines) > 7  # cells wrap
    assert max(map(len, lines)) <= 80
    assert "hand:5" in text


def _read(handle: int) -> Iterator[bytes]:
    """What was written to a terminal whose other end is closed."""
    try:
        while chunk := os.read(handle, 65536):
            yield chunk
    except OSError:  # Linux: the other end is closed
        return
    finally:
        os.close(handle)


def _uncoloured(line: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def test_show_a_training(say: Said, folder: Path) -> None:
    code, out, err = say("show", "hand:0/train-1")
    assert (code, err) == (0, "")
    assert ["training", "hand:0/train-1"] in [line.split() for line in out.splitlines()]
    assert "test_accuracy  0.987654" in out
    assert "weights.safetensors  weights" in out
    found = document(say("show", "hand:0/train-1", "--json"))
    assert found["metrics"] == {"test_accuracy": 0.987654321}
    assert found["seed"] == derive(3, 0, "retrain", found["repeat"])
    assert say("show", "hand:0/train-2")[0] == 3


def test_a_query_may_name_columns_as_before(say: Said) -> None:
    counts = "SELECT COUNT(*) AS n FROM trials WHERE reuses IS NULL"
    now, before = (say("query", text, "--json") for text in (counts, counts.replace("reuses", "source")))
    assert now == before
    assert json.loads(now[1])[0]["n"] > 0
