"""Workers, brackets and pruners from the command line, and what is said where they do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]

TINY = ["--size", "channels=4,cells=1", "-s", "split.limit=200", "--threads", "1", "--device", "cpu"]


@pytest.mark.usefixtures("forked_workers")
def test_a_bracket_with_workers(say: Say) -> None:
    search = ["search", "--study", "s", "--strategy", "asha", *TINY, "--epochs", "3", "--spend", "3"]
    code, out, _ = say(*search, "--workers", "2", "--lag", "2", "--json")
    assert (code, json.loads(out)["ending"]) == (0, "spent")
    query = "SELECT SUM(budget) / 3.0 AS spent, COUNT(continues) AS continued FROM trials WHERE state = 'complete'"
    (row,) = json.loads(say("query", query, "--json")[1])
    assert row["spent"] >= 3
    assert row["continued"] >= 1
    assert say("verify", "s")[0] == 0
    code, out, _ = say("trials", "s")
    assert (code, "budget" in out.splitlines()[0]) == (0, True)
    assert say("resume", "s", "--spend", "4", "--workers", "1")[0] == 0
    code, out, _ = say("best", "s", "--json")
    best = json.loads(
        say("query", f"SELECT budget FROM trials WHERE number = {json.loads(out)['number']}", "--json")[1]
    )
    assert best == [{"budget": 3.0}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--objective", "speed"], "unknown metric 'speed' (known: val_accuracy"),
        (["--constraint", "weight<=3"], "unknown metric 'weight' (known: val_accuracy"),
        (["--strategy", "asha", "--epochs", "1"], "train by epochs"),
        (["--strategy", "asha", "-s", "strategy.inner=hyperband"], "is a bracket itself"),
        (["--strategy", "asha", "-s", "strategy.inner_config.population=3"], "unknown key 'population'"),
        (["--early-stop", "mediam"], "did you mean 'median'"),
        (["--pruner", "median", "-s", "pruner.warmup=3"], "unknown key 'warmup'"),
        (["-s", "early_stop.warmup_steps=3"], "name one by --early-stop"),
        (["-s", "pruner.warmup_steps=3"], "name one by --early-stop"),
        (["--workers", "0"], "workers"),
        (["--order", "loose"], "order"),
        (["--spend", "-1"], "spend"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(say: Say, arguments: list[str], words: str) -> None:
    code, _, said = say("search", *TINY, "--study", "s", "--trials", "2", *arguments)
    assert code == 2
    assert words in said
    assert len(said.strip().splitlines()) <= 2
    assert say("show", "s")[0] == 3, "nothing may be stored"


def test_a_table_with_one_schedule_has_no_brackets_and_no_pruners(say: Say, shared_data: Path) -> None:
    table = ["--table", str(shared_data / "nasbench_graph.csv.gz"), "--data", "cora"]
    code, _, said = say("search", "--space", "nasbench_graph", *table, "--strategy", "asha")
    assert (code, "has one only" in said) == (2, True)
    code, _, said = say("search", "--space", "nasbench_graph", *table, "--pruner", "median")
    assert (code, "a table answers at once" in said) == (2, True)


def test_brackets_go_no_higher_than_the_level_of_the_study(say: Say, shared_data: Path) -> None:
    table = ["--table", str(shared_data / "nb201.csv.gz"), "--data", "cifar10", "--strategy", "asha"]
    code, _, said = say("search", *table, "--epochs", "12")
    assert (code, "has one only" in said) == (2, True)
    assert say("search", *table, "--epochs", "200", "--spend", "2", "--study", "s")[0] == 0
    rows = json.loads(say("query", "SELECT DISTINCT budget FROM trials ORDER BY budget", "--json")[1])
    assert [row["budget"] for row in rows] == [12.0, 200.0]
